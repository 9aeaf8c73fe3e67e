"""Intervals: bootstrap over documents, and Wilson's and Newcombe's for shares.

Legend of shapes: R resamples, K blocks (documents, or groups of neighbouring documents).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; ``low`` and ``high`` are None where none can be given.

    Attributes:
        value: the figure over the whole sample.
        low, high: ends of the interval.
        n: how many tokens, latents or edges it rests on.
        unit: "1" for ratios and shares, "bits", "nats", "latents".
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str

    def as_json(self) -> dict[str, Any]:
        """The form that ``report.json`` holds."""
        return asdict(self)


@dataclass(frozen=True)
class Draws:
    """A figure over the sample and over each bootstrap resample (R,)."""

    value: float
    resampled: np.ndarray
    n: int
    unit: str

    def estimate(self, confidence: float) -> Estimate:
        """The value with its percentile interval, shifted so that the resamples' mean lies on the value.

        Information and ratios are biased upwards in resamples, where documents repeat; the shift takes that
        out. Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 10 and 13.
        """
        if not np.isfinite(self.value):
            return Estimate(None, None, None, self.n, self.unit)
        resampled = self.resampled[np.isfinite(self.resampled)]
        if not len(resampled):
            return Estimate(self.value, None, None, self.n, self.unit)
        ends = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
        low, high = ends - (resampled.mean() - self.value)
        return Estimate(self.value, float(low), float(high), self.n, self.unit)

    def minus(self, other: Draws, confidence: float) -> Estimate:
        """The difference, paired: both figures are of the same resamples."""
        return Draws(self.value - other.value, self.resampled - other.resampled, self.n, self.unit).estimate(confidence)


@dataclass(frozen=True)
class Share:
    """How many of how many."""

    successes: int
    trials: int

    def estimate(self, confidence: float) -> Estimate:
        """The share with Wilson's interval. Source: Wilson (1927), JASA 22."""
        low, high = self._wilson(confidence)
        return Estimate(self.successes / self.trials, low, high, self.trials, "1")

    def minus(self, other: Share, confidence: float) -> Estimate:
        """The difference of two shares that are independent of each other.

        Source: Newcombe (1998), Statistics in Medicine 17, method 10 (from two Wilson intervals).
        """
        a, b = self.successes / self.trials, other.successes / other.trials
        (low_a, high_a), (low_b, high_b) = self._wilson(confidence), other._wilson(confidence)
        low = a - b - ((a - low_a) ** 2 + (high_b - b) ** 2) ** 0.5
        high = a - b + ((high_a - a) ** 2 + (b - low_b) ** 2) ** 0.5
        return Estimate(a - b, low, high, self.trials, "1")

    def _wilson(self, confidence: float) -> tuple[float, float]:
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        n, share = self.trials, self.successes / self.trials
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
        # The share lies within; with 0 or all successes it is an end, and rounding must not put it outside.
        return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


class Bootstrap:
    """Resampling of whole blocks with replacement: tokens of a document are not independent, documents nearly are.

    Args:
        blocks: K; with a single one there are no resamples, and no intervals.
        resamples: R.
        seed: of the resamples; what is measured with one object is resampled together, so differences are paired.
    """

    def __init__(self, blocks: int, resamples: int, seed: int):
        generator = np.random.default_rng(seed)
        size = resamples if blocks > 1 else 0
        self.weights_RK = generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=size).astype(float)

    def draws(self, statistic: Callable[[np.ndarray], np.ndarray], n: int, unit: str) -> Draws:
        """``statistic`` of the sample and of every resample; it maps weights of the blocks (n, K) to values (n,)."""
        blocks = self.weights_RK.shape[1]
        return Draws(float(statistic(np.ones((1, blocks)))[0]), statistic(self.weights_RK), n, unit)
