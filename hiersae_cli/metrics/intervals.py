"""Intervals and tests: bootstrap over documents, Wilson's and Newcombe's for shares, and seeds as a sample of runs.

Legend of shapes: R resamples, K blocks (documents, or groups of neighbouring documents), S seeds.

A figure of one run varies with the documents that it was measured on; a claim about a configuration also varies with
the seed. With several seeds, the variance of their mean is s^2 / S, where s is the deviation between seeds on the same
documents, plus the bootstrap variance of that mean over documents. Intervals are then by t with Satterthwaite's degrees
of freedom, not by percentiles: a bootstrap of three seeds knows nothing beyond the three.
Two seeds say almost nothing about the deviation between seeds, so these intervals and tests need three.
Source: Satterthwaite (1946), Biometrics 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

LEAST_SEEDS = 3  # that intervals and tests over seeds need


def seeds_suffice(*counts: int) -> bool:
    """Whether figures of these numbers of seeds have intervals: single runs (over documents), three or more seeds.

    A single run cannot be compared with several: nothing is known of how its other seeds would differ.
    """
    return max(counts) == 1 or min(counts) >= LEAST_SEEDS


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; ``low`` and ``high`` are None if there is no interval.

    Attributes:
        value: the figure over the whole sample.
        low, high: ends of the interval.
        n: the number of tokens, latents or edges behind it.
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
class Difference(Estimate):
    """The difference of two figures, with the p-value of a two-sided test that it is 0; None without a test."""

    p: float | None


@dataclass(frozen=True)
class Draws:
    """A figure over the sample and over each bootstrap resample (R,).

    Attributes:
        blocks: K, the number of units that were resampled.
        paired: whether documents were resampled, the same ones for all figures of a report.
    """

    value: float
    resampled: np.ndarray
    n: int
    unit: str
    blocks: int
    paired: bool = True

    def estimate(self, confidence: float) -> Estimate:
        """The value with its percentile interval, shifted so that the resamples' mean lies on the value.

        Information and ratios are biased upwards in resamples, because documents repeat; the shift removes
        that bias. Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 10 and 13.
        """
        if not np.isfinite(self.value):
            return Estimate(None, None, None, self.n, self.unit)
        resampled = self.resampled[np.isfinite(self.resampled)]
        if not len(resampled):
            return Estimate(self.value, None, None, self.n, self.unit)
        ends = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
        low, high = ends - (resampled.mean() - self.value)
        return Estimate(self.value, float(low), float(high), self.n, self.unit)

    def minus(self, other: Draws, confidence: float) -> Difference:
        """The difference, paired by resample if both are over documents, and its test.

        The test is Student's, of the difference over its bootstrap standard error with K - 1 degrees of freedom. The
        percentiles of a thousand resamples cannot resolve p-values below 1 in 500, which corrections for many
        comparisons need.
        """
        # Units of two figures have nothing in common, though their resamples begin alike.
        others = other.resampled if self.paired else np.roll(other.resampled, 1)
        draws = Draws(self.value - other.value, self.resampled - others, self.n, self.unit, self.blocks)
        p = _two_sided(draws.value, _variance(draws.resampled), draws.blocks - 1)
        return Difference(**draws.estimate(confidence).as_json(), p=p)


@dataclass(frozen=True)
class Share:
    """A number of successes among trials."""

    successes: float
    trials: float

    unit = "1"

    @property
    def value(self) -> float:
        """The share."""
        return self.successes / self.trials

    @property
    def n(self) -> int:
        """The trials, rounded."""
        return round(self.trials)

    def estimate(self, confidence: float) -> Estimate:
        """The share with Wilson's interval. Source: Wilson (1927), JASA 22."""
        low, high = proportion_confint(self.successes, self.trials, 1 - confidence, method="wilson")
        # If all successes or none, the share is an end of the interval; rounding must not put it outside.
        return Estimate(self.value, max(0.0, min(self.value, low)), min(1.0, max(self.value, high)), self.n, self.unit)

    def minus(self, other: Share, confidence: float) -> Difference:
        """The difference of two independent shares, and its score test.

        Source: Newcombe (1998), Statistics in Medicine 17, method 10 (from two Wilson intervals); the test takes the
        pooled variance, as Wilson's interval does.
        """
        sides = (self.successes, self.trials, other.successes, other.trials)
        low, high = confint_proportions_2indep(*sides, method="newcomb", compare="diff", alpha=1 - confidence)
        pooled = (self.successes + other.successes) / (self.trials + other.trials)
        variance = pooled * (1 - pooled) * (1 / self.trials + 1 / other.trials)
        value = self.value - other.value
        return Difference(value, float(low), float(high), self.n, self.unit, _two_sided(value, variance, np.inf))

    def mean_with(self, other: Share, confidence: float) -> Estimate:
        """The mean of two independent shares, such as a balanced accuracy; its interval is from two Wilson intervals.

        Source: Zou and Donner (2008), Statistics in Medicine 27 (square-and-add, as in ``minus``).
        """
        sides = self.estimate(confidence), other.estimate(confidence)
        value = (self.value + other.value) / 2
        below, above = (
            sum(((side.value or 0.0) - (end or 0.0)) ** 2 for side, end in ends) ** 0.5 / 2
            for ends in ([(side, side.low) for side in sides], [(side, side.high) for side in sides])
        )
        return Estimate(value, value - below, value + above, self.n + other.n, self.unit)


Figure = Draws | Share


class Bootstrap:
    """Resampling of whole blocks with replacement: tokens of a document are not independent, documents nearly are.

    All figures of one object are resampled together, so their differences are paired.

    Args:
        blocks: K; with a single one there are no resamples, and no intervals.
        resamples: R.
        seed: of the resamples.
    """

    def __init__(self, blocks: int, resamples: int, seed: int):
        self._resamples, self._seed = resamples, seed
        size = resamples if blocks > 1 else 0
        self.weights_RK = (
            np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=size).astype(float)
        )

    def draws(self, statistic: Callable[[np.ndarray], np.ndarray], n: int, unit: str) -> Draws:
        """``statistic`` of the sample and of every resample; it maps weights of the blocks (n, K) to values (n,)."""
        blocks = self.weights_RK.shape[1]
        return Draws(float(statistic(np.ones((1, blocks)))[0]), statistic(self.weights_RK), n, unit, blocks)

    def over_units(self, values_nU: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Draws:
        """A figure over units, such as latents or edges, instead of documents: the units are resampled.

        Args:
            values_nU: several numbers of each of U units.
            statistic: maps their sums over the units, (n, R), to values (R,).
        """
        distinct_nV, count_V = np.unique(values_nU, axis=1, return_counts=True)
        units = int(count_V.sum())
        # Units with the same numbers are interchangeable, and often only a few numbers occur.
        count_RV = np.random.default_rng(self._seed).multinomial(units, count_V / units, size=self._resamples)
        whole = statistic(values_nU.sum(1, keepdims=True))
        return Draws(float(whole[0]), statistic(distinct_nV @ count_RV.T), units, "1", units, paired=False)

    def mean_over_units(self, values_U: np.ndarray, unit: str = "1") -> Draws:
        """The mean of one number of each unit, as ``over_units``."""
        return replace(self.over_units(values_U[None], lambda sums_nR: sums_nR[0] / len(values_U)), unit=unit)

    def median_over_units(self, values_U: np.ndarray) -> Draws:
        """The median of one number of each unit, with unit "1", as ``over_units``.

        The middle one of n uniform draws has the distribution Beta((n + 1) / 2, (n + 1) / 2), so no unit is drawn.
        """
        units = len(values_U)
        middle_R = np.random.default_rng(self._seed).beta((units + 1) / 2, (units + 1) / 2, self._resamples)
        resampled = np.sort(values_U)[(units * middle_R).astype(int)]
        return Draws(float(np.median(values_U)), resampled, units, "1", units, paired=False)


def mean(figures: Sequence[Figure], confidence: float) -> Estimate:
    """The mean of one figure over seeds, (S,) figures; a single figure keeps its interval over documents.

    Two seeds have no interval.
    """
    if len(figures) == 1:
        return figures[0].estimate(confidence)
    if not seeds_suffice(len(figures)):
        value = float(np.mean([figure.value for figure in figures]))
        return Estimate(value if np.isfinite(value) else None, None, None, figures[0].n, figures[0].unit)
    estimate = _estimate(*_combined(figures), figures, confidence)
    if estimate.low is None or estimate.high is None or not isinstance(figures[0], Share):
        return estimate
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def difference(
    first: Sequence[Figure],
    other: Sequence[Figure],
    confidence: float,
    same_seeds: bool = False,
    seedless: bool = False,
) -> Difference:
    """The mean of one figure over the first seeds minus that over the others, with the p-value of no difference.

    With two seeds on a side, or one seed against several, there is neither interval nor p-value.

    Args:
        same_seeds: whether the figures at the same place have the same seed: then what they have in common through the
            seed cancels.
        seedless: whether the other is a control, a single dictionary that no seed would change.
    """
    if len(first) == len(other) == 1:
        return first[0].minus(other[0], confidence)  # type: ignore[arg-type]
    if same_seeds:
        value, documents, seeds = _combined(first, other)
    else:
        (first_value, _, first_seeds), (other_value, _, other_seeds) = _combined(first), _combined(other)
        value, documents = first_value - other_value, _variance(_mean_draws(first) - _mean_draws(other))
        seeds = (*first_seeds, *other_seeds)
    if not seeds_suffice(len(first), *([] if seedless else [len(other)])):
        known = value if np.isfinite(value) else None
        return Difference(known, None, None, first[0].n, first[0].unit, None)
    estimate = _estimate(value, documents, seeds, first, confidence)
    variance, degrees = _satterthwaite(documents, seeds, first)
    return Difference(**estimate.as_json(), p=_two_sided(value, variance, degrees))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number: with no effect at all, one is below a level as rarely as the level says.

    None stays None and does not count. Source: Holm (1979), Scandinavian Journal of Statistics 6.
    """
    known = [p for p in p_values if p is not None]
    corrected = iter(multipletests(known, method="holm")[1].tolist() if known else ())
    return [None if p is None else next(corrected) for p in p_values]


_Seeds = tuple[tuple[float, int], ...]  # for each side, the variance of its mean over seeds and its degrees of freedom


def _combined(figures: Sequence[Figure], others: Sequence[Figure] = ()) -> tuple[float, float, _Seeds]:
    """Mean over seeds, its variance over documents and between seeds; of the differences to ``others``, if given."""
    values = np.array([figure.value for figure in figures])
    draws = _mean_draws(figures)
    if others:
        values = values - [figure.value for figure in others]
        draws = draws - _mean_draws(others)
    seeds = len(values)
    between = ((float(values.var(ddof=1)) / seeds, seeds - 1),) if seeds > 1 else ()
    return float(values.mean()), _variance(draws), between


def _mean_draws(figures: Sequence[Figure]) -> np.ndarray:
    """The mean over seeds in each resample of the documents; zeros for figures that documents do not move.

    Latents and edges differ from seed to seed, so their variation is part of the variance between seeds.
    """
    draws = [figure.resampled for figure in figures if isinstance(figure, Draws) and figure.paired]
    return np.mean(draws, axis=0) if draws else np.zeros(1)


def _variance(resampled: np.ndarray) -> float:
    resampled = resampled[np.isfinite(resampled)]
    return float(resampled.var(ddof=1)) if len(resampled) > 1 else 0.0


def _satterthwaite(documents: float, seeds: _Seeds, figures: Sequence[Figure]) -> tuple[float, float]:
    """The total variance and its degrees of freedom."""
    blocks = max((figure.blocks for figure in figures if isinstance(figure, Draws) and figure.paired), default=2)
    parts = [*seeds, (documents, blocks - 1)]
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / degrees for part, degrees in parts if part > 0)
    return variance, variance**2 / spread if spread > 0 else np.inf


def _estimate(value: float, documents: float, seeds: _Seeds, figures: Sequence[Figure], confidence: float) -> Estimate:
    n, unit = figures[0].n, figures[0].unit
    if not np.isfinite(value):
        return Estimate(None, None, None, n, unit)
    variance, degrees = _satterthwaite(documents, seeds, figures)
    half = float(student.ppf((1 + confidence) / 2, degrees)) * variance**0.5
    return Estimate(value, value - half, value + half, n, unit)


def _two_sided(value: float, variance: float, degrees: float) -> float | None:
    """The p-value of a difference; None if its variance is not known, as with a single document."""
    if not np.isfinite(value):
        return None
    if variance <= 0 or degrees <= 0:
        return 1.0 if value == 0 else None
    return float(2 * student.sf(abs(value) / variance**0.5, degrees))
