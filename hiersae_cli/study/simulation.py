"""Raters of known ability: to rehearse a study, to plan its size, and to test its analysis.

Legend of shapes: R raters, S matched sets, C conditions, n draws.

A rater answers right with probability  lapse x chance + (1 - lapse) x (chance + (1 - chance) x s),  where s is the
logistic function of  skill + rater + set + item + condition + rater x condition. What a matched set has in common
cancels between conditions; what is particular to an item, or to a rater's taste for a condition, does not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as student

Array = np.ndarray[Any, Any]

_DRAWS = 40_000  # of a rater and an item, for an integral over both
_EFFECTS = (-12.0, 12.0)  # logits between which an effect is looked for
_MOST_SETS = 4096


@dataclass(frozen=True)
class Raters:
    """How raters answer.

    Attributes:
        skill: logit of knowing the answer, for an average rater and item.
        effect: what a condition adds to it, by name; 0 for conditions that are not named.
        rater_sd, set_sd, item_sd, taste_sd: deviations between raters, between matched sets, between the items of a
            set, and between raters in the effect of a condition.
        lapse: share of answers that are guessed.
    """

    skill: float = 0.5
    effect: Mapping[str, float] = field(default_factory=dict)
    rater_sd: float = 0.5
    set_sd: float = 0.7
    item_sd: float = 0.7
    taste_sd: float = 0.2
    lapse: float = 0.05


def probabilities(
    raters: Raters, conditions: tuple[str, ...], chance: float, shape: tuple[int, int], seed: Any
) -> Array:
    """The probability (R, S, C) that each rater answers each item right, for ``shape`` = (R, S)."""
    random = np.random.default_rng(seed)
    number, sets = shape
    logit = raters.skill + random.normal(0, raters.rater_sd, (number, 1, 1))
    logit = logit + random.normal(0, raters.set_sd, (1, sets, 1))
    logit = logit + random.normal(0, raters.item_sd, (1, sets, len(conditions)))
    logit = logit + random.normal(0, raters.taste_sd, (number, 1, len(conditions)))
    logit = logit + np.array([raters.effect.get(name, 0.0) for name in conditions])
    return raters.lapse * chance + (1 - raters.lapse) * (chance + (1 - chance) * expit(logit))


def truth(raters: Raters, condition: str, chance: float) -> float:
    """The expected share of right answers in a condition, over raters and items, by Gauss-Hermite quadrature."""
    deviation = np.sqrt(raters.rater_sd**2 + raters.set_sd**2 + raters.item_sd**2 + raters.taste_sd**2)
    node, weight = np.polynomial.hermite_e.hermegauss(101)
    knows = (weight * expit(raters.skill + raters.effect.get(condition, 0.0) + deviation * node)).sum() / weight.sum()
    return float(raters.lapse * chance + (1 - raters.lapse) * (chance + (1 - chance) * knows))


def effect_of(raters: Raters, base: str, other: str, chance: float, difference: float) -> Raters:
    """The same raters with an effect by which ``other`` exceeds ``base`` by ``difference`` in right answers.

    Raises ``ValueError`` if no effect is large enough.
    """
    target = truth(raters, base, chance) + difference

    def with_effect(effect: float) -> Raters:
        return replace(raters, effect={**raters.effect, other: effect})

    try:
        effect = brentq(lambda effect: truth(with_effect(effect), other, chance) - target, *_EFFECTS, xtol=1e-12)
    except ValueError:
        raise ValueError(f"a difference of {difference:+.2f} is beyond what such raters can show") from None
    return with_effect(effect)


def difference_error(
    raters: Raters, pair: tuple[str, str], chance: float, number: int, sets: int, per_rater: int = 0
) -> float:
    """The standard error of the difference of two conditions with ``number`` raters and ``sets`` matched sets.

    Variance components of the cells' differences: of sets, of raters and the residual, each over its number. Every
    rater answers ``per_rater`` sets; 0 stands for all.
    """
    draws = int(_DRAWS**0.5)
    p_RSC = probabilities(raters, pair, chance, (draws, draws), 0)
    difference_RS = p_RSC[..., 0] - p_RSC[..., 1]
    of_sets, of_raters = difference_RS.mean(0).var(), difference_RS.mean(1).var()
    residual = difference_RS.var() - of_sets - of_raters + (p_RSC * (1 - p_RSC)).sum(-1).mean()
    return float(np.sqrt(of_sets / sets + of_raters / number + residual / (min(per_rater or sets, sets) * number)))


def power(error: float, difference: float, confidence: float, degrees: float) -> float:
    """The probability that a t interval around a difference with this standard error excludes 0."""
    t = student.ppf((1 + confidence) / 2, degrees)
    return float(norm.cdf(abs(difference) / error - t) + norm.cdf(-abs(difference) / error - t))


def planned_power(
    raters: Raters,
    pair: tuple[str, str],
    chance: float,
    shape: tuple[int, int],
    difference: float,
    confidence: float,
    per_rater: int = 0,
) -> float:
    """The power of a study of ``shape`` raters and matched sets; 0 if there are too few for an interval.

    ``per_rater`` is as in ``difference_error``.
    """
    if min(shape) < 2:
        return 0.0
    return power(difference_error(raters, pair, chance, *shape, per_rater), difference, confidence, min(shape) - 1)


def sets_for(
    raters: Raters,
    pair: tuple[str, str],
    chance: float,
    number: int,
    difference: float,
    confidence: float,
    least_power: float,
    per_rater: int = 0,
) -> int | None:
    """The fewest matched sets with which ``number`` raters reach a power; None if no number of sets does."""
    counts = range(2, _MOST_SETS + 1)
    place = bisect_left(
        counts,
        least_power,
        key=lambda sets: planned_power(raters, pair, chance, (number, sets), difference, confidence, per_rater),
    )
    return counts[place] if place < len(counts) else None
