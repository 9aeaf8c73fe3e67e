"""The circular-shift null: how often would parent and child fire together if their firings were unrelated?

One of the two is shifted against the other within each document, around its end. Each keeps its rate in every document
and the order of its firings; only their coincidence becomes random. It is not a null for drift through a document: two
latents that fire at the beginning still coincide more often than by chance. Source: a surrogate from neuroscience; on
drift, Harris (2020), bioRxiv 2020.11.29.402719.

Legend of shapes: F latents, S shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hiersae_cli.metrics.firings import NONE, Firings

Array = np.ndarray[Any, Any]


class ShiftNull:
    """Counts over stretches of neighbouring rows, for several trees over one dictionary.

    Args:
        trees: for each tree, the index of every latent's parent, or ``NONE``.
        shifts: S.
        seed: of the shifts.
    """

    summed = ("rows", "fired_F", "_both")  # see ``workflows.common.sharing``

    def __init__(self, trees: Sequence[Array], shifts: int, seed: int):
        self.trees, self.shifts = trees, shifts
        latents = len(trees[0])
        self.rows = 0
        self.fired_F = np.zeros(latents)
        self._both = [np.zeros((1 + shifts, latents)) for _ in trees]
        self._generator = np.random.default_rng(seed)

    def add(self, firings: Firings) -> None:
        """Add a stretch of consecutive rows of a document. A single row cannot be shifted, so it is ignored."""
        if firings.rows < 2:
            return
        fires_BF = np.zeros(firings.rows * firings.latents, bool)
        fires_BF[firings.place_n] = True
        row_n, latent_n = firings.row_n, firings.latent_n
        self.rows += firings.rows
        self.fired_F += np.bincount(latent_n, minlength=firings.latents)
        offsets = [0, *self._offsets(firings.rows)]
        for parent_F, both_SF in zip(self.trees, self._both, strict=True):
            child_n = parent_F[latent_n] != NONE
            child_m, row_m = latent_n[child_n], row_n[child_n]
            parent_m = parent_F[child_m]
            for both_F, offset in zip(both_SF, offsets, strict=True):
                place_m = (row_m + offset) % firings.rows * firings.latents + parent_m
                both_F += np.bincount(child_m[fires_BF[place_m]], minlength=firings.latents)

    def skip(self, rows: int) -> None:
        """Leave a stretch of ``rows`` to another rank."""
        if rows >= 2:
            self._offsets(rows)

    def _offsets(self, rows: int) -> list[int]:
        offsets: list[int] = self._generator.integers(1, rows, self.shifts).tolist()
        return offsets

    def scores(self, tree: int) -> Array:
        """z of each latent with its parent, (F,): common rows above their mean over shifts, in standard deviations.

        The deviation is the largest of three: the deviation over shifts, the binomial one, and one row. The shifts of
        a rare latent often have no common rows at all, and a single row is no evidence. NaN without a parent, or if one
        of the two never fires.
        """
        parent_F, both_SF = self.trees[tree], self._both[tree]
        parent_fired_F = np.where(parent_F != NONE, self.fired_F[parent_F], 0.0)
        rate_F = parent_fired_F / max(self.rows, 1)
        deviation_F = both_SF[1:].std(0, ddof=1)
        deviation_F = np.maximum(np.maximum(deviation_F, np.sqrt(self.fired_F * rate_F * (1 - rate_F))), 1.0)
        z_F = (both_SF[0] - both_SF[1:].mean(0)) / deviation_F
        return np.where((parent_fired_F > 0) & (self.fired_F > 0), z_F, np.nan)
