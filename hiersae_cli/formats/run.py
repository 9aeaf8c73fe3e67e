"""The run folder: ``config.json``, ``model.safetensors``, ``metrics.jsonl``, and ``state/`` while it trains.

Specified in ``docs/file-formats.md``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import torch

from hiersae_cli.config.base import has_type
from hiersae_cli.config.train import Seeds, TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats import notebook, state_parts
from hiersae_cli.formats.atomic import human_bytes, read_json, replacing, sweep_inside, write_json
from hiersae_cli.formats.described import Described, host_line, of_levels
from hiersae_cli.formats.encoded_text import EncodedText
from hiersae_cli.formats.fields import COMMON, COUNT, HOST, SIZE, require_fields
from hiersae_cli.formats.hub import folder_name, local_path
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.recorded_host import load_recorded_host
from hiersae_cli.formats.tensors import opened_tensors, read_tensors, require_numbers, save_tensors
from hiersae_cli.formats.text import shortened, visible
from hiersae_cli.hashing import sha256_file
from hiersae_cli.host.model import Host
from hiersae_cli.host.one_text import TextReader
from hiersae_cli.levels import NO_PARENT, Levels
from hiersae_cli.reading import parse_json, read_utf8, reading
from hiersae_cli.sae import HierarchicalSAE, SparseAutoencoder, build

SCHEMA = "hiersae.run"
SCHEMA_VERSION = 3

_HINT = "Train the run again, with --overwrite."
_HEADER: dict[str, Any] = {
    **COMMON,
    "config": {"arch": str, "widths": [SIZE], "k": [float]},
    "module": str,
    "width": SIZE,
    "host": HOST,
    "converted?": ({"tool": str, "version": str, "architecture": str, "model": str, "module": str}, None),
}
_RANKS = {"data": SIZE, "tree": SIZE, "communication": float, "memory": [COUNT]}
_METRICS: dict[str, Any] = {
    "step": COUNT,
    "fvu?": (float, None),
    "dead?": (float, None),
    "tokens_per_second?": (float, None),
    "ranks?": (_RANKS, None),
}


class RunFolder:
    """Paths of a run, and writing and reading its files."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.model_file = self.path / "model.safetensors"
        self.metrics_file = self.path / "metrics.jsonl"
        self.state_file = self.path / "state" / "state.safetensors"
        self.tensorboard = self.path / "tensorboard"  # only with --log tensorboard

    def read_header(self) -> dict[str, Any]:
        """config.json; raises ``UsageError`` if there is no run, ``FileError`` if it is not readable."""
        if not self.config_file.exists():
            what = "no config.json in this folder" if self.path.is_dir() else "no such run folder"
            hint = "Make a run with 'hiersae train', or of another tool's dictionary with 'hiersae convert'."
            raise UsageError(f"{self.path}: {what}", hint)
        header: dict[str, Any] = read_json(self.config_file)
        check_schema(self.config_file, header, SCHEMA, 1, 2, SCHEMA_VERSION)
        require_fields(self.config_file, header, _HEADER, _HINT)
        return header

    def write_header(self, header: dict[str, Any]) -> None:
        """Write config.json, which starts a run."""
        write_json(self.config_file, header)

    def begin(self, header: dict[str, Any]) -> None:
        """Begin a run in place of an earlier one, whose files go; other files stay.

        config.json is replaced last: a process that is killed before leaves the earlier run without weights, not with
        weights of another configuration.
        """
        for file in (self.state_file, self.model_file, self.metrics_file):
            file.unlink(missing_ok=True)
        state_parts.remove_parts(self.state_file.parent)
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        self.write_header(header)

    def others(self) -> list[str]:
        """The names in the folder that training does not write; what killed processes left is removed first."""
        sweep_inside(self.path)
        sweep_inside(self.state_file.parent)
        ours = {self.config_file, self.model_file, self.metrics_file, self.state_file.parent, self.tensorboard}
        return sorted(file.name for file in self.path.iterdir() if file not in ours) if self.path.is_dir() else []

    def write_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Replace the checkpoint that training resumes from."""
        save_tensors(self.state_file, tensors, {"schema": SCHEMA}, checked=True)
        state_parts.remove_parts(self.state_file.parent)

    def write_state_part(
        self, tensors: dict[str, torch.Tensor], step: int, part: int, parts: int
    ) -> tuple[str, list[str]]:
        """Write a part of a checkpoint; ``write_state_index`` makes it valid when all parts are there."""
        return state_parts.write_part(self.state_file.parent, tensors, step, part, parts, SCHEMA)

    def write_state_index(self, parts: list[tuple[str, list[str]]], step: int) -> None:
        """Replace the checkpoint by the parts that ``write_state_part`` has written."""
        state_parts.write_index(self.state_file.parent, parts, step)
        self.state_file.unlink(missing_ok=True)

    def has_state(self) -> bool:
        """Whether there is a checkpoint."""
        return self.state_file.exists() or (self.state_file.parent / state_parts.INDEX).exists()

    def read_state(self, runs_of: state_parts.RunsOf | None = None) -> dict[str, torch.Tensor] | None:
        """The checkpoint, or None if there is none yet; raises ``FileError`` for a damaged or an earlier one.

        With ``runs_of`` only the rows that it names of each tensor.
        """
        if not self.has_state():
            return None
        version = self.read_header()["schema_version"]
        if version != SCHEMA_VERSION:
            raise FileError(
                f"{self.path}: an earlier release started this run (version {version}), and this one cannot resume it",
                "Start again with --overwrite.",
            )
        step = -1
        if self.state_file.exists():
            with opened_tensors(self.state_file, _HINT) as file:
                step = int(file.get_tensor("step"))
        if state_parts.step_of(self.state_file.parent, _HINT) > step:
            tensors = state_parts.read_parts(self.state_file.parent, _HINT, runs_of or (lambda name: None))
        elif runs_of:
            tensors = state_parts.read_rows(self.state_file, _HINT, runs_of)
        else:
            tensors = read_tensors(self.state_file, _HINT)
        require_numbers(self.state_file, tensors, _HINT)
        return tensors

    def write_model(self, tensors: dict[str, torch.Tensor], step: int, steps: int) -> None:
        """Replace the weights, which act on activations as cached, and note how far training is."""
        save_tensors(self.model_file, tensors, {"schema": SCHEMA, "step": str(step), "steps": str(steps)})

    def progress(self) -> tuple[int, int]:
        """Steps done and steps planned, from the file of weights; (0, 0) without one."""
        if not self.model_file.exists():
            return 0, 0
        with opened_tensors(self.model_file, _HINT) as file:
            metadata = file.metadata() or {}
            return int(metadata.get("step", 0)), int(metadata.get("steps", 0))

    def is_hard(self) -> bool:
        """Whether the weights are those of a hardened tree; False if there are no weights yet."""
        if not self.model_file.exists():
            return False
        with opened_tensors(self.model_file, _HINT) as file:
            return "hard" in file.keys() and bool(file.get_tensor("hard"))  # noqa: SIM118 (not a mapping)

    def is_complete(self) -> bool:
        """Whether training has ended, or another tool trained it."""
        if self.read_header().get("converted"):
            return self.model_file.exists()
        done, planned = self.progress()
        return planned > 0 and done == planned and not self.has_state()

    def keep_metrics_until(self, step: int) -> None:
        """Drop lines of metrics.jsonl after ``step``: they will be written again."""
        if self.metrics_file.exists():
            with reading(self.metrics_file, _HINT):
                lines = read_utf8(self.metrics_file).splitlines(keepends=True)
                valid = [line for line in lines if line.endswith("\n") and parse_json(line)["step"] <= step]
            with replacing(self.metrics_file) as temporary:
                temporary.write_text("".join(valid), encoding="utf-8")

    def last_metrics(self) -> dict[str, Any]:
        """The last whole line of metrics.jsonl, empty if there is none; raises ``FileError`` if it is damaged."""
        if not self.metrics_file.exists():
            return {}
        with reading(self.metrics_file, _HINT):
            lines = read_utf8(self.metrics_file).splitlines()
            # A run that was killed may have left half a line, which the next start drops.
            last: dict[str, Any] = next((parse_json(line) for line in reversed(lines) if line.endswith("}")), {})
        if last:
            require_fields(self.metrics_file, last, _METRICS, _HINT)
        return last

    def all_metrics(self) -> list[dict[str, Any]]:
        """Every whole line of metrics.jsonl; raises ``FileError`` if it is damaged."""
        with reading(self.metrics_file, _HINT):
            lines = read_utf8(self.metrics_file).splitlines(keepends=True)
            return [parse_json(line) for line in lines if line.endswith("\n")]

    def append_metrics(self, figures: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(figures, allow_nan=False) + "\n")

    def remove_state(self) -> None:
        """Remove the checkpoint: the run has ended."""
        self.state_file.unlink(missing_ok=True)
        # A process that was killed while it wrote a checkpoint left half of one.
        shutil.rmtree(self.state_file.parent, ignore_errors=True)


class Run:
    """A trained model, with the content of its folder.

    Attributes:
        name: the folder's name.
        config: the configuration of its training; a converted run has only ``arch``, ``widths``, ``k``,
            ``refine`` and ``sibling_weight``, and the others are defaults.
        header: all of config.json.
        model: the model, in evaluation mode, for activations as they are in the cache.
        sha256: of the file of weights.
        steps_done: optimizer steps behind the weights, of ``config.steps``; all of them for a converted run.
        converted: where a dictionary of another tool came from; else None.
    """

    def __init__(self, folder: RunFolder, header: dict[str, Any], config: TrainConfig, model: SparseAutoencoder):
        self.path, self.header, self.config, self.model = folder.path, header, config, model
        self.name = folder_name(folder.path)
        self.sha256 = sha256_file(folder.model_file)
        self.converted: dict[str, Any] | None = header.get("converted")
        self.steps_done = config.steps if self.converted else folder.progress()[0]
        self._hosts: dict[str, Host] = {}

    def load_host(self, model: str | Path = "") -> Host:
        """The host model, on the device of the run's model; a second call returns the same object.

        Args:
            model: a folder, a GGUF file or a hub id. Without it, the name that the run recorded, which may be relative
                to the folder in which the cache was made.

        Raises ``FileError`` if the run was trained on another host, ``UsageError`` if there is no such model.
        """
        name = str(model)
        if name not in self._hosts:
            self._hosts[name] = load_recorded_host(self.path, self.header, self.model.W_dec_FD.device, name)
        return self._hosts[name]

    def encode_text(self, text: str, model: str | Path = "") -> EncodedText:
        """The tokens of a text and their code, as the dashboard shows what fires on a text.

        The text is read in one window, as in a cache; tokens that do not fit are cut off. For ``model`` and more
        errors see ``load_host``. Raises ``UsageError`` for an empty text, ``FileError`` for characters that the
        tokenizer lacks.
        """
        host, recorded = self.load_host(model), self.header["host"]
        reader = TextReader(host, self.module, recorded.get("context") or host.max_context, recorded.get("bos"))
        return EncodedText.of(reader(text), self.model)

    def __repr__(self) -> str:
        return f"Run({shortened(visible(self.name))}: {self._summary()} on {self.module}, {self._progress()})"

    def _summary(self) -> str:
        return f"{self.config.arch}, {of_levels(list(self.model.widths))} latents"

    def _progress(self) -> str:
        if self.converted:
            return f"converted from {self.converted['tool']}"
        return f"step {self.steps_done:,} of {self.config.steps:,}"

    def _repr_html_(self) -> str:
        last = {} if self.converted else RunFolder(self.path).last_metrics()
        figures = {name: last[name] for name in ("loss", "fvu", "dead") if name in last}
        rows = [
            ("L0", " + ".join(map(str, self.config.k))),
            ("module", f"{self.module}, width {self.model.width:,}"),
            host_line(self.header["host"]),
            ("training", self._progress() + (", hardened tree" if self.hardened else "")),
            *((f"{name} (training batches)", notebook.figure(value)) for name, value in figures.items()),
        ]
        return notebook.card(f"Run {self.name}", self._summary(), notebook.table(rows))

    @property
    def seeds(self) -> Seeds | None:
        """The seeds of its training; None for a converted run, unless its configuration has one."""
        return self.config.seeds if "seed" in self.header["config"] else None

    @property
    def module(self) -> str:
        """The hooked module that the model was trained on."""
        return str(self.header["module"])

    @property
    def described(self) -> dict[str, Any]:
        """The description of the run that a tree carries."""
        return {
            "name": self.name,
            "arch": self.config.arch,
            "module": self.module,
            "width": self.model.width,
            "widths": list(self.model.widths),
            "hard": self.hardened is not None,
        }

    @property
    def hardened(self) -> HierarchicalSAE | None:
        """The model, if its tree is hardened: a child fires only with its parent, except with ``hard=False``."""
        return self.model if isinstance(self.model, HierarchicalSAE) and bool(self.model.hard) else None


def load_run(path: str | Path, device: str | torch.device = "cpu") -> Run:
    """Load a run, finished or at its last checkpoint, from a folder or from the hub: ``hf://OWNER/NAME``.

    Raises ``UsageError`` if there is none, ``FileError`` if its files are damaged.
    """
    folder = RunFolder(local_path(path))
    header = folder.read_header()
    config, width = _configuration(folder.config_file, header), int(header["width"])
    if not folder.model_file.exists():
        raise FileError(f"{path}: no weights yet", "Run the same 'hiersae train' command again to resume.")
    tensors = read_tensors(folder.model_file, _HINT)
    with reading(folder.model_file, _HINT):
        # Before a model of these sizes is made: they may be anything.
        shape, expected = tuple(tensors["W_enc_FD"].shape), (Levels.of(config.widths).latents, width)
        if shape != expected:
            raise ValueError(f"W_enc_FD has the shape {shape}, but config.json says {expected}")
        model = build(config, width)
        if header["schema_version"] == 1:
            tensors = _from_version_1({n: t for n, t in tensors.items() if not n.startswith(model.training_only)})
        model.load_weights(tensors)
        _check_weights(model)
    return Run(folder, header, config, model.to(device).eval())


def _configuration(path: Path, header: dict[str, Any]) -> TrainConfig:
    """The configuration of a training; raises ``FileError`` if ``hiersae train`` would refuse it."""
    types = get_type_hints(TrainConfig)
    saved = {key: value for key, value in header["config"].items() if key in types}
    wrong = next((key for key, value in saved.items() if not has_type(value, types[key])), None)
    if wrong:
        raise FileError(f"{path}: damaged: config.{wrong} cannot be {json.dumps(saved[wrong])[:40]}", _HINT)
    saved |= {key: tuple(saved[key]) for key in ("widths", "k")}
    saved.setdefault("sibling_weight", 1.0)  # it changes codes, so today's default is wrong for earlier releases
    try:
        return TrainConfig(**{"acts": [], **saved})
    except UsageError as error:
        raise FileError(f"{path}: damaged ({error.message})", _HINT) from None


def _check_weights(model: SparseAutoencoder) -> None:
    """Raise ``ValueError`` for weights that are not finite, and for a parent that is not one level up."""
    for name, tensor in model.weights().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not finite")
    if model.learned_F is None:
        return
    parent_F: list[int] = model.learned_F.tolist()
    if (latent := model.levels.misplaced(parent_F)) is not None:
        raise ValueError(f"the parent of latent {latent} is {parent_F[latent]}, which is not one level up")


def _from_version_1(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Version 1 had two levels: ``price_P`` of the coarse one, ``parent_F`` and the other prices of the fine one."""
    if "parent_F" not in tensors:
        return tensors
    price_P = tensors.pop("price_P")
    # A parent's number among the coarse latents is its number among all: they come first.
    coarse = {
        "parent_F": torch.full((len(price_P),), NO_PARENT),
        "price_on_F": price_P,
        "price_off_F": price_P,
    }
    joined = {name: torch.cat([of_coarse, tensors[name]]) for name, of_coarse in coarse.items()}
    return {**tensors, **joined, "hard": torch.tensor(False)}


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of a run's folder; raises ``FileError`` if a file in it is damaged."""
    folder = RunFolder(path)
    header = folder.read_header()
    converted, config = header.get("converted"), header["config"]
    done, planned = folder.progress()
    if not converted:
        require_fields(folder.config_file, header, {"config": {"tokens": COUNT, "batch": SIZE}}, _HINT)
        # Without weights, only the configuration says how many steps are planned.
        planned = planned or max(1, config["tokens"] // config["batch"])
    last = folder.last_metrics()
    loads = folder.model_file.exists()
    if loads:
        load_run(path)
    else:
        _configuration(folder.config_file, header)
    if verify and header["schema_version"] == SCHEMA_VERSION:
        folder.read_state()
    details = {
        "arch": config["arch"],
        "widths": config["widths"],
        "k": config["k"],
        "hard": folder.is_hard(),
        "module": header["module"],
        "width": header["width"],
        "host": header["host"],
        "step": done,
        "steps": planned,
        "last_metrics": last,
        "converted": converted,
    }
    hardened = ", hardened tree" if details["hard"] else ""
    sparsity = " + ".join(map(str, config["k"]))
    lines = [
        ("model", f"{config['arch']}, {of_levels(config['widths'])} latents, L0 {sparsity}{hardened}"),
        ("module", f"{header['module']}, width {header['width']:,}"),
        host_line(header["host"]),
        _origin(converted) if converted else ("training", f"step {done:,} of {planned:,}, {config['tokens']:,} tokens"),
    ]
    if last:
        figures = [f"{name} {last[name]:.4g}" for name in ("fvu", "dead") if name in last]
        lines.append(("last figures", f"step {last['step']:,}: {', '.join(figures)} (on training batches)"))
    if ranks := last.get("ranks"):
        memory = human_bytes(max(ranks["memory"]))
        lines.append(
            (
                "ranks",
                f"{ranks['data']} x {ranks['tree']} (data x tree), {last['tokens_per_second']:,} tokens/s, "
                f"{ranks['communication']:.0%} of the time in communication, at most {memory} a rank",
            )
        )
    return Described(
        "run",
        header,
        details,
        lines,
        "" if folder.is_complete() else f"training is at step {done:,} of {planned:,}",
        "hiersae train",
        "the weights load, are finite and form a tree" if verify and loads else "",
    )


def _origin(converted: dict[str, Any]) -> tuple[str, str]:
    """Where a dictionary of another tool comes from."""
    model = " ".join(part for part in (converted["module"], converted["model"]) if part)
    tool = f"{converted['tool']} {converted['version']}".strip()
    return "converted", f"from {tool}: {converted['architecture']}{f', trained on {model}' if model else ''}"
