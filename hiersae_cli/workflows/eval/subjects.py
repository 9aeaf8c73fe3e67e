"""What a report is about: runs, the control dictionaries, groups of seeds, and where two groups are not equals."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hiersae_cli.config.base import first_difference
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.report import OWN
from hiersae_cli.formats.run import Run
from hiersae_cli.metrics.description import FiringRows, most_informative_parents
from hiersae_cli.metrics.intervals import Figure
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, EdgeSums
from hiersae_cli.sae import HierarchicalSAE, SparseAutoencoder
from hiersae_cli.workflows.eval.tasks import TaskSums
from hiersae_cli.workflows.eval.trees import TreeSums

L0_TOLERANCE = 0.03  # share by which L0s as measured may differ
_PARAMETER_TOLERANCE = 0.01  # the same of numbers of parameters: thresholds and step sizes of encoders are few
_NOT_CONFIGURATION = ("seed", "device", "log_every")  # in what runs of one configuration may differ


@dataclass
class Subject:
    """A dictionary under measurement.

    Attributes:
        name: its key in the report.
        model: the dictionary.
        run: the run that it is of; None for a control.
        fitted: its firings in training rows, that post-hoc trees and codes are fitted on.
        sums, data: what is summed over its codes, and over the activations of the same rows.
        trees: what is summed for the figures of trees.
        soft: sums over the soft firing of a hardened tree, where a child may fire without its parent.
        tasks: what it does at the downstream tasks, if any.
        figures: every metric, once measured.
    """

    name: str
    model: SparseAutoencoder
    run: Run | None
    fitted: FiringRows
    sums: CodeSums
    data: DataSums
    trees: TreeSums | None = None
    soft: tuple[CodeSums, EdgeSums] | None = None
    tasks: TaskSums | None = None
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def learned_F(self) -> np.ndarray | None:
        """The parent of each latent in the learned tree, if there is one."""
        return self.model.parent_F.cpu().numpy() if isinstance(self.model, HierarchicalSAE) else None

    @property
    def tree(self) -> str:
        """Where its own tree is from: "learned", "post-hoc" where it was given one afterwards, or "none"."""
        if self.learned_F is not None:
            return "learned"
        return "post-hoc" if self.fitted.rows else "none"

    @property
    def own_F(self) -> np.ndarray | None:
        """The parent of each latent in its own tree, if it has one."""
        if self.trees:
            return self.trees.trees.get(OWN)
        if self.learned_F is None and self.fitted.rows:
            return most_informative_parents(self.fitted.pairs())
        return self.learned_F


@dataclass
class Group:
    """Runs of one configuration that differ in their seed, or a control.

    Attributes:
        name: its key in the report: the run's name, or what the names of several begin with.
        subjects: one for each seed, in ascending order of seeds.
    """

    name: str
    subjects: list[Subject]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs; none for a control."""
        return [subject.run.config.seed for subject in self.subjects if subject.run]

    @property
    def run(self) -> Run | None:
        """A run that stands for all."""
        return self.subjects[0].run


def new_subject(name: str, model: SparseAutoencoder, run: Run | None, blocks: int, taken: Iterable[str]) -> Subject:
    """A subject with nothing summed yet, its name unlike those ``taken``."""
    # The levels of L0 are a run's widths: those of nested dictionaries are of one level of the model.
    widths = run.config.widths if run else model.widths
    sums, data = CodeSums(blocks, widths), DataSums(blocks, model.width)
    subject = Subject(_unlike(taken, name), model, run, FiringRows(model.latents), sums, data)
    if run and run.hardened:
        subject.soft = CodeSums(blocks, widths), EdgeSums(blocks, run.hardened.parent_F.cpu().numpy())
    return subject


def grouped(runs: list[Run], others: list[Run]) -> tuple[list[Run], list[list[Run]]]:
    """The runs to be measured, and the baselines by configuration; each in ascending order of seeds.

    Raises ``UsageError`` where the first runs differ in more than their seed.
    """
    first = runs[0]
    for run in runs[1:]:
        different = _first_difference(first, run)
        if different:
            raise UsageError(
                f"{run.path}: is no other seed of {first.path}: {different}",
                "Several RUNs are seeds of one configuration; what they are compared with is given by --baseline.",
            )
    seeds = [run.config.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        paths = " and ".join(str(run.path) for run in runs if run.config.seed == twice)
        raise UsageError(f"{paths}: both of seed {twice}", "Train them with different seeds: --seed 0, --seed 1.")
    groups: list[list[Run]] = []
    for run in others:
        for group in groups:
            if not _first_difference(group[0], run) and run.config.seed not in {each.config.seed for each in group}:
                group.append(run)
                break
        else:
            groups.append([run])
    return _by_seed(runs), [_by_seed(group) for group in groups]


def new_group(subjects: list[Subject], taken: Iterable[str]) -> Group:
    """A group of subjects, its name unlike those ``taken``; of a single subject it is the subject's."""
    if len(subjects) == 1:
        return Group(subjects[0].name, subjects)
    common = os.path.commonprefix([subject.name for subject in subjects])  # noqa: RUF071 - of names, not of paths
    # hits-1, hits-2 are hits; hier_s1, hier_s2 and hier-seed1, hier-seed2 are hier. A single letter names nothing.
    name = re.sub(r"(?:(?:^|[-_.\s]+)s(?:eed)?)?[-_.\s]*$", "", common, flags=re.IGNORECASE)
    name = name if len(name) > 1 else f"{subjects[0].name}…"
    return Group(_unlike(taken, name), subjects)


def mismatches(first: Group, other: Group, l0: Mapping[str, float]) -> list[str]:
    """In what a group of baselines is not the first group's equal, in words; ``l0`` is as measured, by subject."""
    one, two = first.run, other.run
    if not one or not two:
        return []
    exactly = {
        "latents": (one.model.latents, two.model.latents),
        "wanted L0": (sum(one.config.k), sum(two.config.k)),
        "host": (one.header["host"]["fingerprint"][:12], two.header["host"]["fingerprint"][:12]),
        "module": (one.module, two.module),
    }
    elsewhere = [f"{run.name} was trained by {run.converted['tool']}" for run in (one, two) if run.converted]
    if not elsewhere:
        exactly |= {
            "training tokens": (one.config.tokens, two.config.tokens),
            "batch": (one.config.batch, two.config.batch),
            "seed": (first.seeds, other.seeds),
        }
    found = [f"{what}: {_shown(a)} against {_shown(b)}" for what, (a, b) in exactly.items() if a != b] + elsewhere
    a, b = (float(np.mean([l0[subject.name] for subject in group.subjects])) for group in (first, other))
    if abs(a - b) > L0_TOLERANCE * max(a, b):
        found.append(f"measured L0: {a:.4g} against {b:.4g}")
    a, b = _parameters(one), _parameters(two)
    if abs(a - b) > _PARAMETER_TOLERANCE * max(a, b):
        found.append(f"parameters: {a:,} against {b:,}")
    if not elsewhere and _data(one) != _data(two):
        found.append("trained on another cache")
    return found


def cautions(run: Run, fingerprints: Mapping[str, str]) -> list[str]:
    """What makes the figures of a run doubtful, whatever it is compared with; ``fingerprints`` are of the caches."""
    if run.converted:
        tool = run.converted["tool"]
        return [f"{run.path}: trained by {tool}, so rows held out here may be among those it saw"]
    found = []
    if run.steps_done < run.config.steps:
        found.append(f"{run.path}: training not ended (step {run.steps_done:,} of {run.config.steps:,})")
    if not run.config.synth and not set(_data(run)) & set(fingerprints.values()):
        found.append(f"{run.path}: not trained on a cache measured on, so rows held out here may be among those it saw")
    return found


def _first_difference(first: Run, other: Run) -> str | None:
    """In what two runs differ beyond their seeds."""
    saved, found = (
        {key: value for key, value in run.header["config"].items() if key not in _NOT_CONFIGURATION}
        for run in (first, other)
    )
    if first.module != other.module:
        return f"trained on {first.module}, and on {other.module}"
    return first_difference(saved, found) or ("trained on another cache" if _data(first) != _data(other) else None)


def _data(run: Run) -> list[str]:
    return sorted(run.header["inputs"].values())


def _parameters(run: Run) -> int:
    return sum(parameter.numel() for parameter in run.model.parameters())


def _by_seed(runs: list[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: run.config.seed)


def _unlike(taken: Iterable[str], name: str) -> str:
    """``name``, with a number added where it is taken."""
    taken, found, number = set(taken), name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
