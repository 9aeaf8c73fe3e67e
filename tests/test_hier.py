"""What is particular to the hierarchical model: its tree, its prices, its curriculum."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.config.train import parse_curriculum
from hiersae_cli.errors import UsageError
from hiersae_cli.sae.curriculum import Curriculum
from hiersae_cli.sae.hier import BASE_PRICE, HierarchicalSAE
from hiersae_cli.sae.tree import NO_PARENT, CoActivation, mutual_information


def firings(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three parents and four children: two within a parent, one independent of all, one that never fires."""
    generator = torch.Generator().manual_seed(seed)
    parents = torch.rand(rows, 3, generator=generator) < torch.tensor([0.3, 0.2, 0.6])
    own = torch.rand(rows, 4, generator=generator)
    children = torch.stack(
        [parents[:, 0] & (own[:, 0] < 0.5), parents[:, 1] & (own[:, 1] < 0.5), own[:, 2] < 0.1, own[:, 3] < 0], dim=1
    )
    return parents, children


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_sparse_counts_equal_the_dense_product(rows: int, parents: int, children: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parent = torch.rand(rows, parents, generator=generator) < 0.4
    child = torch.rand(rows, children, generator=generator) < 0.3
    counts = CoActivation(parents, children)
    counts.add(parent, child)
    assert torch.equal(counts.both_FP, child.float().T @ parent.float())
    assert torch.equal(counts.parent_P, parent.float().sum(0))
    assert torch.equal(counts.child_F, child.float().sum(0))
    assert counts.rows == rows


def test_best_parents_finds_containment_and_leaves_strangers_alone() -> None:
    counts = CoActivation(3, 4)
    counts.add(*firings(4000))
    best = counts.best_parents()
    assert best[:2].tolist() == [0, 1]
    assert best[3] == NO_PARENT


def test_an_independent_child_gets_no_information_on_average() -> None:
    """Miller-Madow takes out the plug-in's bias: over many samples the mean is near zero, the plug-in's is not."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200, 20_000, generator=generator) < 0.3 for _ in range(2))
    both, child, parent = (firing.sum(0).double() for firing in (a & b, a, b))
    corrected = mutual_information(both, child, parent, 200.0)
    plug_in = corrected + 1 / (2 * 200 * math.log(2))  # all cells are occupied at these rates
    assert corrected.mean().abs() < 0.05 * plug_in.mean()


def test_prices_follow_the_parent() -> None:
    """With the tree in force a child is cheap where its parent fires, and dear where not."""
    model = HierarchicalSAE(6, (3, 4), (1, 1), tree_weight=1.0, tree_every=1)
    model.counts.add(*firings(4000))
    model.after_step(0, progress=1.0)
    assert model.parent_F[:2].tolist() == [0, 1]
    assert (model.price_on_F[:2] < 1.5).all()
    assert (model.price_off_F[:2] > 9).all()
    assert model.price_on_F[3] == model.price_off_F[3]


def test_without_a_tree_every_price_is_the_same() -> None:
    model = HierarchicalSAE(6, (3, 4), (1, 1), tree_weight=0.0, tree_every=1)
    model.counts.add(*firings(4000))
    model.after_step(0, progress=1.0)
    for price in (model.price_on_F, model.price_off_F, model.price_P):
        assert (price == BASE_PRICE).all()


def test_fine_latents_read_what_the_coarse_ones_leave() -> None:
    torch.manual_seed(0)
    model = HierarchicalSAE(6, (3, 4), (1, 1)).eval()
    model.initialise(torch.zeros(6), 0)
    x = torch.randn(50, 6)
    code = model.encode(x)
    residual = x - model.decode_coarse(code[:, :3])
    expected = torch.relu(residual @ model.W_enc_FD[3:].T)
    assert torch.allclose(code[:, 3:], expected)


def test_curriculum_goes_through_its_phases_in_order() -> None:
    curriculum = Curriculum(lead=0.1, ramp=0.2, anneal=0.4)
    phases = [curriculum.at(step / 1000) for step in range(1001)]
    names = list(dict.fromkeys(phase.name for phase in phases))
    assert names == ["lead", "ramp", "anneal", "joint"]
    for earlier, later in pairwise(phases):
        assert later.fine >= earlier.fine
        assert later.tree >= earlier.tree
    assert (phases[0].fine, phases[0].tree) == (0.0, 0.0)
    assert (phases[-1].fine, phases[-1].tree) == (1.0, 1.0)


def test_no_curriculum_is_joint_from_the_start() -> None:
    assert Curriculum(**parse_curriculum("none")).at(0.0).name == "joint"


@pytest.mark.parametrize("text", ["lead", "lead=x", "lead=.7,ramp=.7", "lead=-.1", "foo=.1", ""])
def test_a_wrong_curriculum_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="curriculum"):
        parse_curriculum(text)


def test_the_lead_phase_trains_coarse_latents_alone() -> None:
    model = HierarchicalSAE(6, (3, 4), (1, 2), curriculum=Curriculum(lead=0.5, ramp=0.5)).train()
    model.initialise(torch.zeros(6), 0)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert (model.step(x, 0.1).code_BF[:, 3:] == 0).all()
    assert (model.step(x, 0.9).code_BF[:, 3:] > 0).any()
