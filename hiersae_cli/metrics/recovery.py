"""Recovery of a known dictionary and of its tree, for activations whose true features are known.

Legend of shapes: B rows of a batch, D width, F latents, N true features, K blocks of documents, n weightings of
the blocks.

All figures are shares, unit 1. Latents are numbered through the whole dictionary; ``parent_F`` and ``parent_N`` are the
indices of parents of latents and of true features, ``NONE`` for roots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import NONE, Firings, add_by_block
from hiersae_cli.metrics.ratio import ratio

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Matching:
    """The true features of latents, by |cosine| of decoder row and feature.

    Attributes:
        nearest_F: the true feature nearest to each latent; several latents may share one.
        matched_F: the feature of each latent in the one-to-one matching with the largest summed |cosine|; ``NONE`` for
            latents without one, if there are more latents than features.
        cosine_F: |cosine| with the matched feature; 0 without one.
    """

    nearest_F: Array
    matched_F: Array
    cosine_F: Array


@torch.no_grad()
def match_features(decoder_FD: torch.Tensor, features_ND: torch.Tensor) -> Matching:
    """Match latents with true features, on the decoder's device except for the assignment.

    Needs F x N float64 of memory; a row of zeros has cosine 0 with everything. Source of the matching with the
    Hungarian algorithm: Song et al. (2025), arXiv 2505.20254.
    """
    rows_FD, rows_ND = (unit_rows(rows.to(decoder_FD.device)) for rows in (decoder_FD, features_ND))
    cosine_FN = (rows_FD @ rows_ND.T).abs()
    nearest_F = cosine_FN.argmax(1).cpu().numpy()
    cosines = cosine_FN.double().cpu().numpy()
    latent, feature = linear_sum_assignment(cosines, maximize=True)
    matched_F, cosine_F = np.full(len(cosines), NONE), np.zeros(len(cosines))
    matched_F[latent], cosine_F[latent] = feature, cosines[latent, feature]
    return Matching(nearest_F, matched_F, cosine_F)


def mean_correlation(matching: Matching) -> float:
    """MCC: mean |cosine| over the min(F, N) matched pairs. Source: as ``match_features``."""
    return float(matching.cosine_F[matching.matched_F != NONE].mean())


def uniqueness(matching: Matching) -> float:
    """Distinct nearest features over latents: 1 if no two latents share a feature.

    Read it with the detectors' scores, which do not punish duplicates.
    Source: ``sae_lens.synthetic``, the scorer of SynthSAEBench.
    """
    return len(np.unique(matching.nearest_F)) / len(matching.nearest_F)


class DetectorSums:
    """Each latent as a detector of its nearest true feature: streaming counts for each block of documents.

    Args:
        blocks: K.
        nearest_F: the feature that each latent should detect.
        features: N.
    """

    summed = ("fired_KF", "both_KF", "present_KN")  # see ``workflows.common.sharing``

    def __init__(self, blocks: int, nearest_F: Array, features: int):
        self.nearest_F = nearest_F
        self.fired_KF, self.both_KF = np.zeros((2, blocks, len(nearest_F)), np.float32)
        self.present_KN = np.zeros((blocks, features), np.float32)

    def add(self, firings: Firings, truth_BN: torch.Tensor, block_B: torch.Tensor) -> None:
        """Add a batch with the true features' activations (0 if absent), on the CPU."""
        truth, block_b = Firings.of(truth_BN), block_B.numpy()
        detected_n = truth.among(firings.row_n, self.nearest_F[firings.latent_n])
        block_n = block_b[firings.row_n]
        add_by_block(self.fired_KF, block_n, firings.latent_n)
        add_by_block(self.both_KF, block_n[detected_n], firings.latent_n[detected_n])
        add_by_block(self.present_KN, block_b[truth.row_n], truth.latent_n)

    def scores(self, weights_nK: Array) -> dict[str, Array]:
        """``precision``, ``recall`` and ``f1`` for each weighting of the blocks, (n,) each: means over all latents.

        A latent that never fires scores 0 in all three, and a latent whose feature is absent has recall 0; F1 is the
        mean of the latents' F1, not the F1 of the means. Source: as ``uniqueness``.
        """
        parts = [self._means(part_nK) for part_nK in np.array_split(weights_nK, len(weights_nK) // 64 + 1)]
        return dict(zip(("precision", "recall", "f1"), np.concatenate(parts, 1), strict=True))

    def _means(self, weights_nK: Array) -> Array:
        """Means over latents, (3, n); needs F x n numbers of memory."""
        fired, both = weights_nK @ self.fired_KF, weights_nK @ self.both_KF
        present = (weights_nK @ self.present_KN)[:, self.nearest_F]
        precision, recall = ratio(both, fired, 0.0), ratio(both, present, 0.0)
        return np.stack([score.mean(1) for score in (precision, recall, _harmonic_mean(precision, recall))])


@dataclass(frozen=True)
class EdgeRecovery:
    """How many edges of a learned tree are true, and how many true edges are found.

    Attributes:
        recovered: number of edges of the learned tree.
        correct: those of them that are true.
        reachable: number of true edges within the dictionary's reach.
        found: those of them that are in the learned tree.
    """

    recovered: int
    correct: int
    reachable: int
    found: int

    @property
    def precision(self) -> float:
        """Correct over recovered; 0 if the tree has no edge."""
        return self.correct / max(self.recovered, 1)

    @property
    def recall(self) -> float:
        """Found over reachable; 0 if no true edge is within reach."""
        return self.found / max(self.reachable, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(edge_f1(np.array([[self.recovered], [self.correct], [self.reachable], [self.found]]))[0])

    @property
    def units(self) -> Array:
        """The edges of both trees, (4, U): whether each is recovered, correct, reachable and found."""
        kinds = ((1, 1, 1, 1), (1, 1, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0))
        counts = (
            self.found,
            self.correct - self.found,
            self.recovered - self.correct,
            self.reachable - self.found,
        )
        return np.repeat(np.array(kinds).T, counts, axis=1)


def edge_f1(counts_nR: Array) -> Array:
    """F1 (R,) from the numbers (4, R) of recovered, correct, reachable and found edges."""
    recovered, correct, reachable, found = counts_nR.astype(float)
    return _harmonic_mean(ratio(correct, recovered, 0.0), ratio(found, reachable, 0.0))


def edge_recovery(
    matching: Matching,
    parent_F: Array,
    parent_N: Array,
    reachable_N: Array,
    cosine: float = 0.7,
    ancestors: bool = False,
) -> EdgeRecovery:
    """Compare a tree over latents with the true tree.

    With m the one-to-one matching, limited to pairs with |cosine| >= ``cosine``, an edge a -> b of latents (a =
    ``parent_F[b]``) is correct if m(a) is the true parent of m(b). Precision is over all edges: an edge with an end
    that m does not match is wrong. Root latents have no edge. Recall is over the true edges with two reachable ends,
    see ``within_reach``; a correct edge outside reach counts only for precision.

    With ``ancestors``, m(a) may be any ancestor of m(b), for precision and for recall, whose denominator is the same.

    Args:
        parent_F: index of each latent's parent in the whole dictionary, ``NONE`` for roots.
        parent_N: the same for true features.
        reachable_N: bool, which true features the dictionary could hold.
    """
    matched_F = np.where(matching.cosine_F >= cosine, matching.matched_F, NONE)
    child = np.flatnonzero(parent_F != NONE)
    upper, lower = matched_F[parent_F[child]], matched_F[child]
    above = _parents(parent_N, lower)
    right = (above == upper) & (upper != NONE)
    while ancestors and (above != NONE).any():
        above = _parents(parent_N, above)
        right |= (above == upper) & (upper != NONE)
    edge_N = reachable_N & (parent_N != NONE)
    edge_N &= reachable_N[parent_N]
    # One-to-one matching: no two recovered edges have the same true child.
    return EdgeRecovery(len(child), int(right.sum()), int(edge_N.sum()), int(edge_N[lower[right]].sum()))


def within_reach(probability_N: Array, latents: int) -> Array:
    """Mask (N,) of the true features that a dictionary of F latents could hold at best: the F most frequent.

    Among equally frequent features, the first count.
    """
    mask_N = np.zeros(len(probability_N), bool)
    mask_N[np.argsort(-np.asarray(probability_N), kind="stable")[:latents]] = True
    return mask_N


def shuffled_parents(parent_F: Array, levels: Levels, seed: int) -> Array:
    """The control for a tree: the parents of the children of each level, shuffled, (F,).

    Every parent keeps its number of children in each level, and every root stays a root.
    """
    generator, shuffled_F = np.random.default_rng(seed), parent_F.copy()
    for part in levels.slices:
        child = part.start + np.flatnonzero(parent_F[part] != NONE)
        shuffled_F[child] = generator.permutation(parent_F[child])
    return shuffled_F


def _parents(parent_N: Array, index: Array) -> Array:
    """The parent of each feature in ``index``; ``NONE`` for roots and for ``NONE`` itself."""
    return np.where(index == NONE, NONE, parent_N[index])


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to length 1, in float32; a row of zeros stays zero."""
    return rows.float() / rows.float().norm(dim=1, keepdim=True).clamp_min(1e-8)


def _harmonic_mean(a: Array, b: Array) -> Array:
    return ratio(2 * a * b, a + b, 0.0)
