"""Downstream tasks of ``hiersae eval``: what a dictionary's latents say of concepts that somebody can name.

Legend of shapes: N rows, D width, F latents, C concepts, E edges, K blocks, n weightings of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from hiersae_cli.concepts import Concepts, choose
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.formats.report import OWN
from hiersae_cli.host.model import Host
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.concept_tree import pair_scores
from hiersae_cli.metrics.detection import Confusion, mean_known
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.intervals import Bootstrap, Draws, Figure
from hiersae_cli.metrics.perturbation import Perturbation, targeted
from hiersae_cli.metrics.probing import Probe, dense_probes
from hiersae_cli.metrics.steering import Steering
from hiersae_cli.workflows.eval.concept_rows import label_rows
from hiersae_cli.workflows.eval.sample import Sample, SampleWindows

Array = np.ndarray[Any, Any]

SPARSE = (1, 2, 5, 16)  # latents of the k-sparse probes


@dataclass(frozen=True)
class LabelledRows:
    """Rows of a cache with the concepts that they belong to.

    Attributes:
        x_ND: activations, float32.
        member_NC, known_NC: which rows belong to each concept, and of which it is known.
    """

    x_ND: Array
    member_NC: Array
    known_NC: Array


class Tasks:
    """Concepts and the probes for them on the activations: what all dictionaries have in common.

    Args:
        concepts: of the rows that probes are fitted on, then of those that they are scored on.
        x_ND: activations of all these rows.
        fitted: how many are of the first kind.
        following_N: the token that follows each row that is fitted on; -1 for none.
        block_N, blocks: blocks of the rows that are scored, and K.
        steering: windows to steer in; None for none.
        device: where probes are fitted.
    """

    def __init__(
        self,
        concepts: Concepts,
        x_ND: Array,
        fitted: int,
        following_N: Array,
        block_N: Array,
        blocks: int,
        steering: Steering | None,
        device: torch.device,
    ):
        fit, held_out = concepts.rows(slice(fitted)), concepts.rows(slice(fitted, None))
        kept = choose(fit, held_out)
        if not len(kept):
            raise FileError(
                f"none of the {len(concepts):,} concepts has enough rows for and against it",
                "Give more --task-rows, or other labels.",
            )
        self.concepts = concepts.only(kept)
        self.found = len(concepts)
        parts = [self.concepts.rows(slice(fitted)), self.concepts.rows(slice(fitted, None))]
        self.fit, self.held_out = (
            LabelledRows(x, part.members(), part.known())
            for x, part in zip((x_ND[:fitted], x_ND[fitted:]), parts, strict=True)
        )
        self.following_N, self.block_N, self.blocks, self.steering = following_N, block_N, blocks, steering
        self.mean_D = self.fit.x_ND.mean(0, dtype=float)
        self.deviation = float(np.sqrt(self.fit.x_ND.var(0, dtype=float).sum()))
        self.probes = dense_probes(self.fit.x_ND, self.fit.member_NC, self.fit.known_NC, device)
        self.weight_DC = np.stack([probe.weight for probe in self.probes], 1)
        self.score_NC = self.scores(self.held_out.x_ND)

    def scores(self, x_ND: Array) -> Array:
        """Log-odds (N, C) by the dense probes."""
        return np.asarray(x_ND @ self.weight_DC.astype(np.float32)) + np.array([probe.bias for probe in self.probes])

    def confusions(self, score_NC: Array, probes: list[Probe]) -> tuple[Confusion, Confusion]:
        """Of scores of the held-out rows: the answers for F1, and those for balanced accuracy."""
        return (
            self.answers(score_NC >= [probe.f1_score for probe in probes]),
            self.answers(score_NC >= [probe.balanced_score for probe in probes]),
        )

    def answers(self, yes_NC: Array) -> Confusion:
        """Answers of the held-out rows against the truth."""
        return Confusion.of(yes_NC, self.held_out.member_NC, self.held_out.known_NC, self.block_N, self.blocks)

    @cached_property
    def ceiling(self) -> tuple[Confusion, Confusion]:
        """What the dense probes reach on the activations themselves."""
        return self.confusions(self.score_NC, self.probes)

    def ceiling_figures(self, bootstrap: Bootstrap) -> dict[str, Figure]:
        """The same as figures, means over the concepts."""
        for_f1, for_accuracy = self.ceiling
        rows = len(self.block_N)
        return {
            "probe_f1": bootstrap.draws(partial(_mean, for_f1.f1), rows, "1"),
            "probe_accuracy": bootstrap.draws(partial(_mean, for_accuracy.balanced_accuracy), rows, "1"),
        }

    def described(self) -> list[dict[str, Any]]:
        """The concepts: each after its parent."""
        everything = np.ones((1, self.blocks))
        concepts, (for_f1, for_accuracy) = self.concepts, self.ceiling
        rows_C, known_C = (getattr(for_f1, name).sum(0) for name in ("positive_KC", "known_KC"))
        f1_C, accuracy_C = for_f1.f1(everything)[0], for_accuracy.balanced_accuracy(everything)[0]
        names = [f"{concepts.families[f]}: {name}" for f, name in zip(concepts.family_C, concepts.names, strict=True)]
        return [
            {
                "name": names[concept],
                "level": int(concepts.level_C[concept]),
                "parent": names[parent] if (parent := concepts.parent_C[concept]) != NONE else None,
                "share": float(rows_C[concept] / known_C[concept]),
                "probe_f1": float(f1_C[concept]),
                "probe_accuracy": float(accuracy_C[concept]),
            }
            for concept in range(len(concepts))
        ]

    @cached_property
    def parents(self) -> Array:
        """The concepts that have others below them."""
        return np.unique(self.concepts.parent_C[self.concepts.parent_C != NONE])


def prepare(
    acts: ActivationSet,
    host: Host,
    fit: Array,
    held_out: Sample,
    windows: SampleWindows | None,
    config: EvalConfig,
    device: torch.device,
) -> tuple[Tasks, list[str]]:
    """Label rows and fit the dense probes; and what to warn of.

    Args:
        fit: rows, ascending, that probes are fitted on.
        windows: to steer in; None for none.
    """
    rows = np.concatenate([fit, held_out.rows])
    order = np.argsort(rows)
    concepts, warnings = label_rows(acts, rows[order], host, config.labeller, config.labels)
    x_ND = np.concatenate([acts.rows_at(part).float().numpy() for part in (fit, held_out.rows)])
    tokens, position = acts.column("tokens"), acts.column("position")
    following = np.append(tokens[1:], -1)
    following[np.append(position[1:], 0) == 0] = -1
    steering = None
    if windows:
        steering = Steering(host, acts.module, *windows.padded())
    found = Tasks(
        concepts.rows(np.argsort(order)),
        x_ND,
        len(fit),
        following[fit],
        held_out.block,
        held_out.blocks,
        steering,
        device,
    )
    return found, warnings


@dataclass(frozen=True)
class Absorbed:
    """Splitting and absorption of the concepts that have others below them; zeros for the rest.

    Attributes:
        split_C: over how many latents each is spread.
        rows_KC, absorbed_KC, share_KC: of the rows in which it is detected by its dense probe their number, those that
            are absorbed, and the sum of shares that are.
    """

    split_C: Array
    rows_KC: Array
    absorbed_KC: Array
    share_KC: Array


@dataclass(frozen=True)
class Detected:
    """The latent whose firing tells most of each concept.

    Attributes:
        latent_C: the latent; ``NONE`` where none tells anything.
        answers: its firing against the concept.
        edge_C: by tree, whether it joins the latent to that of the concept's parent; of shuffled parents the share of
            shuffles that do.
        level_C: the latent's level in its own tree; ``NONE`` without one.
    """

    latent_C: Array
    answers: Confusion
    edge_C: dict[str, Array]
    level_C: Array


@dataclass
class TaskSums:
    """What is known of a dictionary's tasks: figures over documents, and what is told of each concept.

    Attributes:
        probes: by number of latents, the answers for F1 and for balanced accuracy; 0 stands for the dense probes on the
            reconstruction.
        absorbed, detected: see there; None where not asked for.
        perturbed: by the name of its figure, a perturbation and the concepts that the figure is of.
        steered: by the name of its figure, an effect (E,) for each of the edges that were steered by.
    """

    tasks: Tasks
    probes: dict[int, tuple[Confusion, Confusion]] = field(default_factory=dict)
    absorbed: Absorbed | None = None
    perturbed: dict[str, tuple[Perturbation, Array]] = field(default_factory=dict)
    detected: Detected | None = None
    steered: dict[str, Array] = field(default_factory=dict)

    def figures(self, bootstrap: Bootstrap) -> dict[str, Figure]:
        """All figures by their names in the report."""
        concepts, rows = self.tasks.concepts, len(self.tasks.block_N)
        found: dict[str, Figure] = {}

        def add(name: str, statistic: Callable[[Array], Array]) -> None:
            found[name] = bootstrap.draws(statistic, rows, "1")

        for number, (for_f1, for_accuracy) in self.probes.items():
            suffix = _probed_on(number)
            add(f"probe_f1_{suffix}", partial(_mean, for_f1.f1))
            add(f"probe_accuracy_{suffix}", partial(_mean, for_accuracy.balanced_accuracy))
        parents = self.tasks.parents
        if self.absorbed and len(parents):
            rows_KP = self.absorbed.rows_KC[:, parents]
            for name, sums_KC in (
                ("absorption", self.absorbed.absorbed_KC),
                ("absorption_fraction", self.absorbed.share_KC),
            ):
                add(name, partial(_mean_ratio, sums_KC[:, parents], rows_KP))
            found["splitting"] = _over_units(self.absorbed.split_C[parents], bootstrap, "latents")
        for name, (perturbation, which) in self.perturbed.items():
            others_CC = _others(concepts)
            if others_CC[which].any():
                add(name, partial(_mean_drop, perturbation, others_CC, which))
        if self.detected:
            answers, level_C = self.detected.answers, self.detected.level_C
            if len(parents):
                phi_C = answers.phi(np.ones((1, self.tasks.blocks)))[0]
                for suffix, edge_C in self.detected.edge_C.items():
                    score_E = pair_scores(phi_C, concepts.parent_C, edge_C)
                    found[f"concept_score{suffix}"] = _over_units(score_E, bootstrap, "1")
            for level in range(int(concepts.level_C.max()) + 1):
                of_level = level_C[(concepts.level_C == level) & (level_C != NONE)]
                if len(of_level):
                    found[f"detector_depth_level_{level}"] = _over_units(of_level, bootstrap, "levels")
        for name, effect_E in self.steered.items():
            found[name] = _over_units(effect_E, bootstrap, "1")
        return found

    def table(self, levels: Levels) -> list[dict[str, Any]]:
        """What the report says of each concept, in the concepts' order; None for what is not defined."""
        everything = np.ones((1, self.tasks.blocks))
        columns: dict[str, Any] = {}
        if self.detected:
            known_C = self.detected.latent_C != NONE
            edge_C = self.detected.edge_C.get(OWN, np.zeros(len(known_C), bool))
            columns |= {
                "latent": [levels.ids[latent] if latent != NONE else None for latent in self.detected.latent_C],
                "tree_level": [int(level) if level != NONE else None for level in self.detected.level_C],
                "f1": np.where(known_C, self.detected.answers.f1(everything)[0], np.nan),
                "phi": np.where(known_C, self.detected.answers.phi(everything)[0], np.nan),
                "edge": [
                    bool(edge) if parent != NONE else None
                    for edge, parent in zip(edge_C, self.tasks.concepts.parent_C, strict=True)
                ],
            }
        for number, (for_f1, _) in self.probes.items():
            columns[f"probe_f1_{_probed_on(number)}"] = for_f1.f1(everything)[0]
        if self.absorbed:
            rows_C = self.absorbed.rows_KC.sum(0)
            columns |= {
                "absorption": _ratio(self.absorbed.absorbed_KC.sum(0), rows_C),
                "absorption_fraction": _ratio(self.absorbed.share_KC.sum(0), rows_C),
                "splitting": [int(split) or None for split in self.absorbed.split_C],
            }
        return [
            {name: _json(column[concept]) for name, column in columns.items()}
            for concept in range(len(self.tasks.concepts))
        ]


def _mean(statistic: Callable[[Array], Array], weights_nK: Array) -> Array:
    return mean_known(statistic(weights_nK))


def _mean_ratio(of_KC: Array, to_KC: Array, weights_nK: Array) -> Array:
    return mean_known(_ratio(weights_nK @ of_KC, weights_nK @ to_KC))


def _mean_drop(perturbation: Perturbation, others_CC: Array, which: Array, weights_nK: Array) -> Array:
    return mean_known(targeted(perturbation.drops(weights_nK), others_CC)[:, which])


def _probed_on(number: int) -> str:
    return f"k{number}" if number else "reconstruction"


def _others(concepts: Concepts) -> Array:
    """Which concepts (C, C) exclude each: those of its family and level."""
    same = (concepts.family_C[:, None] == concepts.family_C) & (concepts.level_C[:, None] == concepts.level_C)
    np.fill_diagonal(same, False)
    found: Array = same
    return found


def _over_units(values_n: Array, bootstrap: Bootstrap, unit: str) -> Draws:
    drawn = bootstrap.over_units(values_n[None].astype(float), lambda sums_nR: sums_nR[0] / len(values_n))
    return replace(drawn, unit=unit)


def _ratio(of: Array, to: Array) -> Array:
    return np.divide(of, to, out=np.full(np.shape(of), np.nan), where=to > 0)


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value
