"""The hierarchical model: its tree, its prices, its curriculum."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.config.architectures import HierOptions
from hiersae_cli.config.curriculum import Curriculum
from hiersae_cli.errors import UsageError
from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.base import StepContext, geometric_median
from hiersae_cli.sae.hier import BASE_PRICE, HierarchicalSAE
from hiersae_cli.sae.kernels.sparse import Pattern
from hiersae_cli.sae.tree import CoActivation, mutual_information


def firings(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three parents and four children: two within a parent, one independent, one that never fires."""
    generator = torch.Generator().manual_seed(seed)
    parents = torch.rand(rows, 3, generator=generator) < torch.tensor([0.3, 0.2, 0.6])
    u = torch.rand(rows, 4, generator=generator)
    children = torch.stack(
        [parents[:, 0] & (u[:, 0] < 0.5), parents[:, 1] & (u[:, 1] < 0.5), u[:, 2] < 0.1, u[:, 3] < 0],
        dim=1,
    )
    return parents, children


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_sparse_counts_equal_the_dense_product(rows: int, parents: int, children: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parent = torch.rand(rows, parents, generator=generator) < 0.4
    child = torch.rand(rows, children, generator=generator) < 0.3
    counts = CoActivation(parents, children)
    counts.add(Pattern.of(parent), Pattern.of(child))
    assert torch.equal(counts.both_FP, child.float().T @ parent.float())
    assert torch.equal(counts.parent_P, parent.float().sum(0))
    assert torch.equal(counts.child_F, child.float().sum(0))
    assert counts.rows == rows


def test_best_parents_finds_containment_and_gives_unrelated_latents_no_parent() -> None:
    counts = CoActivation(3, 4)
    counts.add(*map(Pattern.of, firings(4000)))
    best = counts.best_parents()
    assert best[:2].tolist() == [0, 1]
    assert best[3] == NO_PARENT


def test_an_independent_child_gets_no_information_on_average() -> None:
    """Miller-Madow removes the bias of the plug-in estimate: the mean over many samples is near zero only with it."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(200, 20_000, generator=generator) < 0.3 for _ in range(2))
    both, child, parent = (firing.sum(0).double() for firing in (a & b, a, b))
    corrected = mutual_information(both, child, parent, 200.0)
    plug_in = corrected + 1 / (2 * 200 * math.log(2))  # all cells are occupied at these rates
    assert corrected.mean().abs() < 0.05 * plug_in.mean()


def test_a_parent_must_contain_its_child_beyond_chance() -> None:
    counts = CoActivation(3, 4)
    counts.add(*map(Pattern.of, firings(4000)))
    assert counts.best_parents(least_containment=0.1).tolist() == [0, 1, NO_PARENT, NO_PARENT]
    assert counts.best_parents(least_containment=1.0).tolist() == [NO_PARENT] * 4


def test_a_latent_that_nearly_always_fires_is_no_parent() -> None:
    """A latent with a rate of .996 contains every other by chance, with a lift of at most 1.004."""
    generator = torch.Generator().manual_seed(0)
    sink = torch.rand(20_000, generator=generator) < 0.996
    half = torch.rand(20_000, generator=generator) < 0.5
    fires = torch.rand(20_000, 4, generator=generator) < torch.tensor([0.1, 0.2, 0.3, 0.5])
    counts = CoActivation(2, 4)
    counts.add(Pattern.of(torch.stack([sink, half], 1)), Pattern.of(fires & torch.stack([sink] * 3 + [half], 1)))
    assert (counts.containment()[:3, 0] > 0.99).all()  # so --least-containment does not exclude it
    assert counts.best_parents(least_containment=0.1).tolist() == [NO_PARENT] * 3 + [1]


def test_prices_follow_the_parent() -> None:
    """With a tree a child is cheap if its parent fires, and costly if not."""
    model = HierarchicalSAE(6, HierOptions(widths=(3, 4), k=(1, 1), tree_weight=1.0, tree_every=1))
    model.counts[0].add(*map(Pattern.of, firings(4000)))
    model.after_step(StepContext(0, 1.0))
    assert model.parent_F.tolist() == [NO_PARENT] * 3 + [0, 1, NO_PARENT, NO_PARENT]
    assert (model.price_on_F[3:5] < 1.5).all()
    assert (model.price_off_F[3:5] > 9).all()
    orphan = model.parent_F == NO_PARENT
    assert torch.equal(model.price_on_F[orphan], model.price_off_F[orphan])


def test_orphans_and_root_children_cost_more() -> None:
    prices = []
    for weights in ({"orphan_weight": 1.0, "root_weight": 1.0}, {"orphan_weight": 3.0, "root_weight": 2.0}):
        model = HierarchicalSAE(6, HierOptions(widths=(3, 4), k=(1, 1), tree_weight=1.0, tree_every=1, **weights))
        model.counts[0].add(*map(Pattern.of, firings(4000)))
        model.after_step(StepContext(0, 1.0))
        prices.append((model.price_on_F.clone(), model.price_off_F.clone()))
    assert model.parent_F.tolist() == [NO_PARENT] * 3 + [0, 1, NO_PARENT, NO_PARENT]
    assert torch.equal(prices[1][0], prices[0][0] * torch.tensor([1, 1, 1, 1, 1, 2, 2]))
    assert torch.equal(prices[1][1], prices[0][1] * torch.tensor([1, 1, 1, 3, 3, 2, 2]))


def test_a_latent_that_fires_too_often_is_no_parent() -> None:
    """At the limit a child gets the parent that tells less about it."""
    row = torch.arange(4000)
    above, child = torch.stack([row < 2000, row < 1000, (row >= 100) & (row < 1000)], 1), (row < 400)[:, None]
    chosen = []
    for limit in (0.0, 2.0, 1.0):
        # The mean rate of the level is 0.24, that of its latents 0.5, 0.25 and 0.225.
        model = HierarchicalSAE(6, HierOptions(widths=(3, 1), k=(0.72, 1), tree_every=1, rate_limit=limit))
        model.counts[0].add(Pattern.of(above), Pattern.of(child))
        model.after_step(StepContext(0, 1.0))
        chosen.append(int(model.parent_F[3]))
    assert chosen == [1, 1, 2]


def family_of_two(weight: float) -> HierarchicalSAE:
    """Parents 0 and 1 on the first two axes; children 2 and 3 of parent 0 on the next two, child 4 of parent 1."""
    options = HierOptions(widths=(2, 3), k=(1, 2), sibling_weight=weight, curriculum="none")
    model = HierarchicalSAE(5, options).eval()
    with torch.no_grad():
        model.W_enc_FD.copy_(torch.eye(5))
        model.W_dec_FD.copy_(torch.eye(5))
        model.parent_F.copy_(torch.tensor([NO_PARENT, NO_PARENT, 0, 0, 1]))
        model.price_on_F.fill_(1.0)
        model.price_off_F.fill_(1.0)
        model.threshold_L.fill_(1.0)
    return model


def test_a_child_costs_more_if_a_stronger_sibling_fires() -> None:
    # z of the children: a weak sibling, a strong one, a lone weak one, two equal ones, and a child of another parent.
    z_BC = torch.tensor([[1.2, 2.0, 0.0], [3.0, 2.0, 0.0], [1.2, 0.0, 0.0], [1.2, 1.2, 0.0], [2.0, 0.0, 1.2]])
    x_BD = torch.cat([torch.ones(5, 2) * 2, z_BC], 1)
    assert torch.equal(family_of_two(1.0).encode(x_BD)[:, 2:], z_BC)
    expected_BC = z_BC.clone()
    expected_BC[0, 0] = 0  # 1.2^2 / 2 < 1, but 2.0^2 / 2 >= 1
    assert torch.equal(family_of_two(2.0).encode(x_BD)[:, 2:], expected_BC)


def test_the_price_of_siblings_fades_in_with_the_tree() -> None:
    options = HierOptions(widths=(2, 3), k=(1, 2), sibling_weight=3.0, curriculum="anneal=0.5")
    model = HierarchicalSAE(5, options).train()
    model.parent_F[2:4] = 0
    pattern = Pattern.of(torch.tensor([[0, 0, 1.0, 1.0, 0]]))
    factors = []
    for progress in (0.0, 0.25, 0.5):
        model.step(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), StepContext(0, progress))
        model.parent_F[2:4] = 0
        factors.append(torch.as_tensor(model._sibling_factor(pattern, torch.tensor([2.0, 1.0]))).max().item())
    assert factors == pytest.approx([1.0, 2.0, 3.0])


def test_without_a_tree_every_price_is_the_same() -> None:
    model = HierarchicalSAE(6, HierOptions(widths=(3, 4), k=(1, 1), tree_weight=0.0, orphan_weight=1.0, tree_every=1))
    model.counts[0].add(*map(Pattern.of, firings(4000)))
    model.after_step(StepContext(0, 1.0))
    for price in (model.price_on_F, model.price_off_F):
        assert (price == BASE_PRICE).all()


def test_each_level_reads_the_residual_of_the_levels_before() -> None:
    torch.manual_seed(0)
    model = HierarchicalSAE(6, HierOptions(widths=(3, 4, 5), k=(1, 1, 1))).eval()
    model.initialise(torch.zeros(6), 0)
    x = torch.randn(50, 6)
    code = model.encode(x)
    residual = x
    for part in (slice(3), slice(3, 7), slice(7, 12)):
        assert torch.allclose(code[:, part], torch.relu(residual @ model.W_enc_FD[part].T), atol=1e-6)
        residual = residual - code[:, part] @ model.W_dec_FD[part]


def a_tree(seed: int = 0, **options: object) -> tuple[HierarchicalSAE, torch.Tensor]:
    """A model of three levels with random parents and prices, and rows for it."""
    generator = torch.Generator().manual_seed(seed)
    model = HierarchicalSAE(8, HierOptions(widths=(3, 6, 12), k=(1, 2, 2), tree_weight=1.0, **options)).eval()  # type: ignore[arg-type]
    model.initialise(torch.zeros(8), seed)
    model.threshold_L.fill_(0.05)
    model.parent_F[3:9] = torch.randint(-1, 3, (6,), generator=generator)
    above = torch.randint(2, 9, (12,), generator=generator)
    model.parent_F[9:] = torch.where(above == 2, NO_PARENT, above)
    model.price_on_F.copy_(1 + 5 * torch.rand(21, generator=generator))
    model.price_off_F.copy_(torch.where(model.parent_F == NO_PARENT, model.price_on_F, 2 * model.price_on_F))
    return model, torch.randn(200, 8, generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_latents_within_their_levels_does_not_matter(seed: int) -> None:
    model, x = a_tree(seed)
    code = model.encode(x)
    order = torch.cat([part.start + torch.randperm(part.stop - part.start) for part in model.level_slices()])
    model.permute(order)
    assert torch.allclose(model.encode(x), code[:, order], atol=1e-6)


def test_hardening_sorts_children_by_parent_and_keeps_the_soft_code() -> None:
    model, x = a_tree()
    soft = model.encode(x)
    model.harden()
    assert torch.allclose(model.encode(x, hard=False).sort(1).values, soft.sort(1).values, atol=1e-6)
    for part in model.level_slices()[1:]:
        parents = model.parent_F[part].tolist()
        blocks = [parent for parent, following in pairwise([*parents, None]) if parent != following]
        assert len(blocks) == len(set(blocks)), "the children of a parent are consecutive"
        assert NO_PARENT not in blocks[:-1], "root children come last"


def test_in_a_hard_tree_children_fire_only_with_their_parents_and_root_children_stay_reachable() -> None:
    model, x = a_tree()
    model.harden()
    fired = model.encode(x) > 0
    child = model.parent_F != NO_PARENT
    assert not (fired[:, child] & ~fired[:, model.parent_F[child]]).any()
    assert (model.encode(x, hard=False) > 0)[:, child].sum() > fired[:, child].sum()
    roots = ~child
    roots[:3] = False
    assert fired[:, roots].any(0).all()


def test_soft_is_hard_if_firing_without_the_parent_has_an_infinite_price() -> None:
    model, x = a_tree()
    model.price_off_F[model.parent_F != NO_PARENT] = math.inf
    assert torch.equal(model.encode(x, hard=False), model.encode(x, hard=True))


def test_a_child_moves_down_a_level_and_a_latent_within_no_other_moves_up() -> None:
    """In level 0 one latent is a child of the other; in level 1 one latent lies within no latent of level 0."""
    generator = torch.Generator().manual_seed(0)
    root = torch.rand(4000, 2, generator=generator) < 0.3
    child = root[:, :1] & (torch.rand(4000, 2, generator=generator) < 0.4)
    fired = torch.cat([root[:, :1], child[:, :1], child[:, 1:], root[:, 1:]], dim=1)

    def patterns(fired: torch.Tensor) -> list[Pattern]:
        return [Pattern.of(fired[:, part], part.start, 4) for part in (slice(0, 2), slice(2, 4))]

    model = HierarchicalSAE(
        8, HierOptions(widths=(2, 2), k=(1, 1), relevel=True, tree_every=1, curriculum="anneal=1.0")
    ).train()
    model.initialise(torch.zeros(8), 0)
    model._count_firings(patterns(fired))
    before = model.W_dec_FD.detach().clone()
    order = model.after_step(StepContext(1, 0.5))
    assert order is not None and order.tolist() == [0, 3, 2, 1]
    assert torch.allclose(model.W_dec_FD, before[order])
    model._count_firings(patterns(fired[:, order]))
    assert model.after_step(StepContext(3, 0.5)) is None, "each level has the latents that belong to it"


def test_the_curriculum_widens_l0_at_first() -> None:
    model = HierarchicalSAE(6, HierOptions(widths=(4, 8), k=(1, 2), k_start=2.0, curriculum="anneal=0.5")).train()
    model.initialise(torch.zeros(6), 0)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    active = [
        sum(len(code.fired) for code in model.step(x, StepContext(0, progress)).codes) / len(x)
        for progress in (0.0, 0.25, 0.9)
    ]
    assert active == pytest.approx([6.0, 4.5, 3.0], abs=0.05)


def test_the_phases_of_a_curriculum_come_in_order() -> None:
    curriculum = Curriculum(lead=0.1, ramp=0.2, anneal=0.4, closed=0.1)
    phases = [curriculum.at(step / 1000) for step in range(1001)]
    names = list(dict.fromkeys(phase.name for phase in phases))
    assert names == ["lead", "ramp", "anneal", "joint", "closed"]
    for earlier, later in pairwise(phases):
        assert later.fine >= earlier.fine
        assert later.tree >= earlier.tree
        assert later.wide <= earlier.wide
        assert later.closed >= earlier.closed
    assert (phases[0].fine, phases[0].tree) == (0.0, 0.0)
    assert (phases[-1].fine, phases[-1].tree) == (1.0, 1.0)


def test_no_curriculum_is_joint_from_the_start() -> None:
    assert Curriculum.parse("none").at(0.0).name == "joint"


@pytest.mark.parametrize("text", ["lead", "lead=x", "lead=.7,ramp=.7", "lead=-.1", "foo=.1", ""])
def test_a_wrong_curriculum_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="curriculum"):
        Curriculum.parse(text)


def test_the_lead_phase_trains_only_coarse_latents() -> None:
    model = HierarchicalSAE(6, HierOptions(widths=(3, 4), k=(1, 2), curriculum="lead=0.5,ramp=0.5")).train()
    model.initialise(torch.zeros(6), 0)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert (model.step(x, StepContext(0, 0.1)).codes[0].pattern.latent_n < 3).all()
    assert len(model.step(x, StepContext(0, 0.1)).codes) == 1
    assert len(model.step(x, StepContext(0, 0.9)).codes[1].fired) > 0


def test_the_coarse_loss_stops_training_the_decoder() -> None:
    def gradients(coarse_rows: float, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        model = HierarchicalSAE(
            8, HierOptions(widths=(3, 9), k=(2.0, 2.0), coarse_weight=1.0, coarse_rows=coarse_rows)
        ).train()
        model.initialise(torch.zeros(8), 0)
        x_BD = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
        model.step(x_BD, StepContext(0, progress)).loss.backward()
        assert model.W_dec_FD.grad is not None and model.W_enc_FD.grad is not None
        return model.W_dec_FD.grad, model.W_enc_FD.grad

    held, encoder = gradients(1.0, 0.5)
    before, _ = gradients(0.5, 0.4)
    half, _ = gradients(0.4, 0.5)
    after, encoder_after = gradients(0.2, 0.5)
    assert torch.equal(before, held) and torch.allclose(encoder_after, encoder, atol=1e-7)
    assert not torch.allclose(after[:3], held[:3]) and torch.allclose(after[3:], held[3:], atol=1e-7)
    assert torch.allclose(half, (held + after) / 2, atol=1e-6)


def test_the_geometric_median_withstands_outliers() -> None:
    x_BD = torch.randn(501, 3, generator=torch.Generator().manual_seed(0)) + 2
    x_BD[:100] += 1000
    centre_D = geometric_median(x_BD)
    distance = (x_BD - centre_D).norm(dim=1).sum()
    others = centre_D + 0.05 * torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    assert all((x_BD - other_D).norm(dim=1).sum() >= distance for other_D in others) and centre_D.norm() < 6
    assert geometric_median(torch.ones(4, 2)).tolist() == [1, 1]
