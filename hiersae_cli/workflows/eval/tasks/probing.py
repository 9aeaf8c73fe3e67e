"""Probing: how well probes on a few latents, or on the reconstruction, tell the concepts.

Legend of shapes: N rows, D width, C concepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hiersae_cli.levels import Levels
from hiersae_cli.metrics.detection import Confusion
from hiersae_cli.metrics.intervals import Bootstrap, Figure
from hiersae_cli.workflows.eval.tasks.base import DownstreamTask, ProbedConcepts, TaskCodes, TaskInputs

SPARSE = (1, 2, 5, 16)  # latents of the k-sparse probes
_SEEN = (*(f"k{number}" for number in SPARSE), "reconstruction")  # by a probe, as metrics are named

# By what a probe sees, its answers for F1 and for balanced accuracy.
_Answers = dict[str, tuple[Confusion, Confusion]]


class Probing(DownstreamTask[None, _Answers]):
    """Probes on a dictionary's best latents for each concept, and the dense probes on its reconstruction."""

    name = "probing"
    metrics = tuple(f"probe_{what}_{seen}" for what in ("f1", "accuracy") for seen in _SEEN)

    def prepare(self, inputs: TaskInputs, probed: ProbedConcepts) -> None:
        """There is nothing to prepare."""

    def measure(self, codes: TaskCodes, prepared: None) -> _Answers:
        """The answers of all probes for the held-out rows."""
        probed = codes.probed
        answers = {}
        for number in SPARSE:
            score_NC, probes = np.zeros_like(probed.score_NC), []
            for concept in range(len(probed)):
                probe, latents = codes.sparse_probe(concept, number)
                probes.append(probe)
                score_NC[:, concept] = probe.score(codes.held_out_columns[:, latents])
            answers[f"k{number}"] = probed.confusions(score_NC, probes)
        decoded_ND = codes.held_out_rows @ codes.decoder_FD + codes.model.b_dec_D.detach().cpu().numpy()
        answers["reconstruction"] = probed.confusions(probed.scores(decoded_ND), probed.probes)
        return answers

    def figures(self, result: _Answers, probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        """F1 and balanced accuracy of each kind of probe, means over the concepts."""
        figures: dict[str, Figure] = {}
        for seen, (for_f1, for_accuracy) in result.items():
            figures[f"probe_f1_{seen}"] = probed.mean_over_concepts(for_f1.f1, bootstrap)
            figures[f"probe_accuracy_{seen}"] = probed.mean_over_concepts(for_accuracy.balanced_accuracy, bootstrap)
        return figures

    def table(self, result: _Answers, probed: ProbedConcepts, levels: Levels) -> dict[str, Sequence[Any]]:
        """The F1 of each kind of probe."""
        return {f"probe_f1_{seen}": probed.over_all(for_f1.f1).tolist() for seen, (for_f1, _) in result.items()}


TASK = Probing()
