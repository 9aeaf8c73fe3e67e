"""Hierarchy: whether the tree joins the latents that detect a concept and the concept above it.

Legend of shapes: N rows, F latents, C concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hiersae_cli.formats.report import OWN
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.catalogue import CHOW_LIU, SHUFFLED
from hiersae_cli.metrics.concept_tree import (
    chance_scores,
    depths,
    detectors,
    in_tree,
    lies_below,
    of_pairs,
    pair_scores,
    shared_detectors,
)
from hiersae_cli.metrics.detection import Confusion
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.intervals import Bootstrap, Figure
from hiersae_cli.metrics.probing import LatentSums
from hiersae_cli.metrics.recovery import shuffled_parents
from hiersae_cli.workflows.eval.tasks.base import Array, DownstreamTask, ProbedConcepts, TaskCodes, TaskInputs

_SHUFFLES = 100  # of parents: a single shuffle would join a pair or not


@dataclass(frozen=True)
class Detected:
    """The latent that detects each concept best.

    Attributes:
        latent_C: the latent; ``NONE`` if no latent detects the concept.
        answers: its firing against the concept.
        edge_C: by tree, whether it joins the latent to that of the concept's parent; for shuffled parents, the share
            of shuffles that do.
        ancestor_C: the same, if the latent may lie anywhere below that of the concept's parent.
        below_CC: by tree, except shuffled ones, whether the first concept's latent lies below the second's.
        level_C: the level of the latent in the dictionary's own tree; ``NONE`` without a latent.
    """

    latent_C: Array
    answers: Confusion
    edge_C: Mapping[str, Array]
    ancestor_C: Mapping[str, Array]
    below_CC: Mapping[str, Array]
    level_C: Array


class Hierarchy(DownstreamTask[None, Detected]):
    """The concepts' best latents, and the edges of the trees between them."""

    name = "hierarchy"
    metrics = (
        "concept_score",
        "concept_score_ancestors",
        "concept_score_chance",
        "detector_shared",
        "detector_phi_parents",
        "detector_phi_children",
        "detector_depth",
    )
    columns_first = True

    def prepare(self, inputs: TaskInputs, probed: ProbedConcepts) -> None:
        """There is nothing to prepare."""

    def measure(self, codes: TaskCodes, prepared: None) -> Detected:
        """Detectors are chosen on the rows to fit on, and give their answers for the held-out rows."""
        probed, model, trees = codes.probed, codes.model, codes.trees
        parent_C = probed.concepts.parent_C
        phi_CF = LatentSums(codes.fit.indicator, probed.fit.member_NC, probed.fit.known_NC).correlations()
        latent_C = detectors(phi_CF)
        yes_NC = codes.held_out_columns[:, latent_C.clip(0)].toarray() > 0
        yes_NC[:, latent_C == NONE] = False
        edge_C = {name: in_tree(latent_C, parent_C, trees[name]) for name in (OWN, CHOW_LIU) if name in trees}
        below_CC = {name: lies_below(latent_C, trees[name]) for name in edge_C}
        ancestor_C = {name: of_pairs(below, parent_C) for name, below in below_CC.items()}
        if OWN in trees:
            shuffles = (shuffled_parents(trees[OWN], model.levels, number) for number in range(_SHUFFLES))
            joined = [
                (in_tree(latent_C, parent_C, tree_F), of_pairs(lies_below(latent_C, tree_F), parent_C))
                for tree_F in shuffles
            ]
            edge_C[SHUFFLED], ancestor_C[SHUFFLED] = np.mean(joined, axis=0)
        if len(model.widths) > 1:
            level_F = np.array(model.levels.level_F)
        else:
            level_F = depths(trees[OWN]) if OWN in trees else np.zeros(model.latents, np.int64)
        level_C = np.where(latent_C == NONE, NONE, level_F[latent_C])
        return Detected(latent_C, probed.answers(yes_NC), edge_C, ancestor_C, below_CC, level_C)

    def figures(self, result: Detected, probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        """The scores under each tree, the quality of the detectors, and their mean level by level of concepts."""
        figures: dict[str, Figure] = {}
        parents, parent_C = probed.parents, probed.concepts.parent_C
        if len(parents):
            phi_C, children = probed.over_all(result.answers.phi), np.flatnonzero(parent_C != NONE)
            for metric, joined in (("concept_score", result.edge_C), ("concept_score_ancestors", result.ancestor_C)):
                for suffix, joined_C in joined.items():
                    score_E = pair_scores(phi_C, parent_C, joined_C)
                    figures[f"{metric}{suffix}"] = bootstrap.mean_over_units(score_E)
            for suffix, below_CC in result.below_CC.items():
                chance_E = chance_scores(phi_C, parent_C, _inside(probed.fit.member_NC), below_CC)
                if np.isfinite(chance_E).any():
                    known_E = chance_E[np.isfinite(chance_E)]
                    figures[f"concept_score_chance{suffix}"] = bootstrap.mean_over_units(known_E)
            shared_C = shared_detectors(result.latent_C, parent_C)
            figures["detector_shared"] = bootstrap.mean_over_units(shared_C[children].astype(float))
            for metric, concepts in (("detector_phi_parents", parents), ("detector_phi_children", children)):
                figures[metric] = probed.mean_over_concepts(partial(_phi, result.answers, concepts), bootstrap)
        for level in range(int(probed.concepts.level_C.max()) + 1):
            of_level = result.level_C[(probed.concepts.level_C == level) & (result.level_C != NONE)]
            if len(of_level):
                figures[f"detector_depth_level_{level}"] = bootstrap.mean_over_units(of_level, "levels")
        return figures

    def table(self, result: Detected, probed: ProbedConcepts, levels: Levels) -> dict[str, Sequence[Any]]:
        """Each concept's latent, its level, how well it detects the concept, and how the own tree joins it."""
        known_C, parent_C = result.latent_C != NONE, probed.concepts.parent_C
        nowhere_C = np.zeros(len(known_C), bool)
        joined = {
            "edge": result.edge_C.get(OWN, nowhere_C),
            "below": result.ancestor_C.get(OWN, nowhere_C),
            "shared": shared_detectors(result.latent_C, parent_C),
        }
        return {
            "latent": [None if latent == NONE else levels.ids[latent] for latent in result.latent_C],
            "tree_level": [int(level) if level != NONE else None for level in result.level_C],
            "f1": np.where(known_C, probed.over_all(result.answers.f1), np.nan).tolist(),
            "phi": np.where(known_C, probed.over_all(result.answers.phi), np.nan).tolist(),
            **{name: _of_children(value_C, parent_C) for name, value_C in joined.items()},
        }


def _inside(member_NC: Array) -> Array:
    """The share of the first concept's rows that belong to the second, (C, C)."""
    member_NC = member_NC.astype(np.float32)
    both_CC: Array = member_NC.T @ member_NC
    return both_CC / both_CC.diagonal()[:, None]


def _phi(answers: Confusion, concepts: Array, weights_nK: Array) -> Array:
    phi_nC: Array = answers.phi(weights_nK)[:, concepts]
    return phi_nC


def _of_children(value_C: Array, parent_C: Array) -> list[bool | None]:
    """Values as JSON; null for roots."""
    return [bool(value) if parent != NONE else None for value, parent in zip(value_C, parent_C, strict=True)]


TASK = Hierarchy()
