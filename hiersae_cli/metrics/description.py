"""Description length: how many bits a token it takes to say which latents fire, with and without a tree.

Legend of shapes: B rows of a batch, F latents, K blocks of documents.

The code length of independent latents is sum_i h(p_i), h the binary entropy; under a tree it is
sum over roots of h(p) + sum over children of H(C|P), that is, shorter by the sum of I(P;C) over the edges. So of
all trees that of Chow and Liu is the shortest. Here rates are fitted on some documents and others are coded, so
that a tree pays for what it has only learned by heart: cross-entropy takes entropy's place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.stats import chi2

from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.tree import mi_bits

Array = np.ndarray[Any, Any]


class PairCounts:
    """Streaming counts of the firings of each latent and of each pair of latents.

    The table of pairs takes 4 F^2 bytes; time grows with the square of the active latents a row, not with F.

    Attributes:
        rows: rows counted.
        both_FF: rows in which two latents fire together, float32 (exact up to 16.7M rows); symmetric, with
            the firings of each latent on the diagonal.
    """

    def __init__(self, latents: int):
        self.rows = 0
        self.both_FF = np.zeros((latents, latents), np.float32)

    @property
    def fired_F(self) -> Array:
        """Rows in which each latent fires."""
        return self.both_FF.diagonal().astype(float)

    def add(self, code_BF: torch.Tensor) -> None:
        """Count a batch of codes."""
        row, latent = (index.cpu().numpy() for index in (code_BF > 0).nonzero(as_tuple=True))
        fired_BF = coo_array((np.ones(len(row), np.float32), (row, latent)), shape=code_BF.shape).tocsr()
        both = (fired_BF.T @ fired_BF).tocoo()
        self.both_FF[both.row, both.col] += both.data
        self.rows += len(code_BF)


def chow_liu(pairs: PairCounts) -> Array:
    """The tree of largest summed mutual information, (F,) parents, each tree rooted at its most frequent latent.

    Edges that are no more than chance are left out, see ``chance_information``: so the answer may be a forest.
    Prim's algorithm: rows of the information matrix are computed when a latent joins the tree, so that the
    matrix is never held. Source: Chow and Liu (1968), IEEE Trans. Inf. Theory 14.
    """
    fired_F, least = pairs.fired_F, chance_information(pairs)
    parent_F = np.full(len(fired_F), NONE)
    best_F, outside_F = np.full(len(fired_F), least), np.ones(len(fired_F), bool)
    for _ in fired_F:
        latent = int(np.where(outside_F, best_F, -np.inf).argmax())
        if best_F[latent] <= least:  # nothing left that the trees inform on: the next tree begins
            latent = int(np.where(outside_F, fired_F, -np.inf).argmax())
        outside_F[latent] = False
        information_F = mi_bits(fired_F[latent], fired_F, pairs.both_FF[latent], pairs.rows)
        nearer_F = outside_F & (information_F > best_F)
        best_F[nearer_F], parent_F[nearer_F] = information_F[nearer_F], latent
    return parent_F


def most_informative_parents(pairs: PairCounts) -> Array:
    """The tree in which each latent hangs below the more frequent one that tells most of it, (F,) parents.

    Equally frequent latents rank by number. A latent is a root where no more frequent one makes it likelier
    (lift <= 1) by more than chance, see ``chance_information``.
    """
    fired_F, least = pairs.fired_F, chance_information(pairs)
    order = np.argsort(-fired_F, kind="stable")
    parent_F = np.full(len(fired_F), NONE)
    for rank, latent in enumerate(order[1:], 1):
        above = order[:rank]
        both = pairs.both_FF[latent, above]
        information = mi_bits(fired_F[above], fired_F[latent], both, pairs.rows)
        information[both * pairs.rows <= fired_F[above] * fired_F[latent]] = 0.0
        best = int(information.argmax())
        if information[best] > least:
            parent_F[latent] = above[best]
    return parent_F


def chance_information(pairs: PairCounts, level: float = 0.01) -> float:
    """Bits, Miller-Madow corrected, that the best of F independent latents exceeds with probability ``level`` at most.

    The best of many candidates always shares some information by chance, and a latent that belongs to no tree would
    always be given a parent. 2 N ln 2 times the plug-in information is the G statistic, chi-squared with one degree
    of freedom where the two are independent; the level is divided by F (Bonferroni).
    """
    least = chi2.isf(level / len(pairs.both_FF), 1) - 1  # 1: the correction, in units of G
    return float(least) / (2 * pairs.rows * np.log(2))


@dataclass(frozen=True)
class SupportCode:
    """Rates by which the support of a row, which latents fire, is coded under a tree.

    A root is coded with its rate; a child with its rate given whether its parent fires. All latents roots: the
    flat code.

    Attributes:
        parent_F: each latent's parent, ``NONE`` for roots; without cycles.
        on_F: the rate of each child where its parent fires; 1/2, and without meaning, for roots.
        off_F: the rate of each child where its parent does not fire; of a root, its rate.
    """

    parent_F: Array
    on_F: Array
    off_F: Array

    @classmethod
    def fitted(cls, parent_F: Array, pairs: PairCounts) -> SupportCode:
        """Rates of Krichevsky and Trofimov, (n + 1/2) / (N + 1), from counts of rows other than those to be coded.

        Source: Krichevsky and Trofimov (1981), IEEE Trans. Inf. Theory 27.
        """
        child_F, fired_F = parent_F != NONE, pairs.fired_F
        both_F = np.where(child_F, pairs.both_FF[np.arange(len(parent_F)), parent_F], 0.0)
        # A root is a child whose parent never fires.
        parent_fired_F = np.where(child_F, fired_F[parent_F], 0.0)
        on_F = (both_F + 0.5) / (parent_fired_F + 1.0)
        off_F = (fired_F - both_F + 0.5) / (pairs.rows - parent_fired_F + 1.0)
        return cls(parent_F, on_F, off_F)

    def bits(self, rows_K: Array, fired_KF: Array, both_KF: Array) -> Array:
        """Code length (K,) in bits of the rows of each block; divided by the rows it is bits a token.

        Args:
            rows_K, fired_KF: rows of each block, and in how many each latent fires.
            both_KF: in how many each latent fires together with its parent; not read for roots.
        """
        child_F = self.parent_F != NONE
        parent_KF = np.where(child_F, fired_KF[:, self.parent_F], 0.0)
        both_KF = np.where(child_F, both_KF, 0.0)
        alone_KF = fired_KF - both_KF
        return -(
            both_KF @ np.log2(self.on_F)
            + (parent_KF - both_KF) @ np.log2(1 - self.on_F)
            + alone_KF @ np.log2(self.off_F)
            + (rows_K[:, None] - parent_KF - alone_KF) @ np.log2(1 - self.off_F)
        )
