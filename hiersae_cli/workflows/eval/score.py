"""From sums over held-out rows to figures: every metric of every dictionary, over the sample and over each resample.

Legend of shapes: K blocks of documents, n weightings of the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.metrics.catalogue import SOFT, metric_of
from hiersae_cli.metrics.intervals import Bootstrap, Figure, Share
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.metrics.reconstruction import Statistic
from hiersae_cli.metrics.spectrum import Spectrum
from hiersae_cli.metrics.stability import LAZY, start_cosines
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.sae.base import first_rows
from hiersae_cli.workflows.eval.passes import Encoded, OtherSeed
from hiersae_cli.workflows.eval.sample import Sample
from hiersae_cli.workflows.eval.subjects import SeedGroup, Subject
from hiersae_cli.workflows.eval.tasks import PreparedTasks, TaskResults
from hiersae_cli.workflows.eval.trees import tree_figures


@dataclass(frozen=True)
class Scored:
    """A dictionary with its figures.

    Attributes:
        encoded: the dictionary and its sums.
        tasks: its results in the downstream tasks, if there are any.
        figures: every metric by its name in the report.
    """

    encoded: Encoded
    tasks: TaskResults | None
    figures: Mapping[str, Figure]

    @property
    def subject(self) -> Subject:
        """The dictionary itself."""
        return self.encoded.subject

    @property
    def name(self) -> str:
        """Its key in the report."""
        return self.subject.name


@dataclass(frozen=True)
class ScoredGroup:
    """A group of seeds, or a control, with the figures of each."""

    group: SeedGroup
    scored: tuple[Scored, ...]

    @property
    def name(self) -> str:
        """Its key in the report."""
        return self.group.name


@dataclass(frozen=True)
class Evaluation:
    """All that a report is made from.

    Attributes:
        config: of the command.
        module, fingerprints: the module of the activations, and the caches' fingerprints by path.
        sample: the held-out rows.
        groups: the measured runs, then each configuration of baselines.
        controls: untrained dictionaries, one a group.
        further: runs that the first group is compared with only for its stability.
        loss: the host's losses, if there is a host.
        spectrum: of the caches' training rows, if there are any.
        tasks: the downstream tasks, if there are any.
        bootstrap: the resamples of documents behind the figures.
        warnings: known reasons to doubt the figures.
    """

    config: EvalConfig
    module: str
    fingerprints: Mapping[str, str]
    sample: Sample
    groups: tuple[ScoredGroup, ...]
    controls: tuple[ScoredGroup, ...]
    further: tuple[OtherSeed, ...]
    loss: LossSums | None
    spectrum: Spectrum | None
    tasks: PreparedTasks | None
    bootstrap: Bootstrap
    warnings: tuple[str, ...]

    @property
    def all_groups(self) -> tuple[ScoredGroup, ...]:
        """The groups of runs, then the controls."""
        return (*self.groups, *self.controls)

    @property
    def scored(self) -> list[Scored]:
        """Every dictionary."""
        return [scored for group in self.all_groups for scored in group.scored]


def score(encoded: Encoded, loss: LossSums | None, tasks: TaskResults | None, bootstrap: Bootstrap) -> Scored:
    """The figures of a dictionary; its losses are left out of a control's."""
    return Scored(encoded, tasks, _figures(encoded, loss, tasks, bootstrap))


def _figures(
    encoded: Encoded, loss: LossSums | None, tasks: TaskResults | None, bootstrap: Bootstrap
) -> dict[str, Figure]:
    codes, data, subject = encoded.codes, encoded.data, encoded.subject
    rows = int(data.rows_K.sum())

    def drawn(statistics: Mapping[str, Statistic], n: int) -> dict[str, Figure]:
        return {name: bootstrap.draws(statistic, n, metric_of(name).unit) for name, statistic in statistics.items()}

    figures = drawn(codes.statistics(data), rows)
    figures["dead"] = Share(codes.dead(), codes.levels.latents)
    if subject.run and not subject.run.converted:
        figures |= _distance_from_start(subject.model, subject.run.config.seeds.init, encoded.live_F, bootstrap)
    if loss and subject.run:
        figures |= drawn(loss.statistics(subject.name), int(loss.tokens_K.sum()))
    figures |= encoded.trees.figures(codes, data, bootstrap)
    if tasks:
        figures |= tasks.figures(bootstrap)
    if encoded.soft:
        soft, edges = encoded.soft.codes, encoded.soft.edges
        of_codes = drawn(soft.statistics(data), rows)
        soft_figures = {name: of_codes[name] for name in ("fvu", "l0")} | tree_figures(edges, soft, data, bootstrap)
        figures |= {f"{name}{SOFT}": figure for name, figure in soft_figures.items()}
    return figures


def _distance_from_start(
    model: SparseAutoencoder, seed: int, live_F: np.ndarray, bootstrap: Bootstrap
) -> dict[str, Figure]:
    """How near live decoder rows still are to the first ones, in all levels and by level."""
    cosine_F = start_cosines(model.W_dec_FD, first_rows(model.latents, model.width, seed))
    parts = {"": slice(None)}
    if len(model.widths) > 1:
        parts |= {f"_level_{level}": part for level, part in enumerate(model.levels.slices)}
    figures: dict[str, Figure] = {}
    for ending, part in parts.items():
        cosine_f = cosine_F[part][live_F[part]]
        if len(cosine_f):
            figures[f"start_cosine{ending}"] = bootstrap.median_over_units(cosine_f)
            figures[f"lazy{ending}"] = Share(int((cosine_f > LAZY).sum()), len(cosine_f))
    return figures
