"""Agreement of raters, and means of cells that vary with raters and with items.

Legend of shapes: R raters, U units that are rated, S matched sets, V values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

Array = np.ndarray[Any, Any]


def krippendorff_alpha(value_RU: Array) -> float:
    """Krippendorff's alpha of nominal values: 1 - observed over expected disagreement; NaN if it is undefined.

    Units with fewer than two values do not count. It is undefined without units, or if all values are the same:
    agreement and habit then look alike. Source: Krippendorff (2004), Content Analysis, ch. 11.

    Args:
        value_RU: whole numbers; negative if a rater gave no value.
    """
    count_UV = _counts(value_RU)
    return float(_alpha(count_UV, np.ones((1, len(count_UV))))[0])


def alpha_resampled(value_RU: Array, resamples: int, seed: int) -> Array:
    """Alpha in resamples of the units, (resamples,): NaN if it is undefined."""
    units = value_RU.shape[1]
    if not units:
        return np.full(resamples, np.nan)
    count_UV = _counts(value_RU)
    weight_nU = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    return _alpha(count_UV, weight_nU.astype(float))


def _counts(value_RU: Array) -> Array:
    """How many raters gave each value to each unit, (U, V)."""
    values = np.unique(value_RU[value_RU >= 0])
    return (value_RU[:, :, None] == values).sum(0).astype(float)


def _alpha(count_UV: Array, weight_nU: Array) -> Array:
    """Alpha under weights of the units, (n,)."""
    total_U = count_UV.sum(1)
    pairable = total_U >= 2
    count_UV, total_U, weight_nU = count_UV[pairable], total_U[pairable], weight_nU[:, pairable]
    disagree_U = (total_U**2 - (count_UV**2).sum(1)) / (total_U - 1)
    n = weight_nU @ total_U
    margin_nV = weight_nU @ count_UV
    observed, expected = weight_nU @ disagree_U, n**2 - (margin_nV**2).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha: Array = np.where(expected > 0, 1 - (n - 1) * observed / expected, np.nan)
    return alpha


@dataclass(frozen=True)
class Crossed:
    """A mean over raters and sets with its interval.

    Attributes:
        value, low, high: the mean and the ends; NaN without cells, or with too few for an interval.
        p: of a two-sided test that the mean is 0.
        n: number of cells.
        error: the standard error.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    error: float


def crossed_mean(value_RS: Array, confidence: float, resamples: int, seed: int) -> Crossed:
    """The mean of cells that vary with raters and with sets, by a cluster bootstrap over both.

    Resampling both at once would count the variation of single cells three times. So raters and sets are resampled
    separately, their variances are added, and the variance of resampled cells, which both contain, is subtracted once.
    Student's t with Satterthwaite's degrees of freedom gives the ends.
    Sources: Cameron, Gelbach and Miller (2011), J. Bus. Econ. Stat. 29; Owen (2007), Ann. Appl. Stat. 1.

    Args:
        value_RS: NaN if a rater has not answered.
    """
    present_RS = np.isfinite(value_RS)
    value_RS, present_RS = value_RS[present_RS.any(1)], present_RS[present_RS.any(1)]
    value_RS, present_RS = value_RS[:, present_RS.any(0)], present_RS[:, present_RS.any(0)]
    n = int(present_RS.sum())
    if not n:
        return Crossed(*(float("nan"),) * 4, 0, float("nan"))
    filled_RS = np.where(present_RS, value_RS, 0.0)
    mean = float(filled_RS.sum() / n)
    raters, sets = value_RS.shape
    if raters < 2 or sets < 2:
        return Crossed(mean, float("nan"), float("nan"), float("nan"), n, float("nan"))
    draw = np.random.default_rng(seed)
    of_raters = _cluster_variance(filled_RS.sum(1), present_RS.sum(1), draw, resamples)
    of_sets = _cluster_variance(filled_RS.sum(0), present_RS.sum(0), draw, resamples)
    of_cells = float((np.where(present_RS, value_RS - mean, 0.0) ** 2).sum()) / (n * (n - 1))
    # If raters or sets have no effect, the sum may by chance fall below the variance of the other.
    variance = max(of_raters + of_sets - of_cells, of_raters, of_sets)
    if variance <= 0:  # all cells are the same: a bootstrap cannot say how far the truth is
        return Crossed(mean, float("nan"), float("nan"), 1.0 if mean == 0 else float("nan"), n, 0.0)
    spread = of_raters**2 / (raters - 1) + of_sets**2 / (sets - 1)
    degrees = min(max(variance**2 / spread, min(raters, sets) - 1), raters + sets - 2)
    error = variance**0.5
    half = float(student.ppf((1 + confidence) / 2, degrees)) * error
    return Crossed(mean, mean - half, mean + half, float(2 * student.sf(abs(mean) / error, degrees)), n, error)


def _cluster_variance(sum_K: Array, count_K: Array, draw: np.random.Generator, resamples: int) -> float:
    """The variance of a mean under resampling of K clusters, corrected for their number."""
    clusters = len(sum_K)
    weight_nK = draw.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    means = (weight_nK @ sum_K) / np.maximum(weight_nK @ count_K, 1)
    return float(means.var()) * clusters / (clusters - 1)
