"""Rows of giant norm, such as attention sinks: how much of the variance they hold, and what to say about them.

A few such rows can hold nearly all of the variance. FVU then describes them alone, and training fits them alone.
"""

from __future__ import annotations

import numpy as np
import torch

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.console import Console
from hiersae_cli.formats.activations import TRAIN, ActivationSet
from hiersae_cli.formats.activations.layout import outlier_limit

LARGEST = 0.01  # the share of rows that counts as a few
MOST = 0.5  # the share of the variance from which on a warning is due
SINKS = 0.02  # of rows: attention sinks are fewer
_FIRST_LOOK = 2048  # rows that 'hiersae cache' looks at before it speaks


def variance_share(norm_N: np.ndarray, chosen_N: np.ndarray, mean_norm: float) -> float:
    """A lower bound of the share of the variance that the chosen rows hold, from norms alone.

    A row x lies at least | |x| - |m| | from the mean m, and the whole variance is the mean of |x|^2 minus |m|^2.

    Args:
        norm_N: norms of all rows.
        chosen_N: which of them are asked about, bool.
        mean_norm: the norm of the rows' mean.
    """
    norm_N = norm_N.astype(np.float64)
    variance = float(np.square(norm_N).mean()) - mean_norm**2
    if variance <= 0:
        return 0.0
    return float(np.square(norm_N[chosen_N] - mean_norm).sum()) / (variance * len(norm_N))


def warning(acts: ActivationSet) -> str:
    """Says so where the largest 1 % of the training rows hold most of the variance; empty elsewhere."""
    use_N = acts.rows_of(TRAIN)
    if not use_N.any():
        return ""
    norm_N = np.concatenate([cache.norms(acts.module) for cache in acts.caches])
    outliers = int((np.concatenate([cache.outliers(acts.module) for cache in acts.caches]) & use_N).sum())
    norm_N = norm_N[use_N]
    few = max(1, int(LARGEST * len(norm_N)))
    largest_N = np.zeros(len(norm_N), bool)
    largest_N[np.argpartition(norm_N, -few)[-few:]] = True
    share = variance_share(norm_N, largest_N, float(np.linalg.norm(acts.moments()[0])))
    if share < MOST:
        return ""
    advice = f"; --drop-outliers leaves out the {outliers:,} rows whose norm is over 10 x the median"
    return (
        f"{few:,} of {len(norm_N):,} training rows hold {_percent(share)} of the variance of {acts.module}, "
        f"so FVU says little about the others{advice if outliers else ''}"
    )


class FirstLook:
    """Looks at the first rows that 'hiersae cache' computes, and says at once what outliers it finds in them."""

    def __init__(self, console: Console, config: CacheConfig):
        self._console, self._config = console, config
        self._rows: dict[str, list[torch.Tensor]] = {}
        self._position: list[np.ndarray] = []
        self._room = _FIRST_LOOK

    def add(self, rows: dict[str, torch.Tensor], position_N: np.ndarray) -> None:
        """Take in a batch's rows (N, d) by module, with their positions; speaks once there are enough."""
        if not self._room:
            return
        for path, x in rows.items():
            self._rows.setdefault(path, []).append(x[: self._room])
        self._position.append(position_N[: self._room])
        self._room -= len(self._position[-1])
        if not self._room:
            self.close()

    def close(self) -> None:
        """Speak, if that has not been done, and let the rows go."""
        for path, batches in self._rows.items():
            self._say(path, torch.cat(batches).float(), np.concatenate(self._position))
        self._rows.clear()
        self._room = 0

    def _say(self, path: str, x_ND: torch.Tensor, position_N: np.ndarray) -> None:
        use_N = position_N >= self._config.drop_positions
        x_ND, position_N = x_ND[torch.from_numpy(use_N).to(x_ND.device)], position_N[use_N]
        norm_N = x_ND.norm(dim=1).cpu().numpy()
        outlier_N = norm_N > outlier_limit(float(np.median(norm_N)))
        if not outlier_N.any():
            return
        share = variance_share(norm_N, outlier_N, float(x_ND.double().mean(0).norm()))
        places = ", all at the start of a window," if not position_N[outlier_N].any() else ""
        fate = (
            "left out (--keep-outliers keeps them)"
            if self._config.drop_outliers
            else "kept, as asked; FVU will describe them"
        )
        self._console.say(
            f"{path}: {int(outlier_N.sum()):,} of the first {len(norm_N):,} rows{places} have norms over 10 x the "
            f"median and hold {_percent(share)} of the variance (attention sinks): {fate}"
        )


def _percent(share: float) -> str:
    """``98.9 %``; a bound, so rounded down."""
    return f"{np.floor(1000 * min(share, 1.0)) / 10:g} %"
