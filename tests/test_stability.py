"""Stability of trees between seeds, by hand and against a full assignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiersae_cli.levels import Levels
from hiersae_cli.metrics import stability
from hiersae_cli.metrics.intervals import Share
from hiersae_cli.metrics.random_rows import random_rows_like
from hiersae_cli.metrics.recovery import match_features
from hiersae_cli.metrics.stability import (
    MeanCosine,
    PairFigure,
    SeedDictionary,
    compare_seeds,
    mean_over_pairs,
    recurring_edges,
    same_latents,
    shared_edges,
    shared_latents,
)

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


WIDTHS = (20, 100)


def rows_of(seed: int, latents: int = 120, width: int = 32, rank: int = 32) -> torch.Tensor:
    """Random rows, in the first ``rank`` dimensions."""
    rows = torch.randn(latents, width, generator=torch.Generator().manual_seed(seed))
    return rows * (torch.arange(width) < rank)


def dictionary(rows: torch.Tensor, live: np.ndarray | None = None, seed: int = 0) -> SeedDictionary:
    """Two levels with a random tree; all latents are live unless ``live`` says otherwise."""
    parents = np.concatenate([np.full(20, -1), np.random.default_rng(seed).integers(0, 20, 100)])
    return SeedDictionary(rows, Levels(WIDTHS), np.ones(120, bool) if live is None else live, parents)


def permuted(original: SeedDictionary, seed: int) -> SeedDictionary:
    """The same dictionary with its latents in another order within each level."""
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(np.arange(120)[part]) for part in original.levels.slices])
    parents = original.parent_F[order]  # type: ignore[index]
    parents = np.where(parents < 0, -1, np.argsort(order)[parents])
    return SeedDictionary(original.decoder_FD[order], original.levels, original.live_F[order], parents)


def values(figures: dict[str, PairFigure | None]) -> dict[str, float]:
    return {name: figure.value for name, figure in figures.items() if figure is not None}


def real(figures: dict[str, float]) -> dict[str, float]:
    """Without the chance levels."""
    return {name: value for name, value in figures.items() if "chance" not in name and "shuffled" not in name}


def test_identical_dictionaries_have_figures_of_one() -> None:
    original = dictionary(rows_of(0))
    for other in (original, permuted(original, 1)):
        found = values(compare_seeds(original, other, 0))
        assert real(found) == pytest.approx(dict.fromkeys(real(found), 1.0), abs=1e-6)
        assert found["stability_cosine_chance"] < 0.6 and found["stability_live_edges_shuffled"] < 0.2
        assert {f"stability{name}_level_1" for name in ("", "_cosine", "_cosine_any", "_live", "_live_edges")} <= set(
            found
        )
        assert "stability_level_0" not in found, "edges are counted at their child"


@pytest.mark.parametrize("rank", [32, 5])
def test_random_dictionaries_are_as_alike_as_chance(rank: int) -> None:
    found = values(compare_seeds(dictionary(rows_of(1, rank=rank)), dictionary(rows_of(2, rank=rank), seed=1), 0))
    for ending in ("", "_level_0", "_level_1"):
        for name in ("cosine", "cosine_any"):
            assert found[f"stability_{name}{ending}"] == pytest.approx(
                found[f"stability_{name}_chance{ending}"], abs=0.06 if ending == "_level_0" else 0.02
            )
    assert found["stability_live"] == pytest.approx(found["stability_live_chance"], abs=0.08)
    if rank == 5:  # a share of 0.7 and more alone would look like stability
        assert found["stability_live"] > 0.9 and found["stability_cosine"] > 0.8


@pytest.mark.parametrize("power", [0, 1, 2])
def test_random_rows_fill_the_same_dimensions(power: int) -> None:
    spread = torch.arange(1, 65) ** (-power / 2)
    rows = torch.nn.functional.normalize(rows_of(3, 2000, 64) * spread)
    random = random_rows_like(rows * 7, torch.Generator().manual_seed(0))
    assert torch.allclose(random.norm(dim=1), torch.ones(2000), atol=1e-5)
    assert torch.equal(random, random_rows_like(rows * 7, torch.Generator().manual_seed(0)))
    moments = [(side.T @ side / 2000).diagonal() for side in (rows, random)]
    assert torch.allclose(*moments, rtol=0.25, atol=2e-3)
    assert float((rows @ random.T).square().mean()) == pytest.approx(float((rows @ rows.T).square().mean()), rel=0.03)


def test_no_figure_depends_on_the_order_or_on_which_seed_is_first() -> None:
    noisy = rows_of(4) + torch.cat([0.5 * rows_of(5)[:60], 3 * rows_of(5)[60:]])
    live = np.random.default_rng(3).random((2, 120)) > 0.2
    ours, theirs = dictionary(rows_of(4), live[0]), dictionary(noisy, live[1], seed=1)
    found = values(compare_seeds(ours, theirs, 0))
    assert all(0 <= value <= 1 for value in found.values()) and 0.2 < found["stability_live"] < 0.8
    for others in ((permuted(ours, 5), permuted(theirs, 6)), (theirs, ours)):
        again = values(compare_seeds(*others, 0))
        assert real(again) == pytest.approx(real(found)) and set(again) == set(found)
        assert again["stability_cosine_chance"] == pytest.approx(found["stability_cosine_chance"], abs=0.02)


def test_dead_latents_do_not_count() -> None:
    live = np.arange(120) % 3 > 0
    dead = torch.from_numpy(~live)
    ours, theirs = rows_of(6), rows_of(6)
    theirs[dead] = rows_of(7)[dead]
    figures = compare_seeds(dictionary(ours, live), dictionary(theirs, live), 0)
    found = values(figures)
    assert (
        found["stability_cosine"] == pytest.approx(1) and found["stability_live"] == found["stability_live_edges"] == 1
    )
    assert found["stability_latents"] < 0.8 > found["stability"], "these figures are of all latents"
    assert figures["stability_live_level_0"].n == live[:20].sum()  # type: ignore[union-attr]
    # A dead latent is no match either.
    half = np.arange(120) < 60
    found = values(compare_seeds(dictionary(ours, half), dictionary(ours, ~half), 0))
    assert (
        found["stability_cosine_any"] < 0.7 and found["stability_live"] == 0 and "stability_cosine_level_0" not in found
    )
    # Whatever dead rows are, no figure of live latents moves.
    ours[dead] = torch.eye(32)[0]
    again = values(compare_seeds(dictionary(ours, live), dictionary(theirs, live), 0))
    unmoved = [name for name in again if "_cosine" in name or "_live" in name]
    assert unmoved and [again[name] for name in unmoved] == pytest.approx([values(figures)[name] for name in unmoved])


def test_edges_count_among_latents_that_recur() -> None:
    rows, other_rows = rows_of(8), rows_of(8)
    other_rows[70:] = rows_of(9)[70:]
    ours, theirs = dictionary(rows), dictionary(other_rows)
    moved = theirs.parent_F.copy()  # type: ignore[union-attr]
    moved[20:30] = (moved[20:30] + 1) % 20
    found = compare_seeds(ours, SeedDictionary(other_rows, ours.levels, ours.live_F, moved), 0)
    assert found["stability_live_edges"] == found["stability_live_edges_level_1"] == Share(40, 50)
    assert found["stability"] == Share(40, 100) and found["stability_live"] == Share(70, 120)


def test_a_dictionary_without_tree_or_with_other_levels_is_compared_as_far_as_possible() -> None:
    flat = SeedDictionary(rows_of(8), Levels((120,)), np.ones(120, bool), None)
    found = compare_seeds(dictionary(rows_of(8)), flat, 0)
    assert set(found) == {f"stability_{name}" for name in ("cosine", "cosine_chance", "live", "live_chance", "latents")}
    assert values(found)["stability_cosine"] == pytest.approx(1)


def test_the_best_cosine_by_hand() -> None:
    ours = SeedDictionary(torch.eye(3), Levels((1, 2)), np.ones(3, bool), None)
    theirs = SeedDictionary(torch.tensor([[0.6, 0, -0.8], [0.0, 1, 0], [1, 0, 0]]), ours.levels, ours.live_F, None)
    found = values(compare_seeds(ours, theirs, 0))
    assert found["stability_cosine_level_0"] == pytest.approx(0.6)
    assert found["stability_cosine_any_level_0"] == pytest.approx((1 + 0.8) / 2)
    assert found["stability_cosine_level_1"] == pytest.approx((1 + 0 + 1 + 0) / 4)
    assert found["stability_cosine_any"] == pytest.approx((1 + 1 + 0.8 + 0.8 + 1 + 1) / 6)
    estimate = MeanCosine(0.5, 0.2, 25).estimate(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((0.5 - 2.0639 * 0.04, 0.5 + 2.0639 * 0.04), abs=1e-4)
    assert MeanCosine(0.5, 0.2, 1).estimate(0.95).low is None


def test_pairs_whose_figure_is_undefined_leave_a_mean_without_an_interval() -> None:
    pairs: dict[tuple[int, int], PairFigure | None] = {(0, 1): Share(1, 4), (0, 2): None, (1, 2): Share(3, 4)}
    found = mean_over_pairs(pairs, 0.95)
    assert (found.value, found.low, found.high) == (0.5, None, None)
    assert mean_over_pairs({(0, 1): None}, 0.95).value is None


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
