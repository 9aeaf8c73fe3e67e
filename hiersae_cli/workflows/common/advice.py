"""The next command to suggest: training with sizes that fit a cache, a matched baseline, a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hiersae_cli.config.base import Config, flag_name, typed
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.lm import LMConfig
from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.config.train import MOST_EPOCHS, USUAL_TOKENS, TrainConfig
from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats.atomic import read_json
from hiersae_cli.workflows.common.sizing import STABLE_STEPS, batch_for

_EPOCHS = 10
_LEAST_TOKENS = 1000
_LATENTS = (64, 16_384)
_TOKENS_PER_LATENT = 500  # with fewer, latents are neither unique nor meaningful
_LATENTS_PER_DIMENSION = 8
_PARENTS = 1 / 2  # share of all latents and of all active latents, as in the defaults
# This recipe finds the whole tree of ``toy``: see docs/research-log.md.
TOY: dict[str, Any] = {
    "arch": "hier",
    "widths": (3, 17),
    "k": (0.49, 0.67),
    "tokens": 2 * 10**6,
    "batch": 512,
    "lr": 3e-3,
    "refine": True,
    "bias_start": "median",
    "dead_after": 20_000,
    "k_start": 10.0,
    "coarse_weight": 1.0,
    "coarse_rows": 0.4,
    "tree_weight": 0.5,
    "orphan_weight": 1.0,
    "rate_limit": 0.0,
    "sibling_weight": 1.0,
    "normalise": "overall",
    "least_containment": 0.5,
    "curriculum": "anneal=0.7",
}


def next_commands(verb: str, config: Config, result: Mapping[str, Any]) -> list[str]:
    """Commands that a person would likely run after the command ``verb`` returned ``result``; may be empty."""
    follows: dict[str, Callable[[Any, Mapping[str, Any]], list[str]]] = {
        "lm": _after_lm,
        "cache": lambda config, result: [] if config.shard else [after_cache(config.out, result)],
        "join": lambda config, result: [after_cache(config.out, result)],
        "synth": lambda config, result: [after_synth(config, result)],
        "train": after_training,
        "data get": lambda config, _: [command("lm", f"{config.data}/{config.name}/text.txt", "-o", "host")],
        "eval": lambda config, result: [] if config.explain else [after_eval(config, result)],
        "study new": lambda config, _: [
            command("study", "simulate", config.out),
            command("study", "serve", config.out),
        ],
        "study simulate": lambda config, _: [command("study", "analyze", config.study, "--simulated")],
        "experiment run": lambda config, _: [
            command("experiment", "plot", config.out_dir, "-o", f"{config.out_dir}/plots")
        ],
        "dashboard": after_dashboard,
        "export-tree": _after_export,
        "encode": lambda config, _: [command("info", config.out)],
        "convert": _after_convert,
    }
    return follows[verb](config, result) if verb in follows else []


def _after_lm(config: LMConfig, result: Mapping[str, Any]) -> list[str]:
    layer = str(config.layers // 2)
    return [command("cache", *config.texts, "--model", config.out, "--layer", layer, "-o", "acts.h5")]


def _after_export(config: ExportTreeConfig, result: Mapping[str, Any]) -> list[str]:
    if config.format == "json":
        return [command("info", config.out)]
    return [f"dot -Tsvg {shlex.quote(config.out)} -o tree.svg"] if config.format == "dot" else []


def _after_convert(config: ConvertConfig, result: Mapping[str, Any]) -> list[str]:
    if config.to:
        return []
    return [command("eval", config.out, *_repeated("--acts", config.acts), "-o", "report.json")]


def after_cache(path: str, summary: Mapping[str, Any]) -> str:
    """The command that trains on a new cache; ``summary`` is what ``hiersae cache --json`` prints of it."""
    modules = list(summary["modules"].items())
    name, module = modules[0]
    sizes = _sizes(summary["splits"]["train"], module["width"])
    chosen = ["--module", name] if len(modules) > 1 else []
    return command("train", near(path), *_train_flags(TrainConfig(acts=[], **sizes)), *chosen, "-o", "runs/hier")


def after_synth(config: SynthConfig, summary: Mapping[str, Any]) -> str:
    """The command that trains on synthetic activations; for the toy tree, with the recipe that finds it."""
    recipe = TOY if config.preset == "toy" else _sizes(summary["splits"]["train"], summary["width"])
    return command(
        "train", near(config.out), *_train_flags(TrainConfig(acts=[], **recipe)), "-o", f"runs/{config.preset}"
    )


def after_training(config: TrainConfig, result: Mapping[str, Any]) -> list[str]:
    """Training of the matched run, unless it is next to the new one, and the evaluation that compares the two."""
    commands = []
    if config.synth:
        commands.append(f"hiersae synth {config.synth}{config.shape_flags(config.synth)} -o acts.h5")
    acts = config.acts or ["acts.h5"]
    partner = _partner(Path(config.out))
    if partner is None:
        matched = _matched(config)
        partner = matched.out
        commands.append(command("train", *map(near, config.acts), *_train_flags(matched), "-o", near(partner)))
    hier, flat = (config.out, partner) if config.arch == "hier" else (partner, config.out)
    model = [] if result["synthetic"] else ["--model", _host(result["host"], acts)]
    commands.append(
        command("eval", near(hier), "--baseline", near(flat), *_repeated("--acts", acts), *model, "-o", "report.json")
    )
    return commands


def after_eval(config: EvalConfig, report: Mapping[str, Any]) -> str:
    """The command that shows the measured run in a browser."""
    flat = [subject["path"] for subject in report["subjects"].values() if subject["arch"] not in ("hier", "control")]
    baseline = next((["--baseline", near(path)] for path in config.baseline if path in flat), [])
    model = ["--model", near(config.model)] if config.model else []
    report_flag = ["--report", near(config.out)] if config.out else []
    return command(
        "dashboard", near(config.runs[0]), *_repeated("--acts", config.acts), *baseline, *model, *report_flag, "--serve"
    )


def after_dashboard(config: DashboardConfig, result: Mapping[str, Any]) -> list[str]:
    """How to open the pages, and the command that serves them, which can do more; nothing after serving."""
    if config.serve or config.neuronpedia:
        return []
    named = [("--baseline", config.baseline), ("--model", config.model), ("--report", config.report)]
    named += [("--index", config.index)]
    flags = [word for flag, path in named if path for word in (flag, near(path))]
    rows = [] if config.tokens == DashboardConfig.tokens else ["--tokens", typed(config.tokens)]
    pages = [f"open {Path(result['pages']).resolve().as_uri()}"] if config.out else []
    return [
        *pages,
        command("dashboard", near(config.run), *_repeated("--acts", config.acts), *flags, *rows, "--serve"),
    ]


def repeats(rows: int, width: int, tokens: int) -> str:
    """A warning that training sees each of ``rows`` too often; "" if it does not."""
    if tokens <= MOST_EPOCHS * rows:
        return ""
    advised = typed(_sizes(rows, width)["tokens"])
    return (
        f"--tokens {typed(tokens)} repeats {rows:,} rows {tokens / rows:,.0f} times, so latents may fit only "
        f"these rows: cache more text, or pass --tokens {advised}"
    )


def near(path: str) -> str:
    """A path relative to the working folder, if it lies within."""
    absolute = Path(path)
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_absolute() and absolute.is_relative_to(here) else path


def command(*words: str) -> str:
    """A ``hiersae`` command line, quoted for a shell."""
    return shlex.join(["hiersae", *words])


def _repeated(flag: str, paths: list[str]) -> list[str]:
    return [word for path in paths for word in (flag, near(path))]


def _sizes(rows: int, width: int) -> dict[str, Any]:
    """Tokens, batch, widths and k of a hierarchical run for a cache of ``rows`` training rows of ``width``."""
    tokens = max(min(_EPOCHS * rows, max(USUAL_TOKENS, rows)), _LEAST_TOKENS)
    tokens -= tokens % 10 ** (len(str(tokens)) - 1)
    least, most = _LATENTS
    latents = min(max(min(_LATENTS_PER_DIMENSION * width, tokens // _TOKENS_PER_LATENT), least), most)
    latents = 1 << (latents.bit_length() - 1)
    widths, k = _levels(latents, min(max(latents // 64, 8), 32))
    return {"widths": widths, "k": k, "tokens": tokens, "batch": batch_for(tokens, STABLE_STEPS)}


def _levels(latents: int, l0: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """Widths and k of two levels with ``latents`` and ``l0`` in all."""
    parents = max(1, int(latents * _PARENTS))
    active = min(parents, l0 * _PARENTS)
    return (parents, latents - parents), (_whole(active), _whole(l0 - active))


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _matched(config: TrainConfig) -> TrainConfig:
    """The run to compare with: flat for a hierarchical run, else hierarchical; shared options are the same."""
    latents, l0 = sum(config.widths), sum(config.k)
    arch = "batchtopk" if config.arch == "hier" else "hier"
    widths, k = ((latents,), (_whole(l0),)) if arch == "batchtopk" else _levels(latents, l0)
    shared = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if "arch" not in field.metadata.get("only_for", {})
    }
    return TrainConfig(**{**shared, "arch": arch, "widths": widths, "k": k, "out": _beside(Path(config.out), arch)})


def _beside(run: Path, arch: str) -> str:
    """A free folder next to a run, with its name but flat in place of hier, or hier in place of flat."""
    old, new = ("flat", "hier") if arch == "hier" else ("hier", "flat")
    name = run.name.replace(old, new) if old in run.name else f"{run.name}-{new}"
    number = 2
    path = run.with_name(name)
    while path.exists():
        path, number = run.with_name(f"{name}-{number}"), number + 1
    return str(path)


def _partner(run: Path) -> str | None:
    """A finished run next to this one that differs only in having a tree or not; None if there is none."""
    own = _described(run)
    for folder in sorted(run.absolute().parent.iterdir()):
        if own and folder.name != run.name and (folder / "model.safetensors").exists():
            other = _described(folder)
            if other and other["tree"] != own["tree"] and other["matched"] == own["matched"]:
                return str(run.with_name(folder.name))
    return None


def _described(run: Path) -> dict[str, Any] | None:
    try:
        header = read_json(run / "config.json")
        config = header["config"]
        matched = [sum(config["widths"]), sum(config["k"]), *(config[name] for name in ("tokens", "batch", "seed"))]
        matched += [config.get("init_seed"), config.get("order_seed")]  # not in runs of older releases
        return {"tree": config["arch"] == "hier", "matched": [*matched, sorted(header["inputs"].values())]}
    except (HierSAEError, OSError, KeyError, TypeError):
        return None


def _train_flags(config: TrainConfig) -> list[str]:
    """The flags of ``hiersae train`` for a configuration, without those at their defaults."""
    sizes = {name: getattr(config, name) for name in ("arch", "widths", "k", "tokens")}
    words = [word for name, value in sizes.items() for word in (f"--{name}", typed(value))]
    usual = TrainConfig(acts=[], **sizes, batch=config.batch, synth=config.synth)
    for field in fields(config):
        value = getattr(config, field.name)
        derived = field.name in ("lr", "dead_after", *(f"truth_{name}" for name in vars(config.shape())))
        default = getattr(usual, field.name) if derived else field.default
        recorded = field.metadata["kind"] == "option" and field.metadata["recorded"]
        if recorded and field.name not in sizes and value != default:
            words += [flag_name(field)] if value is True else [flag_name(field), typed(value)]
    return words


def _host(name: str, acts: list[str]) -> str:
    """The host's path from here; ``name`` is its path from the folder in which the cache was made."""
    folder = Path(acts[0]).parent
    places = [Path(name), folder / name, folder / Path(name).name]
    return near(next((str(place) for place in places if place.exists()), name))
