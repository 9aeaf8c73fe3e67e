"""Which latents fire, with whom, and where most strongly: gathered batch by batch in bounded memory.

Legend of shapes: B rows of a batch, F latents, K firings kept for each latent, n firings of a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]

NONE = -1


class FiringCounts:
    """How often each latent fires, how strongly, and how often together with its parent.

    Args:
        parent_F: index of each latent's parent, or ``NONE``.

    Attributes:
        rows: rows counted.
        active_F: rows in which each latent fires, float64 like every sum here.
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
        """Mean activation of each latent over the rows in which it fires; NaN where it never does."""
        return np.divide(self.sum_F, self.active_F, out=np.full(len(self.sum_F), np.nan), where=self.active_F > 0)


class TopFirings:
    """The strongest firings of each latent, at most one of a window; of equal ones the earliest.

    Attributes:
        value_FK: activations, the strongest first; 0 where there are fewer.
        row_FK, window_FK: the row of each and its window; ``NONE`` where there are fewer.
    """

    def __init__(self, latents: int, kept: int):
        self.value_FK = np.zeros((latents, kept), np.float32)
        self.row_FK = np.full((latents, kept), NONE, np.int64)
        self.window_FK = np.full((latents, kept), NONE, np.int64)

    def add(self, latent_n: Array, value_n: Array, row_n: Array, window_n: Array) -> None:
        """Take in firings. Rows must not come before those of earlier calls."""
        kept = self.value_FK.shape[1]
        if kept == 0:
            return
        # After the first few batches hardly a firing passes this: the rest costs next to nothing.
        better = value_n > self.value_FK[latent_n, -1]
        if not better.any():
            return
        touched = np.unique(latent_n[better])
        latent = np.concatenate([np.repeat(touched, kept), latent_n[better]])
        value = np.concatenate([self.value_FK[touched].ravel(), value_n[better]])
        row = np.concatenate([self.row_FK[touched].ravel(), row_n[better]])
        window = np.concatenate([self.window_FK[touched].ravel(), window_n[better]])
        strongest = np.lexsort((row, -value, window, latent))
        strongest = strongest[_begins(latent[strongest], window[strongest]) & (row[strongest] != NONE)]
        order = strongest[np.lexsort((row[strongest], -value[strongest], latent[strongest]))]
        first = _begins(latent[order])
        starts = np.flatnonzero(first)
        rank = np.arange(len(order)) - starts[np.cumsum(first) - 1]
        order, rank = order[rank < kept], rank[rank < kept]
        for held, new, empty in (
            (self.value_FK, value, 0),
            (self.row_FK, row, NONE),
            (self.window_FK, window, NONE),
        ):
            held[touched] = empty
            held[latent[order], rank] = new[order]


def firings(code_BF: torch.Tensor, parent_F: torch.Tensor) -> tuple[Array, Array, Array, Array]:
    """The firings of a code: row within the batch, latent, activation, and whether the latent's parent fires too.

    ``parent_F`` is on the code's device; the answer's four arrays (n,) are NumPy's, rows ascending.
    """
    row, latent = code_BF.nonzero(as_tuple=True)
    parent = parent_F[latent]
    with_parent = (parent != NONE) & (code_BF[row, parent.clamp_min(0)] > 0)
    found = (row, latent, code_BF[row, latent].float(), with_parent)
    row_n, latent_n, value_n, with_parent_n = (tensor.cpu().numpy() for tensor in found)
    return row_n, latent_n, value_n, with_parent_n


def _begins(*columns: Array) -> Array:
    """Where sorted rows of ``columns`` differ from the row before."""
    changed = np.zeros(len(columns[0]), bool)
    changed[:1] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return changed
