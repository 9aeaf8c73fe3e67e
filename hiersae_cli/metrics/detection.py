"""How well yes and no answers detect the rows of concepts, from counts for each block of documents.

Legend of shapes: N rows, C concepts, K blocks, n weightings of the blocks.

Definitions, over the rows that are known to belong to a concept or not:
    F1 = 2 hits / (rows of the concept + rows with yes); balanced accuracy = the mean of two shares: of the concept's
    rows with yes, and of the other rows with no; phi = the correlation of answer and truth as 0 and 1 (Matthews'
    coefficient). A constant yes has F1 2 p / (1 + p), with p the concept's share, which may be high, but balanced
    accuracy 1/2 and phi 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from hiersae_cli.metrics.ratio import ratio

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Confusion:
    """Counts (K, C) of rows: known, of the concept, with yes, and both of the concept and with yes."""

    known_KC: Array
    positive_KC: Array
    yes_KC: Array
    hit_KC: Array

    @classmethod
    def of(cls, yes_NC: Array, member_NC: Array, known_NC: Array, block_N: Array, blocks: int) -> Confusion:
        """From answers and truth; unknown rows do not count."""
        columns = (known_NC, member_NC & known_NC, yes_NC & known_NC, yes_NC & member_NC & known_NC)
        return cls(*(sums_by_block(column, block_N, blocks) for column in columns))

    def f1(self, weights_nK: Array) -> Array:
        """F1 (n, C); NaN if no row belongs to the concept and none has a yes."""
        positive, yes, hit = (weights_nK @ counts for counts in (self.positive_KC, self.yes_KC, self.hit_KC))
        return ratio(2 * hit, positive + yes)

    def balanced_accuracy(self, weights_nK: Array) -> Array:
        """Balanced accuracy (n, C); NaN if all rows or no rows belong to the concept."""
        known, positive, yes, hit = self._weighted(weights_nK)
        return (ratio(hit, positive) + 1 - ratio(yes - hit, known - positive)) / 2

    def phi(self, weights_nK: Array) -> Array:
        """Correlation (n, C); 0 if all rows have the same answer or the same truth."""
        known, positive, yes, hit = self._weighted(weights_nK)
        variance = yes * (known - yes) * positive * (known - positive)
        covariance = known * hit - yes * positive
        return np.divide(covariance, np.sqrt(variance), out=np.zeros_like(covariance), where=variance > 0)

    def _weighted(self, weights_nK: Array) -> tuple[Array, Array, Array, Array]:
        counts = (self.known_KC, self.positive_KC, self.yes_KC, self.hit_KC)
        known, positive, yes, hit = (weights_nK @ count_KC for count_KC in counts)
        return known, positive, yes, hit


def sums_by_block(values_NC: Array, block_N: Array, blocks: int) -> Array:
    """Sums (K, C) over the rows of each block, float64."""
    rows = len(block_N)
    member_KN = csr_array((np.ones(rows), (block_N, np.arange(rows))), (blocks, rows))
    return np.asarray(member_KN @ values_NC.astype(float))


def mean_known(values_nC: Array) -> Array:
    """Means (n,) over the defined values; NaN if there are none."""
    known = np.isfinite(values_nC)
    return ratio(np.where(known, values_nC, 0.0).sum(1), known.sum(1))
