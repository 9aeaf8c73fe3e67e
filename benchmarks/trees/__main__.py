"""Trees against flat dictionaries, with the same rows, latents and L0: on known trees, and on a language model.

    python -m benchmarks.trees SUITE --json FILE [--seeds N] [--seed-base S] [--samples COUNT] [--l0 N[,N…]]
        [--widths N,N… …] [--only ARCH[,ARCH]] [--set KEY=VALUE …] [--set-flat KEY=VALUE …] [--ablate PART]
        [--control priced] [--tries N] [--scratch FOLDER] [--plot FILE] [--quick] [--device cpu]

Suites:
    toy                  20 features: ours, and a flat BatchTopK of ours
    synthtree-1k         the same with 1,024 features and 512 latents, and BatchTopK and Matryoshka of SAELens
    synthsaebench-16k    the same with 16,384 features and 4,096 latents; 200M samples on a GPU, 5M on a CPU
    shakespeare          activations of a language model, from a cache: --acts acts.h5. For example
                             hiersae lm input.txt -o host --layers 4 --width 256 --context 128 --steps 1800
                             hiersae cache input.txt --model host --layer 2 --tokens 1M -o acts.h5

Drawn rows go into --scratch (a temporary folder unless given), once for all runs, and are found there again: 8M rows of
synthtree-1k are 6 GB; so are the directions of the truth, which for synthsaebench-16k take long to make on a CPU.
A seed is that of initialisation, and of the place in the stream of rows at which training begins; the truth and the
held-out rows are the same for all. The measures are those of ``hiersae eval``, for every trainer alike.

A flat dictionary gets two post-hoc trees, fitted on training rows. ARCH+max-mi and ARCH+chow-liu are its rows under
each, and the row ARCH is the better one's (by edge F1 or, without a truth, by hierarchy score), so that the choice
favours the baseline. --only takes the beginning of names: hier, batchtopk, saelens-matryoshka.

SAELens keeps a running mean of its thresholds over hundreds of steps, which ours sets anew at the end: so its L0 is far
off where training is short, as with --quick.

Rows are added to FILE as each training ends; those that it has already are not trained again. Several benchmarks
may write to one FILE at a time. Dictionaries and trees are kept beside it, in FILE without .json, for the stability:
the share of edges that recur between seeds.
"""

from __future__ import annotations

import argparse
import ast
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.trees.ablations import ABLATIONS, make
from benchmarks.trees.measures import Dictionary, measure
from benchmarks.trees.results import Results, plot, show
from benchmarks.trees.rows import BATCH, CachedRows, DrawnRows, Rows, moments
from hiersae_cli.config.base import parse_count, parse_counts, parse_numbers
from hiersae_cli.config.synth import PRESETS, Shape
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import HierSAEError, UsageError
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.sae.base import geometric_median
from hiersae_cli.sae.training import Trainer
from hiersae_cli.workflows.common.advice import TOY

_HIER = {
    "k_start": 1.5,
    "coarse_weight": 1.0,
    "coherence_weight": 1.0,
    "tree_weight": 1.0,
    "orphan_weight": 1.0,
    "relevel": True,
    "lr": 3e-3,
    "curriculum": "anneal=0.7",
    "batch": 512,
}
# The training options of ours, suite by suite; --set changes them.
HIER: dict[str, dict[str, Any]] = {
    # A level of three latents needs a wide start to find its features at all, and has no place to move them to. Here
    # the second pass finds edges rather than losing them.
    "toy": {name: value for name, value in TOY.items() if name not in ("arch", "widths", "k", "tokens")},
    "synthtree-1k": _HIER,
    "synthsaebench-16k": _HIER,
    "shakespeare": {"lr": 3e-3},  # the rest as `hiersae train` has it
}
# The options of the flat ones, by kind; --set-flat changes them. SAELens has only these.
FLAT: dict[str, dict[str, Any]] = {"batchtopk": {"lr": 3e-3}, "saelens": {}}
_SAELENS = {"lr": 1e-3, "batch": BATCH}
_CALIBRATION_BATCHES = 32
_MEDIAN_BATCHES = 8
_NEXT_TRY = 10**6  # between the seeds of tries, so that no two trainings begin alike


@dataclass(frozen=True)
class Suite:
    """What a suite trains.

    Attributes:
        samples: activations of each training.
        l0: wanted of every dictionary, in all.
        levels: widths of ours, one hierarchy each; the flat dictionaries have as many latents.
        shares: of L0, which each level takes, by the number of levels.
        nested: ends of SAELens' nested dictionaries, one Matryoshka each.
        seeds: how many.
        shape: of the truth, where it is not the preset's own.
        held_out: rows to measure on.
        fitting: training rows on which post-hoc trees and codes are fitted.
        tries: trainings of ours from other first weights, of which the one with the lowest FVU on ``fitting`` is kept.
    """

    samples: int
    l0: float
    levels: tuple[tuple[int, ...], ...]
    shares: dict[int, tuple[float, ...]]
    nested: tuple[tuple[int, ...], ...] = ()
    seeds: int = 3
    shape: Shape = Shape()
    held_out: int = 100_000
    fitting: int = 200_000
    tries: int = 1


_SHARES = {2: (7.1, 2.9), 3: (3.7, 3.4, 2.9)}
# The second hierarchy of a suite, and the second Matryoshka, have widths that do not fit the levels of the truth.
SUITES = {
    "toy": Suite(2 * 10**6, 1.16, ((3, 17), (5, 15)), {2: (0.49, 0.67)}, seeds=10, tries=8),
    "synthtree-1k": Suite(
        8 * 10**6,
        12,
        ((32, 128, 352), (50, 150, 312), (160, 352)),
        _SHARES,
        ((32, 128, 512), (50, 200, 512)),
    ),
    "synthsaebench-16k": Suite(
        5 * 10**6,
        25,
        ((128, 512, 3456), (200, 800, 3096)),
        _SHARES,
        ((128, 512, 2048, 4096), (200, 800, 3200, 4096)),
    ),
    "shakespeare": Suite(2 * 10**6, 32, ((256, 3840),), {2: (1, 1)}),
}
GPU_SAMPLES = {"synthsaebench-16k": 200 * 10**6}
QUICK: dict[str, dict[str, Any]] = {
    "toy": {"samples": 400_000, "seeds": 2, "tries": 1},
    "synthtree-1k": {"samples": 100_000, "seeds": 1},
    "synthsaebench-16k": {
        "samples": 100_000,
        "seeds": 1,
        "levels": ((16, 64, 432), (25, 100, 387)),
        "nested": ((16, 64, 256, 512), (25, 100, 400, 512)),
        "shape": Shape(features=2048, width=192, roots=16),
    },
    "shakespeare": {"samples": 100_000, "seeds": 1, "levels": ((64, 960),)},
}
_QUICK_ROWS = {"held_out": 20_000, "fitting": 20_000}


@dataclass(frozen=True)
class Arch:
    """One line of the comparison; ``kind`` is hier, batchtopk or saelens, ``widths`` its levels or nested ends."""

    name: str
    kind: str
    widths: tuple[int, ...]


def architectures(suite: Suite, only: list[str]) -> list[Arch]:
    """What the suite compares, restricted to the names that begin with one of ``only``."""
    latents = sum(suite.levels[0])
    found = [Arch(f"hier-{'-'.join(map(str, widths))}", "hier", widths) for widths in suite.levels]
    found.append(Arch("batchtopk", "batchtopk", (latents,)))
    if suite.nested:
        found.append(Arch("saelens-batchtopk", "saelens", (latents,)))
    found += [Arch(f"saelens-matryoshka-{'-'.join(map(str, ends))}", "saelens", ends) for ends in suite.nested]
    return [arch for arch in found if any(arch.name.startswith(name) for name in only)]


def config_for(arch: Arch, suite: Suite, l0: float, seed: int, options: dict[str, Any]) -> TrainConfig:
    """The training of one of ours; ``options`` may give ``k`` too, and ``variant``, which is no option of training."""
    if arch.kind == "hier":
        shares = suite.shares.get(len(arch.widths), (1.0,) * len(arch.widths))
        k = tuple(min(width, l0 * share / sum(shares)) for width, share in zip(arch.widths, shares, strict=True))
    else:
        k = (l0,)
    given = {"arch": arch.kind, "widths": arch.widths, "k": k, "tokens": suite.samples, "batch": BATCH, "seed": seed}
    config = TrainConfig(**{**given, **{name: value for name, value in options.items() if name != "variant"}})
    if BATCH % config.batch:
        flag = "--set" if arch.kind == "hier" else "--set-flat"
        raise UsageError(f"{flag} batch={config.batch}: must divide {BATCH}, the rows of a block")
    return config


def train_best(
    config: TrainConfig, variant: str, tries: int, rows: Rows, device: torch.device, title: str, console: Console
) -> SparseAutoencoder:
    """The model of ours, of ``tries`` first weights and one order of rows, that explains training rows best."""
    if tries == 1:
        return train_ours(config, variant, config.seed, rows, device, title, console)
    found = []
    for number in range(tries):
        model = train_ours(config, variant, config.seed + _NEXT_TRY * number, rows, device, title, console)
        with torch.inference_mode():
            error = sum(float((x_BD - model(x_BD)).square().sum()) for x_BD in rows.fitting())
        found.append((error, number, model))
    return min(found)[2]


def train_ours(
    config: TrainConfig, variant: str, first: int, rows: Rows, device: torch.device, title: str, console: Console
) -> SparseAutoencoder:
    """A model of ours for the rows as they are; ``first`` is the seed of its first weights."""
    centre_D, scale = moments(rows)
    if config.bias_start == "median":
        centre_D = geometric_median(torch.cat(list(islice(rows.fitting(), _MEDIAN_BATCHES)))).cpu()
    model = make(config, rows.width, variant)
    model.initialise(centre_D * scale, first)
    trainer = Trainer(model.to(device).train(), config, scale)
    stream = rows.training(config.seed)
    blocks = config.tokens // BATCH
    with console.progress(title, blocks * BATCH, "samples") as progress:
        for x_BD in islice(stream, blocks):
            for part_BD in x_BD.split(config.batch):
                figures = trainer.step(part_BD)
            progress.advance(BATCH)
    trainer.require_finite(float(figures["loss"]))
    trainer.finish(islice(stream, _CALIBRATION_BATCHES))
    trained = make(config, rows.width, variant)
    trained.load_weights(trainer.folded())
    return trained.to(device).eval()


def train_peer(
    arch: Arch, suite: Suite, l0: float, seed: int, options: dict[str, Any], rows: Rows, device: torch.device
) -> tuple[Dictionary, str]:
    """A dictionary of SAELens, and the name and version of the package."""
    from benchmarks.trees import peers_saelens

    lr, batch = ({**_SAELENS, **options}[name] for name in ("lr", "batch"))
    parts = (part_BD for x_BD in rows.training(seed) for part_BD in x_BD.split(batch))
    nested = arch.widths if len(arch.widths) > 1 else ()
    samples = suite.samples // BATCH * BATCH
    trained = peers_saelens.train(parts, rows.width, arch.widths[-1], l0, nested, samples, batch, lr, seed, device)
    return trained, peers_saelens.LIBRARY


def run_one(
    arch: Arch,
    suite: Suite,
    key: dict[str, Any],
    options: dict[str, Any],
    rows: Rows,
    results: Results,
    console: Console,
) -> None:
    """Train, measure and add the rows of one architecture and seed."""
    started, device, learned_F, trainer = time.monotonic(), results.device, None, "hiersae"
    l0, seed = key["l0_wanted"], key["seed"]
    console.say(f"{arch.name}, seed {seed}, L0 {l0:g}")
    model: Dictionary
    if arch.kind == "saelens":
        model, trainer = train_peer(arch, suite, l0, seed, options, rows, device)
    else:
        config = config_for(arch, suite, l0, seed, options)
        model = train_best(config, options.get("variant", ""), suite.tries, rows, device, arch.name, console)
        learned_F = model.learned_F
    seconds = time.monotonic() - started
    results.add(key, trainer, round(seconds, 1), model.W_dec_FD, measure(model, learned_F, rows))


def open_rows(name: str, suite: Suite, options: argparse.Namespace, device: torch.device, console: Console) -> Rows:
    """The rows of a suite; ``options.scratch`` is a folder by now."""
    if name == "shakespeare":
        if not options.acts:
            raise UsageError("shakespeare: needs --acts acts.h5", "Make the cache as --help shows.")
        return CachedRows(options.acts, suite.held_out, suite.fitting, device)
    scratch = Path(options.scratch)
    return DrawnRows(name, suite.shape, suite.samples, suite.held_out, suite.fitting, scratch, device, console)


def choose_suite(options: argparse.Namespace, device: torch.device) -> Suite:
    """The suite with what the command line changes."""
    suite = SUITES[options.suite]
    if device.type == "cuda":
        suite = replace(suite, samples=GPU_SAMPLES.get(options.suite, suite.samples))
    if options.quick:
        suite = replace(suite, **QUICK[options.suite], **_QUICK_ROWS)
    shape = {each.name: getattr(options, f"truth_{each.name}") for each in fields(Shape)}
    suite = replace(suite, shape=replace(suite.shape, **{name: value for name, value in shape.items() if value}))
    if options.widths:
        nested = [tuple(int(end) for end in np.cumsum(widths)) for widths in options.widths] if suite.nested else []
        suite = replace(suite, levels=tuple(options.widths), nested=tuple(nested))
    if len({sum(widths) for widths in suite.levels}) > 1:
        raise UsageError("--widths: all must have the same sum", "Otherwise no flat dictionary is their equal.")
    suite = replace(suite, samples=options.samples or suite.samples, seeds=options.seeds or suite.seeds)
    suite = replace(suite, tries=options.tries or suite.tries)
    if suite.samples < BATCH:
        raise UsageError(f"--samples {suite.samples}: must be at least {BATCH}, one batch")
    return suite


def options_of(arch: Arch, options: argparse.Namespace) -> dict[str, Any]:
    """Training options, as rows record them; what SAELens is not told it has from ``_SAELENS``."""
    if arch.kind == "hier":
        variant = {"variant": options.ablate} if options.ablate else {}
        return {**HIER[options.suite], **dict(options.set), **variant}
    given = {**FLAT[arch.kind], **dict(options.set_flat)}
    if arch.kind == "batchtopk" and options.control:
        given["variant"] = options.control
    beyond = [name for name in given if name not in _SAELENS] if arch.kind == "saelens" else []
    if beyond:
        raise UsageError(f"--set-flat {beyond[0]}: not of SAELens", "Leave its dictionaries out: --only batchtopk.")
    return given


def run(options: argparse.Namespace, console: Console) -> None:
    """The benchmark from start to end."""
    device = resolve_device(options.device)
    suite = choose_suite(options, device)
    for arch in architectures(suite, ["hier", "batchtopk"]):  # before anything is drawn: do these options fit?
        config_for(arch, suite, suite.l0, 0, options_of(arch, options))
    with nullcontext(options.scratch) if options.scratch else tempfile.TemporaryDirectory() as scratch:
        options.scratch = scratch
        rows = open_rows(options.suite, suite, options, device, console)
        results = Results(options.json, device)
        seeds = range(options.seed_base, options.seed_base + suite.seeds)
        plan: Iterator[tuple[int, float, Arch]] = (
            (seed, l0, arch)
            for seed in seeds
            for l0 in options.l0 or (suite.l0,)
            for arch in architectures(suite, options.only.split(","))
        )
        for seed, l0, arch in plan:
            training = options_of(arch, options)
            key = {
                "suite": options.suite,
                "seed": seed,
                "arch": arch.name,
                "samples": suite.samples,
                "l0_wanted": l0,
                "options": training,
                "tries": suite.tries,
                "data": rows.fingerprint[:16],
            }
            if not results.has(key):
                run_one(arch, suite, key, training, rows, results, console)
        usual = {"hier": HIER[options.suite], **FLAT}
        show(results, options.suite, usual, console)
        if options.plot:
            plot(results, options.suite, usual, options.plot)


def setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of ``TrainConfig``: numbers, True, tuples (``3,3,4``), anything else text."""
    name, _, value = text.partition("=")
    if name not in {each.name for each in fields(TrainConfig)}:
        raise argparse.ArgumentTypeError(f"{name} is no option of training")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def flat_setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of what flat dictionaries have; those of SAELens have no second pass."""
    allowed = (*_SAELENS, "refine", "tree_weight", "curriculum", "dtype")
    if text.partition("=")[0] not in allowed:
        raise argparse.ArgumentTypeError(f"only {', '.join(allowed)} can be set for flat dictionaries")
    return setting(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = found.add_argument
    add("suite", choices=SUITES)
    add("--json", type=Path, required=True, metavar="FILE", help="file of rows, begun or gone on with")
    add("--seeds", type=int, help="how many")
    add("--seed-base", type=int, default=0, help="the first of them")
    add("--tries", type=int, help="trainings of ours, of which the one with the lowest FVU on training rows is kept")
    add("--samples", type=parse_count, metavar="COUNT")
    add("--l0", "--l0-frontier", type=parse_numbers, metavar="N[,N…]", help="several give a frontier")
    add("--widths", type=parse_counts, action="append", metavar="N,N…", help="of a hierarchy; may be repeated")
    add("--only", default="", metavar="ARCH[,ARCH]", help="beginnings of the names to train")
    add("--set", type=setting, action="append", default=[], metavar="KEY=VALUE", help="training option of hier")
    add("--ablate", default="", choices=list(ABLATIONS), help="a part that hier lacks: ablations.py")
    add("--control", default="", choices=["priced"], help="what batchtopk has of hier: see ablations.py")
    add(
        "--set-flat",
        type=flat_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the flat ones; of SAELens lr or batch",
    )
    add("--scratch", metavar="FOLDER", help="where drawn rows are kept")
    add("--acts", help="cache for shakespeare")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="SVG of containment against FVU and against bits, of all rows in --json",
    )
    add("--quick", action="store_true", help="two minutes at most, to see that all works")
    add("--device", default="auto")
    for name in asdict(PRESETS["toy"]):
        add(f"--truth-{name}", type=parse_count, default=0, metavar="COUNT", help="shape of the truth")
    return found


if __name__ == "__main__":
    try:
        run(parser().parse_args(), Console())
    except HierSAEError as error:
        raise SystemExit(f"error: {error}") from None
