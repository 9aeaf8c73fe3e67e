"""Stability of trees between seeds, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiersae_cli.metrics.stability import recurring_edges

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
