"""Description length: the bits per token that encode which latents fire, with and without a tree.

Legend of shapes: B rows of a batch, F latents, C latents of a chunk, E pairs of latents, K blocks of documents.

The code length of independent latents is sum_i h(p_i), h the binary entropy; with a tree it is
sum over roots of h(p) + sum over children of H(C|P), which is shorter by the sum of I(P;C) over the edges. So the tree
of Chow and Liu gives the shortest code of all trees. Here rates are fitted on some documents and other documents are
coded, so that overfitting costs a tree bits: cross-entropy replaces entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.stats import chi2

from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.tree import mi_bits
from hiersae_cli.sae.tree import may_be_parent

Array = np.ndarray[Any, Any]

_CELLS = 1 << 22  # of a table of pairs at a time


@dataclass(frozen=True)
class InformativePairs:
    """Pairs of latents that are informative about each other.

    Attributes:
        rows: number of rows counted.
        fired_F: rows in which each latent fires.
        first_E, second_E: the two latents, first_E < second_E.
        bits_E: their mutual information, Miller-Madow corrected.
        likelier_E: whether each makes the other likelier (lift > 1).
    """

    rows: int
    fired_F: Array
    first_E: Array
    second_E: Array
    bits_E: Array
    likelier_E: Array


class FiringRows:
    """All firings of some rows, at 4 bytes each: memory grows with rows x L0, never with F x F.

    Attributes:
        rows: number of rows.
        fired_F: rows in which each latent fires.
    """

    summed = ("rows", "fired_F")  # see ``workflows.common.sharing``

    def __init__(self, latents: int):
        self.rows = 0
        self.fired_F = np.zeros(latents)
        self._parts: list[csr_array] = []

    def add(self, firings: Firings) -> None:
        """Add a batch."""
        self._parts.append(firings.indicator.astype(np.int8))
        self.fired_F += np.bincount(firings.latent_n, minlength=len(self.fired_F))
        self.rows += firings.rows

    def collect(self, of_all: Callable[[list[csr_array]], list[list[csr_array]]]) -> None:
        """Get the firings of all ranks; ``of_all`` gives a value of each."""
        self._parts = [part for parts in of_all(self._parts) for part in parts]

    def both(self, parent_F: Array) -> Array:
        """Rows in which each latent fires together with its parent, (F,); 0 without one."""
        both_F = np.zeros(len(parent_F))
        for part in self._parts:
            rows, latents = part.shape
            row_n = np.repeat(np.arange(rows), np.diff(part.indptr))
            latent_n = part.indices.astype(np.int64)
            firings = Firings(rows, latents, row_n * latents + latent_n, part.data)
            child_n = parent_F[latent_n] != NONE
            latent_n, row_n = latent_n[child_n], row_n[child_n]
            together = firings.among(row_n, parent_F[latent_n])
            both_F += np.bincount(latent_n[together], minlength=len(parent_F))
        return both_F

    def pairs(self, level: float = 0.01) -> InformativePairs:
        """The pairs that share more information than the best of F independent latents would.

        The best of many candidates always shares some information by chance, so even a latent that belongs to no tree
        would get a parent. 2 N ln 2 times the plug-in information is the G statistic, which is chi-squared with one
        degree of freedom if two latents are independent: the best of F latents exceeds the bound with probability
        ``level`` at most (Bonferroni). Time grows with F^2 / 2, memory with the number of pairs.
        """
        latents, rows, fired_F = len(self.fired_F), self.rows, self.fired_F
        least = chi2.isf(min(level / latents, 1.0), 1) - 1  # 1: Miller and Madow's correction, in units of G
        fired_BF = vstack(self._parts, format="csr").astype(np.float32)
        fired_FB = fired_BF.T.tocsr()
        deviation_F = np.sqrt(fired_F * (rows - fired_F))
        parts = []
        for start in range(0, latents, max(1, _CELLS // latents)):
            part = slice(start, start + max(1, _CELLS // latents))
            both_CF = (fired_FB[part] @ fired_BF[:, start:]).toarray()
            # Pearson's statistic is cheap, and at least half of G since ln x <= x - 1.
            excess_CF = both_CF * rows - np.outer(fired_F[part], fired_F[start:]).astype(np.float32)
            bound_CF = np.outer(deviation_F[part], deviation_F[start:] * (0.49 * max(least, 0) / rows) ** 0.5)
            first_E, second_E = np.nonzero(np.triu(np.abs(excess_CF) > bound_CF, 1))
            both_E, likelier_E = both_CF[first_E, second_E].astype(float), excess_CF[first_E, second_E] > 0
            first_E, second_E = first_E + start, second_E + start
            bits_E = mi_bits(fired_F[first_E], fired_F[second_E], both_E, rows)
            informative = bits_E > least / (2 * rows * np.log(2))
            parts.append([column[informative] for column in (first_E, second_E, bits_E, likelier_E)])
        return InformativePairs(rows, fired_F, *(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def chow_liu(pairs: InformativePairs) -> Array:
    """The tree with the largest summed mutual information, (F,) parents, rooted at its most frequent latent.

    Pairs that are not beyond chance are left out, so the result may be a forest, with a root for each tree.
    Source: Chow and Liu (1968), IEEE Trans. Inf. Theory 14.
    """
    latents = len(pairs.fired_F)
    # The tree with the least summed weight; a weight of 0 would count as no edge.
    weight_E = pairs.bits_E.max(initial=0.0) + 1 - pairs.bits_E
    tree = minimum_spanning_tree(_graph(weight_E, pairs.first_E, pairs.second_E, latents))
    # The root of each tree is the first of its latents in the order of frequency.
    order = np.argsort(-pairs.fired_F, kind="stable")
    _, member_F = connected_components(tree, directed=False)
    root = order[np.unique(member_F[order], return_index=True)[1]]
    edge = tree.tocoo()
    above = np.concatenate([edge.row, np.full(len(root), latents)])
    below = np.concatenate([edge.col, root])
    joined = _graph(np.ones(len(above)), above, below, latents + 1)
    _, parent_F = breadth_first_order(joined, latents, directed=False)
    return np.where(parent_F[:latents] == latents, NONE, parent_F[:latents]).astype(np.int64)


def _graph(weight_E: Array, first_E: Array, second_E: Array, nodes: int) -> csr_array:
    """A graph by its edges. Before SciPy 1.16, its functions of graphs take only indices of 32 bits."""
    ends = (first_E.astype(np.int32), second_E.astype(np.int32))
    return coo_array((weight_E, ends), (nodes, nodes)).tocsr()


def most_informative_parents(pairs: InformativePairs) -> Array:
    """The tree in which the parent of each latent is the most informative among more frequent ones, (F,) parents.

    Equally frequent latents rank by number. A latent is a root if no more frequent latent that ``may_be_parent`` makes
    it likelier beyond chance.
    """
    rank_F = np.empty(len(pairs.fired_F), np.int64)
    rank_F[np.argsort(-pairs.fired_F, kind="stable")] = np.arange(len(rank_F))
    first_is_parent = rank_F[pairs.first_E] < rank_F[pairs.second_E]
    ends = (pairs.first_E, pairs.second_E)
    parent_E, child_E = np.where(first_is_parent, ends, ends[::-1])
    allowed_E = pairs.likelier_E & may_be_parent(pairs.fired_F, pairs.rows)[parent_E]
    parent_E, child_E, bits_E = (column[allowed_E] for column in (parent_E, child_E, pairs.bits_E))
    best_first = np.lexsort((rank_F[parent_E], -bits_E, child_E))
    child, place = np.unique(child_E[best_first], return_index=True)
    parent_F = np.full(len(rank_F), NONE)
    parent_F[child] = parent_E[best_first[place]]
    return parent_F


@dataclass(frozen=True)
class SupportCode:
    """The rates that code the support of a row (which latents fire) with a tree.

    A root is coded with its rate; a child with its rate given whether its parent fires. If all latents are roots, this
    is the flat code.

    Attributes:
        parent_F: each latent's parent, ``NONE`` for roots; without cycles.
        on_F: the rate of each child when its parent fires; 1/2, and unused, for roots.
        off_F: the rate of each child when its parent does not fire; for a root, its rate.
    """

    parent_F: Array
    on_F: Array
    off_F: Array

    @classmethod
    def fitted(cls, parent_F: Array, rows: int, fired_F: Array, both_F: Array) -> SupportCode:
        """Rates of Krichevsky and Trofimov, (n + 1/2) / (N + 1), from counts of rows other than those to be coded.

        Source: Krichevsky and Trofimov (1981), IEEE Trans. Inf. Theory 27.

        Args:
            rows, fired_F: number of rows, and of those in which each latent fires.
            both_F: rows in which each latent fires together with its parent; ignored for roots.
        """
        child_F = parent_F != NONE
        both_F = np.where(child_F, both_F, 0.0)
        # A root is a child whose parent never fires.
        parent_fired_F = np.where(child_F, fired_F[parent_F], 0.0)
        on_F = (both_F + 0.5) / (parent_fired_F + 1.0)
        off_F = (fired_F - both_F + 0.5) / (rows - parent_fired_F + 1.0)
        return cls(parent_F, on_F, off_F)

    def bits(self, rows_K: Array, fired_KF: Array, both_KF: Array) -> Array:
        """Code length (K,) of the rows of each block, in bits; divided by the rows it gives bits per token.

        Args:
            rows_K, fired_KF: number of rows of each block, and of those in which each latent fires.
            both_KF: rows in which each latent fires together with its parent; ignored for roots.
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
