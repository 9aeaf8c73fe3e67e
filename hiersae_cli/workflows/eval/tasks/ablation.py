"""Targeted ablation: whether removing a concept's latents blinds its own probe more than the other probes.

Legend of shapes: F latents, C concepts, n weightings of the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.intervals import Bootstrap, Figure
from hiersae_cli.metrics.perturbation import ABLATED, Perturbation, effects, targeted
from hiersae_cli.metrics.probing import best_latents
from hiersae_cli.workflows.eval.tasks.base import Array, DownstreamTask, ProbedConcepts, TaskCodes, TaskInputs


@dataclass(frozen=True)
class Ablated:
    """What the probes say after ablations, and the numbers of the concepts that count."""

    perturbation: Perturbation
    counted: Array


class Ablation(DownstreamTask[None, dict[str, Ablated]]):
    """Ablations of each concept's strongest latents, by the name of the figure."""

    name = "ablation"
    metrics = ("tpp", "tpp_level_0", "tpp_level_1")

    def prepare(self, inputs: TaskInputs, probed: ProbedConcepts) -> None:
        """There is nothing to prepare."""

    def measure(self, codes: TaskCodes, prepared: None) -> dict[str, Ablated]:
        """Ablate latents of all levels for all concepts, then coarse latents for wide ones and fine for narrow ones."""
        probed, model = codes.probed, codes.model
        parent_C = probed.concepts.parent_C
        along_FC = codes.decoder_FD @ probed.weight_DC
        effect_CF = effects(codes.sums.mean_differences(), along_FC)
        coarse_F = np.arange(model.latents) < model.widths[0]
        is_parent_C = np.isin(np.arange(len(probed)), probed.parents)
        child_C = np.flatnonzero(parent_C != NONE)
        top_C = np.flatnonzero(is_parent_C & (parent_C == NONE))
        settings = {"tpp": (np.ones_like(coarse_F), np.arange(len(probed)))}
        if len(child_C):
            settings["tpp_level_0"] = (coarse_F, top_C)
            settings["tpp_level_1"] = (~coarse_F if len(model.widths) > 1 else coarse_F, child_C)
        return {
            name: Ablated(_perturbation(codes, np.where(allowed_F, effect_CF.clip(0), 0.0), along_FC, counted), counted)
            for name, (allowed_F, counted) in settings.items()
        }

    def figures(self, result: dict[str, Ablated], probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        """Means over the concepts that exclude others."""
        others_CC = _others(probed)
        figures: dict[str, Figure] = {}
        for name, ablated in result.items():

            def loss(weights_nK: Array, ablated: Ablated = ablated) -> Array:
                return targeted(ablated.perturbation.drops(weights_nK), others_CC)[:, ablated.counted]

            if others_CC[ablated.counted].any():
                figures[name] = probed.mean_over_concepts(loss, bootstrap)
        return figures


def _perturbation(codes: TaskCodes, useful_CF: Array, along_FC: Array, counted: Array) -> Perturbation:
    """Ablate the latents of each counted concept that add most to its probe's score; none for other concepts."""
    probed = codes.probed
    ranked_CF = best_latents(useful_CF, ABLATED)
    useful_CF[~np.isin(np.arange(len(useful_CF)), counted)] = 0
    ablated = [latents[useful_F[latents] > 0] for latents, useful_F in zip(ranked_CF, useful_CF, strict=True)]
    return Perturbation(
        codes.held_out_columns,
        ablated,
        along_FC,
        probed.score_NC,
        np.array([probe.balanced_score for probe in probed.probes]),
        probed.held_out.member_NC,
        probed.held_out.known_NC,
        probed.block_N,
        probed.blocks,
    )


def _others(probed: ProbedConcepts) -> Array:
    """Which concepts (C, C) exclude each concept: the others of its family and level."""
    family_C, level_C = probed.concepts.family_C, probed.concepts.level_C
    others_CC: Array = (family_C[:, None] == family_C) & (level_C[:, None] == level_C)
    np.fill_diagonal(others_CC, False)
    return others_CC


TASK = Ablation()
