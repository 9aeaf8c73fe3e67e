"""Intervals: coverage, pairing, degenerate samples."""

from __future__ import annotations

import numpy as np
import pytest

from hiersae_cli.metrics.intervals import Bootstrap, Draws, Share


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
