"""The trainings of each suite: rows, widths, L0, options.

``python -m benchmarks.trees --help`` describes the suites.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

from hiersae_cli.config.base import typed
from hiersae_cli.config.synth import Shape, SynthConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import UsageError
from hiersae_cli.workflows.common.advice import TOY

HIER, BATCHTOPK, MATRYOSHKA, SAELENS = "hier", "batchtopk", "matryoshka", "saelens"
_HIER = {
    "k_start": 1.5,
    "coarse_weight": 1.0,
    "coherence_weight": 1.0,
    "tree_weight": 1.0,
    "orphan_weight": 1.0,
    "rate_limit": 0.0,
    "sibling_weight": 1.0,
    "normalise": "overall",
    "relevel": True,
    "lr": 3e-3,
    "curriculum": "anneal=0.7",
    "batch": 512,
}
# The options of training, by suite for ours and by kind for flat dictionaries; --set and --set-flat change them.
HIER_OPTIONS: dict[str, dict[str, Any]] = {
    # A level of three latents finds its features only with a wide start, and has no room to move them. Here the
    # second pass finds edges instead of losing them.
    "toy": {name: value for name, value in TOY.items() if name not in ("arch", "widths", "k", "tokens")},
    "synthtree-1k": _HIER,
    "synthsaebench-16k": _HIER,
    "cache": {
        "lr": 3e-3,
        "batch": 2048,
        "tree_weight": 0.5,
        "orphan_weight": 10.0,
        "root_weight": 1.0,
        "rate_limit": 0.0,
        "sibling_weight": 1.0,
        "normalise": "overall",
    },
    "smollm2": {},  # the defaults of hiersae train, also for flat dictionaries
}
FLAT_OPTIONS: dict[str, dict[str, Any]] = {
    BATCHTOPK: {"lr": 3e-3, "batch": 2048, "normalise": "overall"},
    SAELENS: {"lr": 1e-3, "batch": 2048},
}
SAELENS_OPTIONS = ("lr", "batch")
_NEXT_TRY = 10**6  # added to the seed of each try, so that no two trainings have the same seed
_SHARES = {2: (7.1, 2.9), 3: (3.7, 3.4, 2.9)}


@dataclass(frozen=True)
class Suite:
    """The sizes of a comparison.

    Attributes:
        samples: activations of each training.
        l0: the L0 of every dictionary, the sum over its levels.
        levels: the widths of each of our hierarchies; flat dictionaries have as many latents.
        shares: how the levels share L0, by the number of levels.
        nested: the widths of each Matryoshka dictionary of SAELens.
        matryoshka: the widths of each of our Matryoshka dictionaries.
        seeds: trainings of each architecture.
        held_out: rows to measure on.
        tries: trainings of hier with different seeds, of which only the one with the lowest training FVU is measured.
        rates: factors on the learning rate of our flat dictionaries; likewise, only the best training is measured.
        tasks: what ``eval`` measures in addition.
        shape: the shape of the truth, if it differs from the preset.
    """

    samples: int
    l0: float
    levels: tuple[tuple[int, ...], ...]
    shares: dict[int, tuple[float, ...]]
    nested: tuple[tuple[int, ...], ...] = ()
    matryoshka: tuple[tuple[int, ...], ...] = ()
    seeds: int = 3
    held_out: int = 100_000
    tries: int = 1
    rates: tuple[float, ...] = (1.0,)
    tasks: tuple[str, ...] = ()
    shape: Shape = Shape()


# The second hierarchy of a suite, and the second Matryoshka, have widths that do not fit the levels of the truth.
SUITES = {
    "toy": Suite(2 * 10**6, 1.16, ((3, 17), (5, 15)), {2: (0.49, 0.67)}, seeds=10, tries=8),
    "synthtree-1k": Suite(
        8 * 10**6, 12, ((32, 128, 352), (50, 150, 312), (160, 352)), _SHARES, ((32, 96, 384), (50, 150, 312))
    ),
    "synthsaebench-16k": Suite(
        5 * 10**6, 25, ((128, 512, 3456), (200, 800, 3096)), _SHARES, ((128, 384, 1536, 2048), (200, 600, 2400, 896))
    ),
    "cache": Suite(2 * 10**6, 32, ((256, 3840),), {2: (1, 1)}),
    "smollm2": Suite(3 * 10**6, 32, ((1024, 1024),), {}, matryoshka=((512, 1536),), tasks=("absorption", "hierarchy")),
}
ON_A_CACHE = ("cache", "smollm2")
_GPU_SAMPLES = {"synthsaebench-16k": 200 * 10**6}
_QUICK: dict[str, dict[str, Any]] = {
    "toy": {"samples": 400_000, "seeds": 2, "tries": 1},
    "synthtree-1k": {"samples": 100_000, "seeds": 1},
    "synthsaebench-16k": {
        "samples": 100_000,
        "seeds": 1,
        "levels": ((16, 64, 432), (25, 100, 387)),
        "nested": ((16, 48, 192, 256), (25, 75, 300, 112)),
        "shape": Shape(features=2048, width=192, roots=16),
    },
    "cache": {"samples": 100_000, "seeds": 1, "levels": ((64, 960),)},
    "smollm2": {"samples": 100_000, "seeds": 1, "levels": ((64, 64),), "matryoshka": ((32, 96),)},
}


@dataclass(frozen=True)
class Training:
    """A dictionary to train.

    Attributes:
        kind: "hier", "batchtopk", "matryoshka" or "saelens".
        tries: configurations, of which only the one with the lowest FVU in its last steps is measured. The names of run
            folders say kind, widths, L0, samples, changed options and seed. SAELens uses only the fields that
            ``peers_saelens.train`` reads.
    """

    kind: str
    tries: tuple[TrainConfig, ...]


def choose(options: argparse.Namespace) -> Suite:
    """The suite, changed by the command line; raises ``UsageError`` if its widths cannot be compared."""
    suite = SUITES[options.suite]
    if resolve_device(options.device).type == "cuda":
        suite = replace(suite, samples=_GPU_SAMPLES.get(options.suite, suite.samples))
    if options.quick:
        suite = replace(suite, held_out=20_000, **_QUICK[options.suite])
    changes = {field.name: getattr(options, f"truth_{field.name}") for field in fields(Shape)}
    suite = replace(suite, shape=replace(suite.shape, **{name: value for name, value in changes.items() if value}))
    if options.widths:
        nested = tuple(options.widths) if suite.nested else ()
        suite = replace(suite, levels=tuple(options.widths), nested=nested)
    if len({sum(widths) for widths in suite.levels}) > 1:
        raise UsageError("--widths: all must have the same sum", "Otherwise no flat dictionary has as many latents.")
    return replace(
        suite,
        samples=options.samples or suite.samples,
        seeds=options.seeds or suite.seeds,
        tries=options.tries or suite.tries,
        rates=options.rates or suite.rates,
    )


def rows_of(options: argparse.Namespace, suite: Suite, path: str) -> SynthConfig:
    """The rows of a suite with a known truth: enough for a training, and those to measure on."""
    shape = {f"truth_{field.name}": getattr(suite.shape, field.name) for field in fields(Shape)}
    rows = suite.samples + suite.held_out
    return SynthConfig(preset=options.suite, rows=rows, held_out=suite.held_out, out=path, **shape)


def trainings(options: argparse.Namespace, suite: Suite, acts: str, l0: float, folder: str) -> list[Training]:
    """The trainings of a suite at one L0 that ``--only`` selects; raises ``UsageError`` for bad options."""
    latents = sum(suite.levels[0])
    kinds = [(f"hier-{_joined(widths)}", HIER, widths) for widths in suite.levels]
    kinds.append((BATCHTOPK, BATCHTOPK, (latents,)))
    kinds += [(f"matryoshka-{_joined(accumulate(w))}", MATRYOSHKA, w) for w in suite.matryoshka]
    if suite.nested:
        kinds.append(("saelens-batchtopk", SAELENS, (latents,)))
    kinds += [(f"saelens-matryoshka-{_joined(accumulate(w))}", SAELENS, w) for w in suite.nested]
    plan = []
    for name, kind, widths in kinds:
        if not name.startswith(tuple(options.only.split(","))):
            continue
        settings, variant = _settings(kind, options)
        peer = MATRYOSHKA if len(widths) > 1 else BATCHTOPK
        arch = variant or (peer if kind == SAELENS else kind)
        changes = [f"{key}={value}" for key, value in (options.set if kind == HIER else options.set_flat)]
        label = "-".join([name, *filter(None, [variant]), f"l{l0:g}", typed(suite.samples), *changes])
        k = _k(widths, l0, suite.shares) if kind == HIER else (l0,)
        for seed in range(options.seed_base, options.seed_base + suite.seeds):
            sizes = {"widths": widths, "k": k, "tokens": suite.samples, "seed": seed, "device": options.device}
            source = {"acts": [acts], "module": options.module, "out": f"{folder}/{label}-seed{seed}"}
            config = TrainConfig(**source, **{"arch": arch, **sizes, **settings})
            plan.append(Training(kind, _tries(kind, config, suite)))
    return plan


def _tries(kind: str, config: TrainConfig, suite: Suite) -> tuple[TrainConfig, ...]:
    """The configurations of which the best counts: of hier several seeds, of our flat dictionaries several rates."""
    if kind == HIER:
        seeds = [config.seed + _NEXT_TRY * number for number in range(suite.tries)]
        return tuple(
            replace(config, seed=seed, out=config.out + (f"-try{number}" if number else ""))
            for number, seed in enumerate(seeds)
        )
    if kind == SAELENS:
        return (config,)
    return tuple(
        replace(config, lr=config.lr * factor, out=config.out + (f"-rate{factor:g}" if factor != 1 else ""))
        for factor in suite.rates
    )


def _settings(kind: str, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The options of a kind of training, and its variant, or ""."""
    if kind == HIER:
        return {**HIER_OPTIONS[options.suite], **dict(options.set)}, options.ablate
    defaults = {} if options.suite == "smollm2" else FLAT_OPTIONS[kind]
    settings = {**defaults, **dict(options.set_flat)}
    if kind != SAELENS:
        return settings, options.control if kind == BATCHTOPK else ""
    unknown = [name for name in settings if name not in SAELENS_OPTIONS]
    if unknown:
        raise UsageError(f"--set-flat {unknown[0]}: SAELens has no such option", "Train only ours: --only batchtopk.")
    return settings, ""


def _k(widths: tuple[int, ...], l0: float, shares: dict[int, tuple[float, ...]]) -> tuple[float, ...]:
    """The L0 of each level of a hierarchy."""
    parts = shares.get(len(widths), (1.0,) * len(widths))
    return tuple(min(width, l0 * part / sum(parts)) for width, part in zip(widths, parts, strict=True))


def _joined(numbers: Any) -> str:
    return "-".join(map(str, numbers))
