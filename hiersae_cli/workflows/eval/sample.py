"""The rows that an evaluation reads: held-out documents to measure on, and windows for the host.

Legend of shapes: N rows of the sample, B windows, T tokens, K blocks of documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import HELD_OUT, TRAIN, ActivationSet
from hiersae_cli.host.windows import padded

_MOST_BLOCKS = 200  # of documents, for the bootstrap: finer ones change intervals little and cost memory


@dataclass(frozen=True)
class Sample:
    """Rows of whole documents, and the block of documents of each row.

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

    @classmethod
    def drawn(cls, acts: ActivationSet, split: int, most: int, seed: int) -> Sample:
        """Whole documents of a split, chosen at random until there are ``most`` rows; neighbours share a block."""
        rows = np.flatnonzero(acts.usable(split))
        document = acts.column("document")[rows]
        names, first, counts = np.unique(document, return_index=True, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(names))
        chosen = order[: int(np.searchsorted(np.cumsum(counts[order]), most)) + 1]
        in_order = np.sort(chosen)
        places = np.concatenate([np.arange(first[k], first[k] + counts[k]) for k in in_order])[:most]
        blocks = min(_MOST_BLOCKS, len(chosen))
        block_of_document, rank_of_document = np.zeros((2, names.max() + 1), np.int64)
        for number, members in enumerate(np.array_split(names[in_order], blocks)):
            block_of_document[members] = number
        rank_of_document[names[chosen]] = np.arange(len(chosen))
        document = document[places]
        return cls(rows[places], document, block_of_document[document], rank_of_document[document], blocks)

    @property
    def documents(self) -> int:
        """How many documents the rows come from."""
        return len(np.unique(self.document))

    def of_fewer(self, rows: int) -> Sample:
        """Whole documents of this sample, at random, until there are ``rows`` rows."""
        chosen_N = self._first(rows)
        return Sample(
            self.rows[chosen_N], self.document[chosen_N], self.block[chosen_N], self.rank[chosen_N], self.blocks
        )

    def stretches(self, part: slice, most: int, longest: int) -> list[tuple[int, int]]:
        """First and past-the-last row, within ``part``, of stretches of one document each, of ``longest`` rows at most.

        They come from the documents that are first in the random order, with about ``most`` rows together.
        """
        chosen, document = self._first(most)[part], self.document[part]
        starts = np.unique([*range(0, len(document), longest), *(np.flatnonzero(np.diff(document)) + 1)]).astype(int)
        stops = [*starts[1:], len(document)]
        return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True) if chosen[start]]

    def _first(self, rows: int) -> np.ndarray:
        """Which rows (N,) bool are in the first documents of the random order."""
        size = np.bincount(self.rank)
        return self.rank <= np.searchsorted(np.cumsum(size), rows)


@dataclass(frozen=True)
class SampleWindows:
    """Windows of the host's text that hold rows of a sample.

    Attributes:
        starts, lengths: (B,) first row and number of rows of each.
        block: (B,) the block of documents of each.
        tokens, usable: of every row of the caches, its token and whether it is used.
    """

    starts: np.ndarray
    lengths: np.ndarray
    block: np.ndarray
    tokens: np.ndarray
    usable: np.ndarray

    @classmethod
    def spread(cls, acts: ActivationSet, sample: Sample, tokens: int) -> SampleWindows:
        """Windows spread evenly over the sample, of about ``tokens`` tokens together.

        Raises ``FileError`` if no window has two tokens.
        """
        position = acts.column("position")
        edges = np.append(np.flatnonzero(position == 0), acts.rows)
        windows = np.unique(np.searchsorted(edges, sample.rows, side="right") - 1)
        block_of_row = np.zeros(acts.rows, np.int64)
        block_of_row[sample.rows] = sample.block
        lengths = np.diff(edges)[windows]
        count = max(1, min(len(windows), round(tokens / lengths.mean())))
        windows = windows[np.linspace(0, len(windows) - 1, count).round().astype(int)]
        starts, lengths = edges[windows], np.diff(edges)[windows]
        # The first usable row of a window gives its block; dropped positions have none.
        first = sample.rows[np.searchsorted(sample.rows, starts)]
        if lengths.max() < 2:
            raise FileError(
                f"{acts.caches[0].path}: no held-out window of two tokens", "Cache with a longer --context."
            )
        return cls(starts, lengths, block_of_row[first], acts.column("tokens"), acts.rows_of(TRAIN, HELD_OUT))

    def padded(self, part: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, T) of some windows, padded at the right, and which positions (B, T) hold rows that are used."""
        tokens_BT, usable_BT = (
            torch.from_numpy(padded(column, self.starts[part], self.lengths[part]))
            for column in (self.tokens, self.usable)
        )
        return tokens_BT, usable_BT
