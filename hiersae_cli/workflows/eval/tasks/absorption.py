"""Absorption: over how many latents a concept is split, and how often other latents than its own carry it.

Legend of shapes: N rows, D width, C concepts, K blocks of documents, P concepts that have others below them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.levels import Levels
from hiersae_cli.metrics.absorption import absorption
from hiersae_cli.metrics.detection import sums_by_block
from hiersae_cli.metrics.intervals import Bootstrap, Figure
from hiersae_cli.metrics.probing import f1_of
from hiersae_cli.metrics.ratio import ratio
from hiersae_cli.metrics.splitting import latents_split
from hiersae_cli.workflows.eval.tasks.base import Array, DownstreamTask, ProbedConcepts, TaskCodes, TaskInputs


@dataclass(frozen=True)
class Absorbed:
    """Splitting and absorption of the concepts that have others below them; zeros for the other concepts.

    Attributes:
        split_C: over how many latents each concept is split.
        rows_KC: rows in which its dense probe detects the concept.
        absorbed_KC, share_KC: of these, the absorbed rows, and the sum of the absorbed shares.
    """

    split_C: Array
    rows_KC: Array
    absorbed_KC: Array
    share_KC: Array


class Absorption(DownstreamTask[Array, Absorbed]):
    """Splitting and absorption of concepts that have others below them."""

    name = "absorption"
    metrics = ("splitting", "absorption", "absorption_fraction")

    def prepare(self, inputs: TaskInputs, probed: ProbedConcepts) -> Array:
        """The mean activation (D,) of the rows that probes are fitted on."""
        mean_D: Array = probed.fit.x_ND.mean(0, dtype=float)
        return mean_D

    def measure(self, codes: TaskCodes, prepared: Array) -> Absorbed:
        """Splitting on the rows to fit on, absorption in the held-out rows."""
        probed, held_out, mean_D = codes.probed, codes.probed.held_out, prepared
        rows_NC, absorbed_NC, share_NC = np.zeros((3, len(probed.block_N), len(probed)))
        split_C = np.zeros(len(probed), np.int64)
        for concept in probed.parents:
            split_C[concept] = _split(codes, concept)
            weight_D = probed.weight_DC[:, concept]
            detected_N = probed.score_NC[:, concept] >= probed.probes[concept].balanced_score
            rows = np.flatnonzero(detected_N & held_out.member_NC[:, concept])
            absorbed_NC[rows, concept], share_NC[rows, concept] = absorption(
                codes.held_out_rows[rows],
                codes.decoder_FD,
                weight_D,
                (held_out.x_ND[rows] - mean_D) @ (weight_D / max(float(np.linalg.norm(weight_D)), 1e-30)),
                codes.ranked_CF[concept, : split_C[concept]],
            )
            rows_NC[rows, concept] = 1
        sums = (
            sums_by_block(values_NC, probed.block_N, probed.blocks) for values_NC in (rows_NC, absorbed_NC, share_NC)
        )
        return Absorbed(split_C, *sums)

    def figures(self, result: Absorbed, probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        """Means over the concepts that have others below them; none without such concepts."""
        parents = probed.parents
        if not len(parents):
            return {}
        rows_KP = result.rows_KC[:, parents]

        def share_of_rows(sums_KP: Array) -> Figure:
            return probed.mean_over_concepts(lambda w_nK: ratio(w_nK @ sums_KP, w_nK @ rows_KP), bootstrap)

        return {
            "absorption": share_of_rows(result.absorbed_KC[:, parents]),
            "absorption_fraction": share_of_rows(result.share_KC[:, parents]),
            "splitting": bootstrap.mean_over_units(result.split_C[parents], "latents"),
        }

    def table(self, result: Absorbed, probed: ProbedConcepts, levels: Levels) -> dict[str, Sequence[Any]]:
        """The same of each concept."""
        rows_C = result.rows_KC.sum(0)
        return {
            "absorption": ratio(result.absorbed_KC.sum(0), rows_C).tolist(),
            "absorption_fraction": ratio(result.share_KC.sum(0), rows_C).tolist(),
            "splitting": [int(split) or None for split in result.split_C],
        }


def _split(codes: TaskCodes, concept: int) -> int:
    rows = codes.probed.fit
    known_N = rows.known_NC[:, concept]

    def f1_of_k(number: int) -> float:
        probe, latents = codes.sparse_probe(concept, number)
        yes_N = probe.score(codes.fit_columns[:, latents]) >= probe.f1_score
        return f1_of(yes_N & known_N, rows.member_NC[:, concept] & known_N)

    return latents_split(f1_of_k)


TASK = Absorption()
