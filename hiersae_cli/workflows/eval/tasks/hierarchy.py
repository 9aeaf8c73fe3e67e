"""Hierarchy: whether the tree joins the latents that detect a concept and the concept above it.

Legend of shapes: N rows, F latents, C concepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.formats.report import OWN
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.catalogue import CHOW_LIU, SHUFFLED
from hiersae_cli.metrics.concept_tree import depths, detectors, in_tree, pair_scores
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
        level_C: the level of the latent in the dictionary's own tree; ``NONE`` without a latent.
    """

    latent_C: Array
    answers: Confusion
    edge_C: Mapping[str, Array]
    level_C: Array


class Hierarchy(DownstreamTask[None, Detected]):
    """The concepts' best latents, and the edges of the trees between them."""

    name = "hierarchy"
    metrics = ("concept_score", "detector_depth")
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
        if OWN in trees:
            shuffles = (shuffled_parents(trees[OWN], model.levels, number) for number in range(_SHUFFLES))
            edge_C[SHUFFLED] = np.mean([in_tree(latent_C, parent_C, tree_F) for tree_F in shuffles], axis=0)
        if len(model.widths) > 1:
            level_F = np.array(model.levels.level_F)
        else:
            level_F = depths(trees[OWN]) if OWN in trees else np.zeros(model.latents, np.int64)
        level_C = np.where(latent_C == NONE, NONE, level_F[latent_C])
        return Detected(latent_C, probed.answers(yes_NC), edge_C, level_C)

    def figures(self, result: Detected, probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        """The score under each tree, and the mean level of the detectors of each level of concepts."""
        figures: dict[str, Figure] = {}
        if len(probed.parents):
            phi_C = probed.over_all(result.answers.phi)
            for suffix, edge_C in result.edge_C.items():
                score_E = pair_scores(phi_C, probed.concepts.parent_C, edge_C)
                figures[f"concept_score{suffix}"] = bootstrap.mean_over_units(score_E)
        for level in range(int(probed.concepts.level_C.max()) + 1):
            of_level = result.level_C[(probed.concepts.level_C == level) & (result.level_C != NONE)]
            if len(of_level):
                figures[f"detector_depth_level_{level}"] = bootstrap.mean_over_units(of_level, "levels")
        return figures

    def table(self, result: Detected, probed: ProbedConcepts, levels: Levels) -> dict[str, Sequence[Any]]:
        """Each concept's latent, its level, how well it detects the concept, and whether the own tree has the edge."""
        known_C = result.latent_C != NONE
        edge_C = result.edge_C.get(OWN, np.zeros(len(known_C), bool))
        return {
            "latent": [None if latent == NONE else levels.ids[latent] for latent in result.latent_C],
            "tree_level": [int(level) if level != NONE else None for level in result.level_C],
            "f1": np.where(known_C, probed.over_all(result.answers.f1), np.nan).tolist(),
            "phi": np.where(known_C, probed.over_all(result.answers.phi), np.nan).tolist(),
            "edge": [
                bool(edge) if parent != NONE else None
                for edge, parent in zip(edge_C, probed.concepts.parent_C, strict=True)
            ],
        }


TASK = Hierarchy()
