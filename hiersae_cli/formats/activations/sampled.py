"""A sample of a cache's training rows, and the spectrum of the module's activations in it.

Legend of shapes: D width.
"""

from __future__ import annotations

import numpy as np
import torch

from hiersae_cli.formats.activations.activation_set import ActivationSet
from hiersae_cli.formats.activations.layout import TRAIN
from hiersae_cli.metrics.reconstruction import Moments
from hiersae_cli.metrics.spectrum import Spectrum

_STRETCH = 64  # neighbouring training rows that are chosen together
_READ_ROWS = 4096  # at a time
_SPECTRUM_ROWS = 50_000
_SPECTRUM_PRODUCTS = 2 * 10**10  # rows x D^2 of a covariance: about a second
_LEAST_ROWS_PER_DIMENSION = 4  # with fewer, the effective rank comes out clearly too small
_SPECTRUM_SEED = 0  # the same rows for every command


def training_rows(acts: ActivationSet, most: int, seed: int) -> np.ndarray:
    """Up to ``most`` training rows, ascending, spread over the cache; empty if all of it is held out."""
    return _spread(np.flatnonzero(acts.rows_of(TRAIN)), most, seed)


def spectrum_of(acts: ActivationSet) -> Spectrum | None:
    """The spectrum of a sample of the training rows without outliers: the same in every command.

    Outliers are left out even if the cache kept them, since a few of them would hide all other rows. The sample has
    50,000 rows at most, fewer if the module is wide. None if there are no training rows, or they do not vary or are
    not finite.
    """
    affordable = max(_LEAST_ROWS_PER_DIMENSION * acts.width, _SPECTRUM_PRODUCTS // acts.width**2)
    rows = np.flatnonzero(acts.rows_of(TRAIN) & ~acts.outliers())
    rows = _spread(rows, min(_SPECTRUM_ROWS, affordable), _SPECTRUM_SEED)
    moments = Moments(torch.from_numpy(acts.moments()[0]).float())
    for start in range(0, len(rows), _READ_ROWS):
        moments.add(acts.rows_at(rows[start : start + _READ_ROWS]).float())
    return Spectrum.of(moments)


def _spread(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Up to ``most`` of ``rows``, at random, in stretches of neighbours: rows far apart are read one by one."""
    if len(rows) <= most:
        return rows
    starts = np.arange(0, len(rows), _STRETCH)
    chosen = np.sort(np.random.default_rng(seed).choice(starts, most // _STRETCH, False))
    places = (chosen[:, None] + np.arange(_STRETCH)).ravel()
    return rows[places[places < len(rows)]]
