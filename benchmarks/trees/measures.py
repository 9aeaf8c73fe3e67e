"""What ``trees.py`` measures of a trained dictionary and of trees over it.

Legend of shapes: B rows of a batch, F latents, E edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.trees.rows import Rows, moments
from hiersae_cli.metrics.description import FiringRows, SupportCode, chow_liu, most_informative_parents
from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.hierarchy_score import ProbeSums, hierarchy_hits, nearest_latents
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, Moments
from hiersae_cli.metrics.recovery import (
    DetectorSums,
    edge_recovery,
    match_features,
    mean_correlation,
    uniqueness,
    within_reach,
)
from hiersae_cli.workflows.eval.trees import LEAST_FIRINGS

MAX_MI, CHOW_LIU = "max-mi", "chow-liu"
WHOLE = np.ones((1, 1))  # the weights of the one block that a sample is here


class Dictionary(Protocol):
    """What can be measured.

    Attributes:
        W_dec_FD: decoder rows.
        latents: F.
    """

    W_dec_FD: torch.Tensor
    latents: int

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code (B, F) of activations (B, D)."""

    def decode(self, code_BF: torch.Tensor) -> torch.Tensor:
        """The reconstruction (B, D) of a code (B, F)."""


@dataclass
class Measured:
    """Figures of a dictionary under one tree.

    Attributes:
        tree: which: "" for the dictionary's own.
        parent_F: the tree.
        figures: by their names in a row; None where there is no truth to compare with.
    """

    tree: str
    parent_F: np.ndarray
    figures: dict[str, float | None]


@torch.inference_mode()
def measure(model: Dictionary, learned_F: np.ndarray | None, rows: Rows) -> list[Measured]:
    """Figures on held-out rows under the learned tree or, where there is none, under each post-hoc tree."""
    fitted, held = FiringRows(model.latents), FiringRows(model.latents)
    for x_BD in rows.fitting():
        fitted.add(Firings.of(model.encode(x_BD)))
    decoder_FD = model.W_dec_FD.detach()
    data, sums = DataSums(1, rows.width), CodeSums(1, (model.latents,))
    held_moments = Moments(moments(rows)[0].cpu())
    probes = ProbeSums(held_moments, model.latents)
    matching = match_features(decoder_FD, rows.truth.features_ND) if rows.truth else None
    detectors = DetectorSums(1, matching.nearest_F, len(rows.truth)) if rows.truth and matching else None
    for x_BD, truth_BN in rows.held_out():
        code_BF = model.encode(x_BD)
        firings, block_B = Firings.of(code_BF), torch.zeros(len(x_BD), dtype=torch.long)
        reconstruction_BD, x_BD = model.decode(code_BF).cpu(), x_BD.cpu()
        data.add(x_BD, block_B)
        held_moments.add(x_BD)
        sums.add(x_BD, firings, reconstruction_BD, block_B)
        held.add(firings)
        probes.add(x_BD, firings)
        if detectors:
            detectors.add(firings, truth_BN.cpu(), block_B)
    common: dict[str, float | None] = {
        "l0": float(sums.l0(data, WHOLE)[0]),
        "f1": float(detectors.scores(WHOLE)["f1"][0]) if detectors else None,
        "mcc": mean_correlation(matching) if matching else None,
        "uniqueness": uniqueness(matching) if matching else None,
        "fvu": float(sums.fvu(data, WHOLE)[0]),
        "bits_per_token": _bits(np.full(model.latents, NONE), fitted, held),
    }
    trees = {"": learned_F} if learned_F is not None else _post_hoc(fitted)
    near_FN = nearest_latents(probes.directions(), decoder_FD.cpu())
    found = []
    for name, parent_F in trees.items():
        figures: dict[str, float | None] = {**common, "bits_per_token_tree": _bits(parent_F, fitted, held)}
        figures |= dict.fromkeys(("edge_f1", "edge_precision", "edge_recall"))
        if rows.truth and matching:
            reachable_N = within_reach(rows.truth.probability_N.numpy(), model.latents)
            edges = edge_recovery(matching, parent_F, rows.truth.parent_N.numpy(), reachable_N)
            figures |= {"edge_f1": edges.f1, "edge_precision": edges.precision, "edge_recall": edges.recall}
        figures |= _over_edges(parent_F, held, near_FN)
        found.append(Measured(name, parent_F, figures))
    return found


def _post_hoc(fitted: FiringRows) -> dict[str, np.ndarray]:
    pairs = fitted.pairs()
    return {MAX_MI: most_informative_parents(pairs), CHOW_LIU: chow_liu(pairs)}


def _bits(parent_F: np.ndarray, fitted: FiringRows, held: FiringRows) -> float:
    """Bits a token of the held-out rows' supports, by rates of the rows that trees are fitted on."""
    code = SupportCode.fitted(parent_F, fitted.rows, fitted.fired_F, fitted.both(parent_F))
    return float(code.bits(np.array([held.rows]), held.fired_F[None], held.both(parent_F)[None])[0]) / held.rows


def _over_edges(parent_F: np.ndarray, held: FiringRows, near_FN: np.ndarray) -> dict[str, Any]:
    """Means over the edges whose child fires often enough for its rates to be known."""
    child_E = np.flatnonzero((parent_F != NONE) & (held.fired_F >= LEAST_FIRINGS))
    if not len(child_E):
        return {"p_parent_given_child": None, "hierarchy_score": None}
    contained_E = held.both(parent_F)[child_E] / held.fired_F[child_E]
    hits_E = hierarchy_hits(near_FN, child_E, parent_F[child_E])
    return {"p_parent_given_child": float(contained_E.mean()), "hierarchy_score": float(hits_E.mean())}
