"""Rows of giant norm, such as attention sinks: how much of the variance they hold.

A few such rows can hold nearly all of the variance. Then FVU describes only them, and training fits only them.
"""

from __future__ import annotations

import numpy as np

from hiersae_cli.formats.activations.activation_set import ActivationSet
from hiersae_cli.formats.activations.layout import TRAIN

LARGEST = 0.01  # the share of rows that counts as a few
MOST = 0.5  # the share of the variance at which a warning is due


def variance_share(norm_N: np.ndarray, chosen_N: np.ndarray, mean_norm: float) -> float:
    """A lower bound of the share of the variance that the chosen rows hold, computed only from norms.

    A row x lies at least | |x| - |m| | from the mean m, and the whole variance is the mean of |x|^2 minus |m|^2.

    Args:
        norm_N: norms of all rows.
        chosen_N: which of them are meant, bool.
        mean_norm: the norm of the rows' mean.
    """
    norm_N = norm_N.astype(np.float64)
    variance = float(np.square(norm_N).mean()) - mean_norm**2
    if variance <= 0:
        return 0.0
    return float(np.square(norm_N[chosen_N] - mean_norm).sum()) / (variance * len(norm_N))


def warning(acts: ActivationSet) -> str:
    """A warning if the largest 1 % of the training rows hold most of the variance; empty if not."""
    use_N = acts.rows_of(TRAIN)
    if not use_N.any():
        return ""
    norm_N = np.concatenate([cache.norms(acts.module) for cache in acts.caches])
    outliers = int((acts.outliers() & use_N).sum())
    norm_N = norm_N[use_N]
    few = max(1, int(LARGEST * len(norm_N)))
    largest_N = np.zeros(len(norm_N), bool)
    largest_N[np.argpartition(norm_N, -few)[-few:]] = True
    share = variance_share(norm_N, largest_N, float(np.linalg.norm(acts.moments()[0])))
    if share < MOST:
        return ""
    advice = f"; --drop-outliers leaves out the {outliers:,} rows whose norm is over 10 x the median"
    return (
        f"{few:,} of {len(norm_N):,} training rows hold {percent(share)} of the variance of {acts.module}, "
        f"so FVU says little about the others{advice if outliers else ''}"
    )


def percent(share: float) -> str:
    """``98.9 %``; rounded down, since it is a bound."""
    return f"{np.floor(1000 * min(share, 1.0)) / 10:g} %"
