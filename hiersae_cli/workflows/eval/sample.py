"""The held-out rows that a report is about.

Legend of shapes: N rows of the sample, K blocks of documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sample:
    """Held-out rows, the documents that they are of, and the block of documents that each belongs to.

    Attributes:
        rows: (N,) row numbers, ascending.
        document: (N,) number of each row's document.
        block: (N,) int64.
        rank: (N,) place of each row's document in a random order.
        blocks: K.
    """

    rows: np.ndarray
    document: np.ndarray
    block: np.ndarray
    rank: np.ndarray
    blocks: int

    @property
    def documents(self) -> int:
        """How many documents the rows come from."""
        return len(np.unique(self.document))

    def of_fewer(self, rows: int) -> Sample:
        """Whole documents of this sample, at random, until there are ``rows`` rows."""
        kept = self._first(rows)
        return Sample(self.rows[kept], self.document[kept], self.block[kept], self.rank[kept], self.blocks)

    def stretches(self, part: slice, most: int, longest: int) -> list[tuple[int, int]]:
        """First and past-the-last row, within ``part``, of stretches of one document each, of ``longest`` rows at most.

        They are of the documents that come first in the random order, with ``most`` rows together or little more.
        """
        kept, document = self._first(most)[part], self.document[part]
        starts = np.unique([*range(0, len(document), longest), *(np.flatnonzero(np.diff(document)) + 1)]).astype(int)
        stops = [*starts[1:], len(document)]
        return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True) if kept[start]]

    def _first(self, rows: int) -> np.ndarray:
        """Which rows (N,) bool are of the first documents of the random order."""
        size = np.bincount(self.rank)
        return self.rank <= np.searchsorted(np.cumsum(size), rows)
