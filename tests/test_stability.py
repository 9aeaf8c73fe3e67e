"""Stability of trees between seeds, by hand and against a full assignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiersae_cli.metrics import stability
from hiersae_cli.metrics.intervals import Share
from hiersae_cli.metrics.recovery import match_features
from hiersae_cli.metrics.stability import mean_over_pairs, recurring_edges, same_latents, shared_edges, shared_latents

PARENTS = np.array([-1, 0, 0, -1, 3, 3])  # two trees of two children


def test_the_same_tree_in_another_order_recurs_whole() -> None:
    order = np.array([4, 2, 0, 5, 1, 3])
    place = np.argsort(order)
    other = np.where(PARENTS[order] < 0, -1, place[PARENTS[order]])
    assert recurring_edges(torch.eye(6), PARENTS, torch.eye(6)[order], other) == 1


def test_an_edge_recurs_where_both_trees_have_it_in_one_direction() -> None:
    other = np.array([-1, 0, -1, -1, 3, 4])  # 0 -> 1 and 3 -> 4 of the four, and 4 -> 5 instead of 3 -> 5
    assert recurring_edges(torch.eye(6), PARENTS, torch.eye(6), other) == pytest.approx(2 * 2 / (4 + 3))
    assert recurring_edges(torch.eye(6), other, torch.eye(6), PARENTS) == pytest.approx(2 * 2 / (4 + 3))
    turned = np.array([1, -1, -1, 4, -1, -1])
    assert recurring_edges(torch.eye(6), PARENTS, torch.eye(6), turned) == 0


def test_latents_that_differ_have_no_edge_in_common() -> None:
    oblique = torch.eye(6) + 1.2 * torch.roll(torch.eye(6), 1, dims=1)  # cosine 0.64 and 0.77 with two of them
    assert recurring_edges(torch.eye(6), PARENTS, oblique, PARENTS, cosine=0.8) == 0
    assert recurring_edges(torch.eye(6), np.full(6, -1), torch.eye(6), PARENTS) == 0


@pytest.mark.parametrize("cells", [1, 300, 1 << 24])
def test_the_same_latents_are_those_of_the_best_assignment(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no latent is torn between a partner that is alike and one that is not, the full matching agrees."""
    monkeypatch.setattr(stability, "_CELLS", cells)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 16, generator=generator)
    others = torch.cat([rows[torch.randperm(40, generator=generator)][:30], torch.randn(20, 16, generator=generator)])
    others = others * torch.randn(50, 1, generator=generator).sign() + 0.3 * torch.randn(50, 16, generator=generator)
    full = match_features(rows, others)
    assert same_latents(rows, others).tolist() == np.where(full.cosine_F >= 0.7, full.matched_F, -1).tolist()
    assert shared_latents(same_latents(rows, others), 50).value == (full.cosine_F >= 0.7).sum() / 45


def test_of_several_that_are_alike_the_best_pairs_count() -> None:
    rows = torch.tensor([[1.0, 0], [0.9, 0.436]])  # both are like both others, and each has one it is
    assert same_latents(rows, rows[[1, 0]]).tolist() == [1, 0]
    assert same_latents(rows, rows[:1]).tolist() == [0, -1]  # one to one
    assert same_latents(torch.zeros(2, 2), rows).tolist() == [-1, -1]


def test_shares_over_pairs_of_seeds() -> None:
    one = Share(3, 12)
    assert mean_over_pairs({(0, 1): one}, 0.95) == one.estimate(0.95)
    pairs = {(0, 1): Share(2, 10), (0, 2): Share(3, 10), (1, 2): Share(7, 10)}
    found = mean_over_pairs(pairs, 0.95)
    # Leaving a seed out leaves one pair: the pseudo-values are 3 x 0.4 - 2 x that pair's share.
    pseudo = 3 * 0.4 - 2 * np.array([0.7, 0.3, 0.2])
    half = 4.3027 * pseudo.std(ddof=1) / 3**0.5
    assert found.value == pytest.approx(0.4) and found.low == 0
    assert found.high == pytest.approx(min(1, 0.4 + half), abs=1e-3)
    alike = mean_over_pairs(dict.fromkeys(pairs, Share(4, 10)), 0.95)
    assert (alike.low, alike.value, alike.high) == pytest.approx((0.4, 0.4, 0.4))


def test_shuffled_parents_hardly_recur() -> None:
    generator = np.random.default_rng(0)
    parents = np.concatenate([np.full(20, -1), generator.integers(0, 20, 400)])
    shuffled = np.concatenate([parents[:20], generator.permutation(parents[20:])])
    same = np.arange(420)
    assert shared_edges(same, parents, parents).value == 1
    assert shared_edges(same, parents, shuffled).value < 0.15
    assert shared_edges(np.full(420, -1), parents, parents) == Share(0, 400)
