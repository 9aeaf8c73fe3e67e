"""How well yes and no tell whether rows belong to concepts, from counts that are kept for each block of documents.

Legend of shapes: N rows, C concepts, K blocks, n weightings of the blocks.

Definitions, over the rows of which it is known whether they belong to a concept:
    F1 = 2 hits / (rows of the concept + rows of yes); balanced accuracy = the mean of the shares of the concept's rows
    with yes and of the other rows with no; phi = the correlation of the two as 0 and 1 (Matthews' coefficient). Who
    always says yes has F1 2 p / (1 + p), p the concept's share, which may be much, but balanced accuracy 1/2 and phi 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Confusion:
    """Counts (K, C) of rows: known, of the concept, with yes, and both."""

    known_KC: Array
    positive_KC: Array
    yes_KC: Array
    hit_KC: Array

    @classmethod
    def of(cls, yes_NC: Array, member_NC: Array, known_NC: Array, block_N: Array, blocks: int) -> Confusion:
        """From answers and truth; rows that are not known count for nothing."""
        columns = (known_NC, member_NC & known_NC, yes_NC & known_NC, yes_NC & member_NC & known_NC)
        return cls(*(sums_by_block(column, block_N, blocks) for column in columns))

    def f1(self, weights_nK: Array) -> Array:
        """F1 (n, C); NaN where no row is of the concept and none has a yes."""
        positive, yes, hit = (weights_nK @ counts for counts in (self.positive_KC, self.yes_KC, self.hit_KC))
        return _ratio(2 * hit, positive + yes)

    def balanced_accuracy(self, weights_nK: Array) -> Array:
        """Balanced accuracy (n, C); NaN where all or none of the rows are of the concept."""
        known, positive, yes, hit = self._weighted(weights_nK)
        return (_ratio(hit, positive) + 1 - _ratio(yes - hit, known - positive)) / 2

    def phi(self, weights_nK: Array) -> Array:
        """Correlation (n, C), 0 where all rows have the same answer or truth."""
        known, positive, yes, hit = self._weighted(weights_nK)
        variance = yes * (known - yes) * positive * (known - positive)
        covariance = known * hit - yes * positive
        return np.divide(covariance, np.sqrt(variance), out=np.zeros_like(covariance), where=variance > 0)

    def _weighted(self, weights_nK: Array) -> tuple[Array, Array, Array, Array]:
        counts = (self.known_KC, self.positive_KC, self.yes_KC, self.hit_KC)
        known, positive, yes, hit = (weights_nK @ each for each in counts)
        return known, positive, yes, hit


def sums_by_block(values_NC: Array, block_N: Array, blocks: int) -> Array:
    """Sums (K, C) over the rows of each block, float64."""
    rows = len(block_N)
    member_KN = csr_array((np.ones(rows), (block_N, np.arange(rows))), (blocks, rows))
    return np.asarray(member_KN @ values_NC.astype(float))


def mean_known(values_nC: Array) -> Array:
    """Means (n,) over what is defined; NaN where nothing is."""
    known = np.isfinite(values_nC)
    return _ratio(np.where(known, values_nC, 0.0).sum(1), known.sum(1))


def _ratio(of: Array, to: Array) -> Array:
    return np.divide(of, to, out=np.full(np.shape(of), np.nan), where=to > 0)
