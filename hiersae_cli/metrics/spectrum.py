"""How many dimensions activations fill: the eigenvalues of their covariance, and what follows from them.

Legend of shapes: D width.

Definitions, with the eigenvalues λ_1 ≥ … ≥ λ_D and their shares p_i = λ_i / Σ λ:
    effective rank = exp(−Σ p_i log p_i), between 1 (one direction) and D (the same variance in every direction).
    Source: Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality, of the covariance;
    FVU of PCA at k = 1 − (p_1 + … + p_k): the variance that no k fixed directions can hold (see docs/metrics.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hiersae_cli.metrics.reconstruction import Moments

MOST_VARIANCE = 0.95  # the share for which dimensions are counted
GIANT_COORDINATE = 0.2  # of the variance: a coordinate with more is worth a word
_ROUNDING = 1e-9  # of a share
_LEAST_DEVIATION, _MOST_DEVIATION = 0.1, 3.0  # of the median deviation


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of activations.

    Attributes:
        rows: how many rows it was computed from.
        share_D: shares of the variance along the principal components, descending; their sum is 1.
        variance_D: the variance of each coordinate.
    """

    rows: int
    share_D: np.ndarray
    variance_D: np.ndarray

    @classmethod
    def of(cls, moments: Moments) -> Spectrum | None:
        """The spectrum of rows; None if they do not vary or are not finite."""
        if not moments.rows:
            return None
        covariance_DD = moments.covariance_DD
        variance_D = covariance_DD.diagonal().clamp_min(0).numpy()
        variance = variance_D.sum()
        if not (np.isfinite(variance) and variance > 0):
            return None
        eigenvalue_D = _eigenvalues(covariance_DD).clip(min=0)
        return cls(moments.rows, eigenvalue_D / eigenvalue_D.sum(), variance_D)

    @property
    def width(self) -> int:
        """Width D of the activations."""
        return len(self.share_D)

    @property
    def largest_coordinate(self) -> float:
        """The largest share of the variance that lies in a single coordinate."""
        return float(self.variance_D.max() / self.variance_D.sum())

    @property
    def effective_rank(self) -> float:
        """Exponential of the entropy of the shares of the variance: between 1 and D."""
        share_d = self.share_D[self.share_D > 0]
        return float(np.exp(-(share_d * np.log(share_d)).sum()))

    def dimensions_of(self, share: float) -> int:
        """The least number of principal components that hold ``share`` of the variance."""
        return int(np.searchsorted(self._cumulative(), share - _ROUNDING))

    def pca_fvu(self, k: float) -> float:
        """The share of the variance beyond the first ``k`` principal components; linear between whole numbers."""
        held = float(np.interp(k, np.arange(self.width + 1), self._cumulative()))
        return min(max(1 - held, 0.0), 1.0)

    def relative_scale(self, normalise: str) -> np.ndarray:
        """The factors (D,) of the coordinates before training; they leave the sum of the variances as it is.

        ``coordinates`` gives every coordinate the same variance; one that hardly varies counts as a tenth of the median
        one, so that its noise is not blown up. ``capped`` only scales down standard deviations above three times the
        median. ``overall`` changes nothing.
        """
        deviation_D = np.sqrt(self.variance_D)
        usual = np.median(deviation_D)
        cap = _MOST_DEVIATION * usual or np.inf  # no cap if most coordinates do not vary
        factor_D = {
            "coordinates": 1 / np.maximum(deviation_D, max(_LEAST_DEVIATION * usual, 1e-30)),
            "capped": 1 / np.maximum(deviation_D / cap, 1),
            "overall": np.ones_like(deviation_D),
        }[normalise]
        relative_D: np.ndarray = factor_D * np.sqrt(self.variance_D.sum() / (self.variance_D * factor_D**2).sum())
        return relative_D

    def as_json(self) -> dict[str, Any]:
        """The figures as the report and ``hiersae info --json`` hold them."""
        return {
            "rows": self.rows,
            "width": self.width,
            "effective_rank": self.effective_rank,
            "dimensions_95": self.dimensions_of(MOST_VARIANCE),
            "largest_coordinate": self.largest_coordinate,
        }

    def _cumulative(self) -> np.ndarray:
        """Shares of the first 0, 1, … D components together, (D + 1,)."""
        return np.append(0.0, self.share_D.cumsum())


def in_words(figures: Mapping[str, Any]) -> str:
    """``as_json`` in words: the effective rank, a giant coordinate if there is one, and the dimensions."""
    dimensions = figures["dimensions_95"]
    held = f"{dimensions:,} dimensions hold" if dimensions > 1 else "1 dimension holds"
    return f"{rank_in_words(figures)}; {held} {MOST_VARIANCE:.0%} of the variance"


def rank_in_words(figures: Mapping[str, Any]) -> str:
    """``effective rank 12.7 of 768, one coordinate holds 61% of the variance``; a smaller share is not worth a word."""
    rank, giant = figures["effective_rank"], figures["largest_coordinate"]
    words = f"effective rank {f'{rank:.3g}' if rank < 100 else f'{rank:,.0f}'} of {figures['width']:,}"
    return f"{words}, one coordinate holds {giant:.0%} of the variance" if giant > GIANT_COORDINATE else words


def _eigenvalues(covariance_DD: torch.Tensor) -> np.ndarray:
    """Eigenvalues, descending. On one thread: if other programs are busy, threads wait for each other for seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.linalg.eigvalsh(covariance_DD).flip(0).numpy()
    finally:
        torch.set_num_threads(threads)
