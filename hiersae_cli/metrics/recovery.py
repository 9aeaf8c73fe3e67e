"""Recovery of a known dictionary and of its tree, where the features behind the activations are known.

Legend of shapes: B rows of a batch, D width, F latents, N true features, K blocks of documents, n weightings of
the blocks.

All of it is in shares, unit 1. Latents are numbered through the whole dictionary, and parents are given as
``parent_F`` and ``parent_N``: the index of each one's parent, or ``NONE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import NONE, Firings, add_by_block

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Matching:
    """Latents and the true features that they stand for, by |cosine| of decoder row and feature.

    Attributes:
        nearest_F: the true feature nearest to each latent; several latents may have the same.
        matched_F: the feature of each latent in the one-to-one matching of largest summed |cosine|, ``NONE`` where
            there are more latents than features.
        cosine_F: |cosine| with the matched feature; 0 without one.
    """

    nearest_F: Array
    matched_F: Array
    cosine_F: Array


@torch.no_grad()
def match_features(decoder_FD: torch.Tensor, features_ND: torch.Tensor) -> Matching:
    """Match latents with true features, on the decoder's device but for the assignment.

    Takes F x N float64 of memory; a row of zeros has cosine 0 with everything. Source: the matching by the
    Hungarian algorithm is that of Song et al. (2025), arXiv 2505.20254.
    """
    rows_FD, rows_ND = (_unit(rows.to(decoder_FD.device)) for rows in (decoder_FD, features_ND))
    cosine_FN = (rows_FD @ rows_ND.T).abs()
    nearest_F = cosine_FN.argmax(1).cpu().numpy()
    cosines = cosine_FN.double().cpu().numpy()
    latent, feature = linear_sum_assignment(cosines, maximize=True)
    matched_F, cosine_F = np.full(len(cosines), NONE), np.zeros(len(cosines))
    matched_F[latent], cosine_F[latent] = feature, cosines[latent, feature]
    return Matching(nearest_F, matched_F, cosine_F)


def mean_correlation(matching: Matching) -> float:
    """MCC: mean |cosine| over the matched pairs, of which there are min(F, N). Source: as ``match_features``."""
    return float(matching.cosine_F[matching.matched_F != NONE].mean())


def uniqueness(matching: Matching) -> float:
    """Distinct nearest features over latents: 1 where no two latents stand for one feature.

    To be read beside the detectors' scores, which do not punish duplicates.
    Source: ``sae_lens.synthetic``, the scorer of SynthSAEBench.
    """
    return len(np.unique(matching.nearest_F)) / len(matching.nearest_F)


class DetectorSums:
    """Each latent as a detector of its nearest true feature: streaming counts for each block of documents.

    Args:
        blocks: K.
        nearest_F: the feature that each latent is to detect.
        features: N.
    """

    def __init__(self, blocks: int, nearest_F: Array, features: int):
        self.nearest_F = nearest_F
        self.fired_KF, self.both_KF = np.zeros((2, blocks, len(nearest_F)), np.float32)
        self.present_KN = np.zeros((blocks, features), np.float32)

    def add(self, firings: Firings, truth_BN: torch.Tensor, block_B: torch.Tensor) -> None:
        """Take in a batch with the true features' activations (0 where absent), on the CPU."""
        truth, block_b = Firings.of(truth_BN), block_B.numpy()
        detected_n = truth.among(firings.row_n, self.nearest_F[firings.latent_n])
        block_n = block_b[firings.row_n]
        add_by_block(self.fired_KF, block_n, firings.latent_n)
        add_by_block(self.both_KF, block_n[detected_n], firings.latent_n[detected_n])
        add_by_block(self.present_KN, block_b[truth.row_n], truth.latent_n)

    def scores(self, weights_nK: Array) -> dict[str, Array]:
        """``precision``, ``recall`` and ``f1`` for each weighting of the blocks, (n,) each: means over all latents.

        A latent that never fires scores 0 in all three, and one whose feature is absent has recall 0; F1 is
        the mean of the latents' F1, not the F1 of the means. Source: as ``uniqueness``.
        """
        parts = [self._means(part_nK) for part_nK in np.array_split(weights_nK, len(weights_nK) // 64 + 1)]
        return dict(zip(("precision", "recall", "f1"), np.concatenate(parts, 1), strict=True))

    def _means(self, weights_nK: Array) -> Array:
        """Means over latents, (3, n), in F x n numbers of memory."""
        fired, both = weights_nK @ self.fired_KF, weights_nK @ self.both_KF
        present = (weights_nK @ self.present_KN)[:, self.nearest_F]
        precision, recall = _share(both, fired), _share(both, present)
        return np.stack([score.mean(1) for score in (precision, recall, _harmonic_mean(precision, recall))])


@dataclass(frozen=True)
class EdgeRecovery:
    """How many edges of a learned tree are true, and how many true ones are found.

    Attributes:
        recovered: edges of the learned tree.
        correct: of these, the true ones.
        reachable: true edges within the dictionary's reach.
        found: of these, the recovered ones.
    """

    recovered: int
    correct: int
    reachable: int
    found: int

    @property
    def precision(self) -> float:
        """Correct over recovered; 0 without an edge."""
        return self.correct / max(self.recovered, 1)

    @property
    def recall(self) -> float:
        """Found over reachable; 0 where no true edge is within reach."""
        return self.found / max(self.reachable, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
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
    """F1 (R,) from numbers (4, R) of recovered, correct, reachable and found edges."""
    recovered, correct, reachable, found = counts_nR.astype(float)
    return _harmonic_mean(_share(correct, recovered), _share(found, reachable))


def edge_recovery(
    matching: Matching,
    parent_F: Array,
    parent_N: Array,
    reachable_N: Array,
    cosine: float = 0.7,
    ancestors: bool = False,
) -> EdgeRecovery:
    """Compare a tree over latents with the true one.

    With m the one-to-one matching, cut to pairs of |cosine| >= ``cosine``, an edge a -> b of the latents (a =
    ``parent_F[b]``) is correct where m(a) is the true parent of m(b). Precision is over all edges: one with an end
    that m does not match is wrong. Root latents have no edge. Recall is over the true edges whose two ends are
    reachable, see ``within_reach``; a correct edge outside it counts for precision alone.

    With ``ancestors``, m(a) may be any ancestor of m(b), for precision and for recall, whose denominator stays.

    Args:
        parent_F: index of each latent's parent over the whole dictionary, ``NONE`` for roots.
        parent_N: the same of the true features.
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

    Of equally frequent ones the first are taken.
    """
    mask_N = np.zeros(len(probability_N), bool)
    mask_N[np.argsort(-np.asarray(probability_N), kind="stable")[:latents]] = True
    return mask_N


def shuffled_parents(parent_F: Array, levels: Levels, seed: int) -> Array:
    """The control of a tree: parents dealt anew among the children of each level, (F,).

    Every parent keeps its number of children in each level, every root stays one.
    """
    generator, shuffled_F = np.random.default_rng(seed), parent_F.copy()
    for part in levels.slices:
        child = part.start + np.flatnonzero(parent_F[part] != NONE)
        shuffled_F[child] = generator.permutation(parent_F[child])
    return shuffled_F


def _parents(parent_N: Array, index: Array) -> Array:
    """The parent of each of ``index``, ``NONE`` for roots and for ``NONE`` itself."""
    return np.where(index == NONE, NONE, parent_N[index])


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows.float() / rows.float().norm(dim=1, keepdim=True).clamp_min(1e-8)


def _share(of: Array, to: Array) -> Array:
    return np.divide(of, to, out=np.zeros(np.shape(of)), where=to > 0)


def _harmonic_mean(a: Array, b: Array) -> Array:
    return _share(2 * a * b, a + b)
