"""What ``hiersae cache`` says at once about rows of giant norm, such as attention sinks."""

from __future__ import annotations

import numpy as np
import torch

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.console import Console
from hiersae_cli.formats.activations.layout import outlier_limit
from hiersae_cli.formats.activations.outliers import percent, variance_share

SINKS = 0.02  # of rows: attention sinks are fewer
_FIRST_LOOK = 2048  # rows that 'hiersae cache' looks at before it speaks


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
            f"median and hold {percent(share)} of the variance (attention sinks): {fate}"
        )
