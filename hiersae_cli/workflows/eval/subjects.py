"""What is measured: dictionaries, groups of seeds, what their names are, and how two groups differ."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from hiersae_cli.config.base import first_difference
from hiersae_cli.config.train import Seeds
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.dictionaries import WEIGHTS
from hiersae_cli.formats.run import Run
from hiersae_cli.sae import HierarchicalSAE, SparseAutoencoder

L0_TOLERANCE = 0.03  # share by which measured L0s may differ
_PARAMETER_TOLERANCE = 0.01  # share by which numbers of parameters may differ: encoders have a few thresholds and sizes
# Runs of one configuration may differ in these.
_NOT_CONFIGURATION = ("seed", "init_seed", "order_seed", "device", "log_every")


@dataclass(frozen=True)
class Subject:
    """A dictionary to measure.

    Attributes:
        name: its key in the report.
        model: the dictionary.
        run: the run that it comes from; None for a control.
    """

    name: str
    model: SparseAutoencoder
    run: Run | None

    @property
    def widths(self) -> tuple[int, ...]:
        """Latents of each level of L0: a run's widths, since a model of nested dictionaries has one level."""
        return self.run.config.widths if self.run else self.model.widths

    @property
    def hardened(self) -> HierarchicalSAE | None:
        """The model, if its tree is hardened."""
        return self.run.hardened if self.run else None


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one configuration that differ in their seeds, or a control.

    Attributes:
        name: its key in the report: the run's name, or the common beginning of the names of several runs.
        subjects: one for each run, in ascending order of seeds.
    """

    name: str
    subjects: tuple[Subject, ...]

    @property
    def seeds(self) -> list[Seeds | None]:
        """The seeds of the runs, None for unknown ones; empty for a control."""
        return [subject.run.seeds for subject in self.subjects if subject.run]

    def seeds_as_json(self) -> dict[str, Any]:
        """The seeds as the report holds them, null for unknown ones."""
        runs = [subject.run for subject in self.subjects if subject.run]
        return {
            "seeds": [run.config.seed if run.seeds else None for run in runs],
            **{f"{name}_seeds": [seeds and getattr(seeds, name) for seeds in self.seeds] for name in Seeds._fields},
        }

    def same_seeds(self, other: SeedGroup) -> bool:
        """Whether the runs at the same place of two groups are known to have the same seeds."""
        return bool(self.seeds) and None not in self.seeds and self.seeds == other.seeds

    @property
    def run(self) -> Run | None:
        """The first run, which stands for all."""
        return self.subjects[0].run


def seed_groups(runs: list[Run], baselines: list[Run]) -> tuple[SeedGroup, ...]:
    """The runs as one group, then a group for each configuration of the baselines.

    Raises ``UsageError`` if the runs differ in more than their seeds.
    """
    _require_other_seeds(runs)
    groups: list[SeedGroup] = []
    names: list[str] = []
    for members in (_by_seed(runs), *_by_configuration(baselines)):
        subjects = []
        for run in members:
            subjects.append(Subject(unlike(names, run.name), run.model, run))
            names.append(subjects[-1].name)
        groups.append(new_group(subjects, [*names, *(group.name for group in groups)]))
    return tuple(groups)


def new_group(subjects: list[Subject], taken: Iterable[str]) -> SeedGroup:
    """A group of subjects, with a name that is not in ``taken``; a single subject gives it its own name."""
    if len(subjects) == 1:
        return SeedGroup(subjects[0].name, tuple(subjects))
    common = os.path.commonprefix([subject.name for subject in subjects])  # noqa: RUF071 - of names, not of paths
    # hits-1, hits-2 are hits; hier_s1, hier_s2 and hier-seed1, hier-seed2 are hier. A single letter names nothing.
    name = re.sub(r"(?:(?:^|[-_.\s]+)s(?:eed)?)?[-_.\s]*$", "", common, flags=re.IGNORECASE)
    name = name if len(name) > 1 else f"{subjects[0].name}…"
    return SeedGroup(unlike(taken, name), tuple(subjects))


def unlike(taken: Iterable[str], name: str) -> str:
    """``name``, with a number added if it is in ``taken``."""
    taken, free, number = set(taken), name, 2
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def varied_seeds(seeds_of_runs: Sequence[Seeds | None]) -> list[str]:
    """Which of their seeds differ between runs, ``init`` and ``order``; empty if some are unknown."""
    known = [seeds for seeds in seeds_of_runs if seeds]
    if len(known) < len(seeds_of_runs):
        return []
    return [name for name in Seeds._fields if len({getattr(seeds, name) for seeds in known}) > 1]


def mismatches(first: SeedGroup, other: SeedGroup, l0: Mapping[str, float]) -> list[str]:
    """How a group of baselines differs from the first group, in words; ``l0`` is the measured L0 by subject."""
    ours, theirs = first.run, other.run
    if not ours or not theirs:
        return []
    exactly = {
        "latents": (ours.model.latents, theirs.model.latents),
        "wanted L0": (sum(ours.config.k), sum(theirs.config.k)),
        "host": (ours.header["host"]["fingerprint"][:12], theirs.header["host"]["fingerprint"][:12]),
        "module": (ours.module, theirs.module),
    }
    elsewhere = [f"{run.name} was trained by {run.converted['tool']}" for run in (ours, theirs) if run.converted]
    if not elsewhere:
        exactly |= {
            "training tokens": (ours.config.tokens, theirs.config.tokens),
            "batch": (ours.config.batch, theirs.config.batch),
            "seed": (first.seeds, other.seeds),
        }
    differences = [f"{what}: {_in_words(a)} against {_in_words(b)}" for what, (a, b) in exactly.items() if a != b]
    differences += elsewhere
    a, b = (float(np.mean([l0[subject.name] for subject in group.subjects])) for group in (first, other))
    if abs(a - b) > L0_TOLERANCE * max(a, b):
        differences.append(f"measured L0: {a:.4g} against {b:.4g}")
    a, b = _parameters(ours), _parameters(theirs)
    if abs(a - b) > _PARAMETER_TOLERANCE * max(a, b):
        differences.append(f"parameters: {a:,} against {b:,}")
    if not elsewhere and _data(ours) != _data(theirs):
        differences.append("trained on another cache")
    return differences


def cautions(run: Run, fingerprints: Mapping[str, str]) -> list[str]:
    """Why the figures of a run are doubtful, whatever it is compared with; ``fingerprints`` are those of the caches."""
    if run.converted:
        tool = run.converted["tool"]
        return [f"{run.path}: trained by {tool}, so rows held out here may be among those it saw"]
    reasons = []
    if run.steps_done < run.config.steps:
        reasons.append(f"{run.path}: training not ended (step {run.steps_done:,} of {run.config.steps:,})")
    if not run.config.synth and not set(_data(run)) & set(fingerprints.values()):
        reasons.append(
            f"{run.path}: not trained on a cache measured on, so rows held out here may be among those it saw"
        )
    return reasons


def _require_other_seeds(runs: list[Run]) -> None:
    """Raise ``UsageError`` if runs differ in more than their seeds, or two have the same."""
    first = runs[0]
    for run in runs[1:]:
        if difference := _first_difference(first, run):
            raise UsageError(
                f"{run.path}: is no other seed of {first.path}: {difference}",
                "Several RUNs are seeds of one configuration; what they are compared with is given by --baseline.",
            )
    identities = [_identity(run) for run in runs]
    if twice := next((identity for identity in identities if identities.count(identity) > 1), None):
        paths = " and ".join(str(run.path) for run in runs if _identity(run) == twice)
        if isinstance(twice, Seeds):
            raise UsageError(f"{paths}: both of seed {twice}", "Train them with different seeds: --seed 0, --seed 1.")
        raise UsageError(f"{paths}: have the same weights", "Convert the dictionary of another seed.")


def _identity(run: Run) -> Seeds | str:
    """What no two runs of a group have in common: the seeds or, if they are unknown, the weights."""
    return run.seeds or run.sha256


def _by_configuration(runs: list[Run]) -> list[list[Run]]:
    """Runs of one configuration and different seeds together."""
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if not _first_difference(group[0], run) and _identity(run) not in map(_identity, group):
                group.append(run)
                break
        else:
            groups.append([run])
    return [_by_seed(group) for group in groups]


def _by_seed(runs: list[Run]) -> list[Run]:
    """In ascending order of seeds; runs of unknown seeds keep their order."""
    return sorted(runs, key=lambda run: run.seeds or Seeds(0, 0))


def _without_effect(run: Run) -> set[str]:
    """The options in which seeds of one configuration may differ, and those that have no effect on the run."""
    return {*_NOT_CONFIGURATION, *run.config.unused()}


def _first_difference(first: Run, other: Run) -> str | None:
    """How two runs differ apart from their seeds."""
    ours, theirs = (
        {key: value for key, value in run.header["config"].items() if key not in _without_effect(run)}
        for run in (first, other)
    )
    for described, run in ((ours, first), (theirs, other)):
        if run.converted:
            described |= {key: run.converted[key] for key in ("tool", "architecture")}
    if first.converted and other.converted and _about_as_sparse(first, other):
        theirs["k"] = ours["k"]
    if first.module != other.module:
        return f"trained on {first.module}, and on {other.module}"
    return first_difference(ours, theirs) or ("trained on another cache" if _data(first) != _data(other) else None)


def _about_as_sparse(first: Run, other: Run) -> bool:
    """Whether the L0 of two converted runs, which may be measured ones, agree as well as those of two seeds."""
    ours, theirs = (sum(run.config.k) for run in (first, other))
    return math.isclose(ours, theirs, rel_tol=L0_TOLERANCE)


def _data(run: Run) -> list[str]:
    """The fingerprints of what a run was trained on, or converted for."""
    weights = WEIGHTS if run.converted else ()
    return sorted(value for name, value in run.header["inputs"].items() if PurePath(name).name not in weights)


def _parameters(run: Run) -> int:
    return sum(parameter.numel() for parameter in run.model.parameters())


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
