"""Which latents fire, together with which others, and where most strongly: batch by batch, in bounded memory.

Legend of shapes: B rows of a batch, F latents, K strongest firings of each latent, or blocks of documents, n firings of
a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

from hiersae_cli.levels import NO_PARENT
from hiersae_cli.metrics.ratio import ratio

Array = np.ndarray[Any, Any]

NONE = NO_PARENT  # also in place of a row's or a token's number


class Firings:
    """The active latents of a batch of codes. Codes are sparse, so sums over firings are faster than over codes.

    Args:
        rows, latents: B and F.
        place_n: row * F + latent of each firing, ascending.
        value_n: the activations.
    """

    def __init__(self, rows: int, latents: int, place_n: Array, value_n: Array):
        self.rows, self.latents, self.place_n, self.value_n = rows, latents, place_n, value_n

    @classmethod
    def of(cls, code_BF: torch.Tensor) -> Firings:
        """The firings of a code on any device."""
        rows, latents = code_BF.shape
        flat = code_BF.detach().flatten()
        if flat.device.type == "cpu":  # NumPy searches a dense code several times faster
            place_n = np.flatnonzero(flat.numpy() > 0)
            return cls(rows, latents, place_n, flat.numpy()[place_n])
        place = (flat > 0).nonzero().squeeze(1)
        return cls(rows, latents, place.cpu().numpy(), flat[place].float().cpu().numpy())

    @classmethod
    def joined(cls, parts: Sequence[Firings]) -> Firings:
        """Batches joined in the order of their rows."""
        if len(parts) == 1:
            return parts[0]
        latents = parts[0].latents
        first = np.cumsum([0, *(part.rows for part in parts)])
        places = [part.place_n + start * latents for part, start in zip(parts, first[:-1], strict=True)]
        values = np.concatenate([part.value_n for part in parts])
        return cls(int(first[-1]), latents, np.concatenate(places), values)

    @cached_property
    def row_n(self) -> Array:
        """The row of each firing, ascending."""
        return self.place_n // self.latents

    @cached_property
    def latent_n(self) -> Array:
        """The latent of each firing."""
        return self.place_n - self.row_n * self.latents

    @cached_property
    def indicator(self) -> csr_array:
        """1 where a latent fires, (B, F) sparse float32."""
        start = np.searchsorted(self.row_n, np.arange(self.rows + 1))
        ones = np.ones(len(self.place_n), np.float32)
        return csr_array((ones, self.latent_n.astype(np.int32), start.astype(np.int32)), (self.rows, self.latents))

    def between(self, start: int, stop: int) -> Firings:
        """The firings of rows ``start`` to ``stop``, not included, with rows counted from ``start``."""
        first, last = np.searchsorted(self.place_n, (start * self.latents, stop * self.latents))
        places, values = self.place_n[first:last] - start * self.latents, self.value_n[first:last]
        return Firings(stop - start, self.latents, places, values)

    def among(self, row_m: Array, latent_m: Array) -> Array:
        """Whether latent ``latent_m`` fires in row ``row_m``, (m,) bool."""
        if not len(self.place_n):
            return np.zeros(len(row_m), bool)
        place_m = row_m * self.latents + latent_m
        index_m = np.searchsorted(self.place_n, place_m)
        return self.place_n[np.minimum(index_m, len(self.place_n) - 1)] == place_m


def add_by_block(count_KF: Array, block_n: Array, column_n: Array) -> None:
    """Add the number of each (block, column) pair to ``count_KF``, in place."""
    if len(block_n):
        low, high = int(block_n.min()), int(block_n.max()) + 1
        columns = count_KF.shape[1]
        counts = np.bincount((block_n - low) * columns + column_n, minlength=(high - low) * columns)
        count_KF[low:high] += counts.reshape(-1, columns)


class FiringCounts:
    """How often each latent fires, how strongly, and how often together with its parent.

    Args:
        parent_F: index of each latent's parent, or ``NONE``.

    Attributes:
        rows: number of rows.
        active_F: rows in which each latent fires, float64 like all sums here.
        sum_F: sum of its activations.
        both_F: rows in which its parent fires too; 0 without a parent.
    """

    def __init__(self, parent_F: Array):
        self.parent_F = parent_F
        self.rows = 0
        self.active_F, self.sum_F, self.both_F = np.zeros((3, len(parent_F)))

    def add(self, rows: int, latent_n: Array, value_n: Array, with_parent_n: Array) -> None:
        """Count the firings of a batch of ``rows``; ``with_parent_n`` marks those whose latent's parent fires too."""
        latents = len(self.parent_F)
        self.rows += rows
        self.active_F += np.bincount(latent_n, minlength=latents)
        self.sum_F += np.bincount(latent_n, value_n, minlength=latents)
        self.both_F += np.bincount(latent_n[with_parent_n], minlength=latents)

    @property
    def parent_active_F(self) -> Array:
        """Rows in which the parent of each latent fires; 0 without a parent."""
        return np.where(self.parent_F == NONE, 0.0, self.active_F[self.parent_F])

    @property
    def mean_F(self) -> Array:
        """Mean activation of each latent over the rows in which it fires; NaN if it never fires."""
        return ratio(self.sum_F, self.active_F)


class TopFirings:
    """The ``most`` strongest firings of each latent, at most one from a window; the earliest among equals.

    Attributes:
        value_FK: activations, the strongest first; 0 if there are fewer firings.
        row_FK, window_FK: the row of each and its window; ``NONE`` if there are fewer firings.
    """

    def __init__(self, latents: int, most: int):
        self.value_FK = np.zeros((latents, most), np.float32)
        self.row_FK = np.full((latents, most), NONE, np.int64)
        self.window_FK = np.full((latents, most), NONE, np.int64)

    def add(self, latent_n: Array, value_n: Array, row_n: Array, window_n: Array) -> None:
        """Add firings. Rows must not come before those of earlier calls."""
        most = self.value_FK.shape[1]
        if most == 0:
            return
        # After the first few batches hardly any firing passes this test, so a batch costs almost nothing.
        better = value_n > self.value_FK[latent_n, -1]
        if not better.any():
            return
        touched = np.unique(latent_n[better])
        latent = np.concatenate([np.repeat(touched, most), latent_n[better]])
        value = np.concatenate([self.value_FK[touched].ravel(), value_n[better]])
        row = np.concatenate([self.row_FK[touched].ravel(), row_n[better]])
        window = np.concatenate([self.window_FK[touched].ravel(), window_n[better]])
        strongest = np.lexsort((row, -value, window, latent))
        strongest = strongest[_begins(latent[strongest], window[strongest]) & (row[strongest] != NONE)]
        order = strongest[np.lexsort((row[strongest], -value[strongest], latent[strongest]))]
        first = _begins(latent[order])
        starts = np.flatnonzero(first)
        rank = np.arange(len(order)) - starts[np.cumsum(first) - 1]
        order, rank = order[rank < most], rank[rank < most]
        for column, new, empty in (
            (self.value_FK, value, 0),
            (self.row_FK, row, NONE),
            (self.window_FK, window, NONE),
        ):
            column[touched] = empty
            column[latent[order], rank] = new[order]


def firings(code_BF: torch.Tensor, parent_F: torch.Tensor) -> tuple[Array, Array, Array, Array]:
    """The firings of a code: row within the batch, latent, activation, and whether the latent's parent fires too.

    ``parent_F`` must be on the code's device. Returns four NumPy arrays (n,), with rows ascending.
    """
    row, latent = code_BF.nonzero(as_tuple=True)
    parent = parent_F[latent]
    with_parent = (parent != NONE) & (code_BF[row, parent.clamp_min(0)] > 0)
    tensors = (row, latent, code_BF[row, latent].float(), with_parent)
    row_n, latent_n, value_n, with_parent_n = (tensor.cpu().numpy() for tensor in tensors)
    return row_n, latent_n, value_n, with_parent_n


def _begins(*columns: Array) -> Array:
    """Whether each of the sorted rows of ``columns`` differs from the row before."""
    changed = np.zeros(len(columns[0]), bool)
    changed[:1] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return changed
