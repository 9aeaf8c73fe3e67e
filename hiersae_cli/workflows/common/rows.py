"""Choose rows of a cache, when a command reads only a part of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK_ROWS = 4096  # of neighbours: a few documents
_LEAST_BLOCKS = 16


def spread_blocks(rows: int, most: int) -> list[tuple[int, int]]:
    """First and past-the-last row of blocks of neighbours, spread evenly over the cache, ``most`` rows at most."""
    if rows <= most:
        return [(0, rows)]
    size = max(1, min(_BLOCK_ROWS, most // _LEAST_BLOCKS))
    starts = np.linspace(0, rows - size, max(1, most // size)).astype(int).tolist()
    return [(start, start + size) for start in starts]


def batches_of(blocks: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The blocks cut into batches of ``size`` rows at most."""
    for first, last in blocks:
        for start in range(first, last, size):
            yield start, min(start + size, last)
