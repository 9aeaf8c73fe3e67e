"""The circular-shift null against a recount, and what it tells from what it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.shift_null import ShiftNull

SHIFTS = 20


def null_of(documents: list[np.ndarray], *trees: np.ndarray) -> ShiftNull:
    null = ShiftNull(trees, SHIFTS, seed=0)
    for fired in documents:
        null.add(Firings.of(torch.from_numpy(fired).float()))
    return null


def test_scores_equal_a_recount() -> None:
    generator = np.random.default_rng(0)
    documents = [generator.random((rows, 3)) < [0.3, 0.2, 0.1] for rows in (40, 1, 25, 60)]
    for fired in documents:
        fired[:, 1] |= fired[:, 0] & (generator.random(len(fired)) < 0.5)
    parent = np.array([-1, 0, 1])
    # The shifts that the seed gives, document by document; one row cannot be shifted.
    offsets = np.random.default_rng(0)
    counted = np.zeros((1 + SHIFTS, 3))
    rows, fires = 0, np.zeros(3)
    for fired in documents:
        if len(fired) > 1:
            rows, fires = rows + len(fired), fires + fired.sum(0)
            for number, offset in enumerate([0, *offsets.integers(1, len(fired), SHIFTS)]):
                shifted = np.roll(fired, -offset, axis=0)
                counted[number, 1:] += (fired[:, 1:] & shifted[:, :2]).sum(0)
    share = fires[:2] / rows
    deviation = np.maximum(counted[1:, 1:].std(0, ddof=1), np.sqrt(fires[1:] * share * (1 - share)))
    expected = (counted[0, 1:] - counted[1:, 1:].mean(0)) / np.maximum(deviation, 1)
    found = null_of(documents, parent).scores(0)
    assert np.isnan(found[0]) and found[1:] == pytest.approx(expected)
    assert found[1] > 3 > abs(found[2])


def test_independent_latents_score_like_chance() -> None:
    generator = np.random.default_rng(1)
    documents = [generator.random((300, 200)) < np.linspace(0.01, 0.3, 200) for _ in range(20)]
    parent = np.concatenate([[-1], np.arange(199)])
    scores = null_of(documents, parent).scores(0)[1:]
    assert abs(scores.mean()) < 0.2 and 0.8 < scores.std() < 1.3


def test_what_only_shares_a_document_is_no_edge() -> None:
    """Two latents that fire in the same documents, each in rows of its own choice, have information but no score."""
    generator = np.random.default_rng(2)
    documents = [(generator.random((200, 2)) < 0.3) & (number % 4 == 0) for number in range(40)]
    found = null_of(documents, np.array([-1, 0])).scores(0)[1]
    assert abs(found) < 3
    together = np.concatenate(documents)
    assert (together[:, 0] & together[:, 1]).sum() > 2 * together[:, 0].mean() * together[:, 1].sum()


def test_one_row_together_is_no_evidence() -> None:
    fired = np.zeros((1000, 3), bool)
    fired[500] = [True, True, False]
    found = null_of([fired], np.array([-1, 0, 0])).scores(0)
    assert 0 < found[1] <= 1 and np.isnan(found[2])  # and what never fires has no score


def test_several_trees_at_once() -> None:
    generator = np.random.default_rng(3)
    documents = [generator.random((50, 4)) < 0.4 for _ in range(5)]
    trees = [np.array([-1, 0, 0, 1]), np.array([1, -1, -1, 2])]
    both, alone = null_of(documents, *trees), [null_of(documents, tree) for tree in trees]
    for number in range(2):
        np.testing.assert_array_equal(both.scores(number), alone[number].scores(0))
