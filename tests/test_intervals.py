"""Intervals and tests: coverage, pairing, seeds, degenerate samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, permutation_test

from hiersae_cli.metrics.intervals import Bootstrap, Difference, Draws, Share, difference, holm, mean


def ratio_of_sums(numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> Draws:
    bootstrap = Bootstrap(len(numerator), 400, seed)
    return bootstrap.draws(lambda w: (w @ numerator) / (w @ denominator), len(numerator), "1")


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        sizes = generator.integers(5, 50, 60).astype(float)
        values = sizes * 0.3 + generator.normal(0, 1, 60) * np.sqrt(sizes)
        estimate = ratio_of_sums(values, sizes, trial).estimate(0.9)
        hits += estimate.low <= 0.3 <= estimate.high
    assert 0.85 <= hits / 400 <= 0.94


def test_bootstrap_mean_agrees_with_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(2, 1, 500)
    estimate = ratio_of_sums(values, np.ones(500)).estimate(0.95)
    half = 1.96 * values.std() / 500**0.5
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.15)


def test_a_paired_difference_is_tighter_than_its_parts() -> None:
    generator = np.random.default_rng(2)
    shared = generator.normal(0, 1, 100)
    first, second = (ratio_of_sums(shared + d + generator.normal(0, 0.01, 100), np.ones(100)) for d in (0.0, 0.05))
    difference = first.minus(second, 0.95)
    assert difference.high < 0
    assert difference.high - difference.low < 0.1 * (first.estimate(0.95).high - first.estimate(0.95).low)


def test_one_document_gives_a_value_without_an_interval() -> None:
    estimate = ratio_of_sums(np.array([3.0]), np.array([4.0])).estimate(0.95)
    assert (estimate.value, estimate.low, estimate.high) == (0.75, None, None)


def test_an_undefined_figure_is_none() -> None:
    estimate = ratio_of_sums(np.full(5, np.nan), np.ones(5)).estimate(0.95)
    assert estimate.as_json() == {"value": None, "low": None, "high": None, "n": 5, "unit": "1"}


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (15, 148, 0.0624, 0.1605)],
)
def test_wilson_against_published_values(successes: int, trials: int, low: float, high: float) -> None:
    """The last row is from Newcombe (1998), Statistics in Medicine 17, 857-872, table I."""
    estimate = Share(successes, trials).estimate(0.95)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_newcombe_against_published_values() -> None:
    """56/70 - 48/80: (0.0524, 0.3339). Source: Newcombe (1998), Statistics in Medicine 17, 873-890, table II."""
    estimate = Share(56, 70).minus(Share(48, 80), 0.95)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


@pytest.mark.parametrize("effect", [0.0, 0.03, 0.1, 0.3])
def test_p_is_that_of_a_sign_flip_test(effect: float) -> None:
    """Of differences that are sums over documents, where each document's sign can be flipped."""
    generator = np.random.default_rng(4)
    shared, own = generator.normal(0, 1, 60), generator.normal(0, 0.3, (2, 60))
    first, second = (ratio_of_sums(shared + values, np.ones(60)) for values in (own[0] + effect, own[1]))
    flipped = permutation_test(
        (own[0] + effect - own[1],), np.mean, permutation_type="samples", n_resamples=9999, rng=generator
    )
    assert first.minus(second, 0.95).p == pytest.approx(flipped.pvalue, rel=0.15, abs=0.01)


def test_without_a_difference_p_is_seldom_small() -> None:
    generator = np.random.default_rng(5)
    small = 0
    for trial in range(400):
        sizes = generator.integers(5, 50, 30).astype(float)
        sums = [sizes * 0.3 + generator.normal(0, 1, 30) * np.sqrt(sizes) for _ in range(2)]
        p = ratio_of_sums(sums[0], sizes, trial).minus(ratio_of_sums(sums[1], sizes, trial), 0.95).p
        small += p is not None and p < 0.05
    assert 0.02 <= small / 400 <= 0.09


def test_p_of_two_shares_is_that_of_the_chi_squared_test() -> None:
    expected = chi2_contingency([[56, 14], [48, 32]], correction=False).pvalue
    assert Share(56, 70).minus(Share(48, 80), 0.95).p == pytest.approx(expected)
    assert Share(0, 10).minus(Share(0, 20), 0.95).p == 1 and Share(10, 10).minus(Share(20, 20), 0.95).p == 1


def test_the_same_figures_differ_in_nothing() -> None:
    figure = ratio_of_sums(np.arange(9.0), np.ones(9))
    assert figure.minus(figure, 0.95) == Difference(0, 0, 0, 9, "1", 1)


def test_one_document_has_no_test() -> None:
    assert ratio_of_sums(np.array([3.0]), np.ones(1)).minus(ratio_of_sums(np.array([4.0]), np.ones(1)), 0.95).p is None


def test_holm_by_hand() -> None:
    """Step down: .01 x 4, then .02 x 3, then .03 x 2, which must not be below it, then .6."""
    assert holm([0.03, 0.01, None, 0.6, 0.02]) == pytest.approx([0.06, 0.04, None, 0.6, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9]) and holm([]) == []


def runs_of(generator: np.random.Generator, seeds: int, documents: np.ndarray, between: float) -> list[Draws]:
    """A figure of mean 0.3 over seeds and documents, whose values on the same documents have much in common."""
    bootstrap = Bootstrap(len(documents), 200, 0)
    made = []
    for _ in range(seeds):
        values = 0.3 + documents + generator.normal(0, between) + generator.normal(0, 0.02, len(documents))
        made.append(bootstrap.draws(lambda w, v=values: (w @ v) / w.sum(1), 1, "1"))  # type: ignore[misc]
    return made


@pytest.mark.parametrize(("between", "within"), [(0.05, 0.02), (0.01, 0.1), (0.02, 0.1)])
def test_intervals_over_seeds_cover_what_other_seeds_and_documents_would_give(between: float, within: float) -> None:
    generator = np.random.default_rng(6)
    hits = naive = 0
    for _ in range(300):
        runs = runs_of(generator, 3, generator.normal(0, within, 40), between)
        estimate, single = mean(runs, 0.95), runs[0].estimate(0.95)
        hits += estimate.low <= 0.3 <= estimate.high
        naive += single.low <= 0.3 <= single.high
    assert hits / 300 >= 0.9
    assert naive / 300 < 0.92  # the documents alone do not know how seeds differ


def test_the_difference_over_seeds_is_paired_by_seed() -> None:
    generator = np.random.default_rng(7)
    documents, bootstrap = generator.normal(0, 0.05, (2, 40)), Bootstrap(40, 200, 0)
    sides: list[list[Draws]] = [[], []]
    for _ in range(4):
        common = generator.normal(0, 0.2)
        for side, effect in zip(sides, (0.05, 0.0), strict=True):
            values = common + effect + documents[0] + generator.normal(0, 0.01, 40)
            side.append(bootstrap.draws(lambda w, v=values: (w @ v) / w.sum(1), 1, "1"))  # type: ignore[misc]
    paired, unpaired = (difference(*sides, 0.95, same_seeds=same) for same in (True, False))
    assert paired.value == pytest.approx(unpaired.value) and paired.value == pytest.approx(0.05, abs=0.01)
    assert paired.low > 0 > unpaired.low and paired.p < 0.01 < 0.3 < unpaired.p


def test_several_seeds_against_one_have_an_interval_only_if_it_is_a_control() -> None:
    """A single run has no spread between seeds to give, and a control needs none."""
    runs = runs_of(np.random.default_rng(11), 3, np.zeros(40), 0.1)
    other = runs_of(np.random.default_rng(12), 1, np.zeros(40), 0.1)
    for sides in ((runs, other), (other, runs)):
        alone = difference(*sides, 0.95)
        assert (alone.low, alone.high, alone.p) == (None, None, None)
        assert alone.value == pytest.approx(mean(sides[0], 0.95).value - mean(sides[1], 0.95).value)
    control = difference(runs, other, 0.95, seedless=True)
    assert control.low < control.value < control.high and control.p is not None


def test_two_seeds_have_no_interval_and_no_test() -> None:
    """With one degree of freedom it reached far beyond what the figure can be."""
    runs = runs_of(np.random.default_rng(9), 2, np.zeros(40), 0.1)
    estimate = mean(runs, 0.95)
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.value == pytest.approx((runs[0].value + runs[1].value) / 2)
    for others in (runs_of(np.random.default_rng(10), seeds, np.zeros(40), 0.1) for seeds in (1, 2, 3)):
        for found in (difference(runs, others, 0.95), difference(others, runs, 0.95)):
            assert (found.low, found.high, found.p) == (None, None, None) and found.value is not None


def test_shares_of_several_seeds_stay_shares() -> None:
    estimate = mean([Share(0, 50), Share(1, 50), Share(9, 50)], 0.95)
    assert estimate.value == pytest.approx(10 / 150) and estimate.low == 0 and estimate.high < 1
    assert mean([Share(5, 10)], 0.95) == Share(5, 10).estimate(0.95)


@pytest.mark.parametrize("units", [9, 200])
def test_medians_of_units_are_resampled_as_by_drawing_units(units: int) -> None:
    generator = np.random.default_rng(13)
    values = generator.normal(0, 1, units)
    draws = Bootstrap(2, 4000, 0).median_over_units(values)
    drawn = np.median(generator.choice(values, (4000, units)), axis=1)
    assert draws.value == np.median(values) and (draws.n, draws.paired) == (units, False)
    assert draws.resampled.mean() == pytest.approx(drawn.mean(), abs=0.05)
    assert draws.resampled.std() == pytest.approx(drawn.std(), rel=0.15)


def test_figures_of_units_are_resampled_over_units() -> None:
    values = np.random.default_rng(8).random(400)
    draws = Bootstrap(1, 2000, 0).over_units(values[None], lambda sums: sums[0] / 400)
    estimate = draws.estimate(0.95)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    # Two dictionaries' units are not the same, even where their numbers are.
    assert draws.minus(draws, 0.95).high == pytest.approx((2**0.5) * (estimate.high - estimate.low) / 2, rel=0.15)
