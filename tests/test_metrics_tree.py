"""Parent-child statistics against independent computations, and where they are not defined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import hamming_loss, jaccard_score, mutual_info_score
from sklearn.metrics.pairwise import cosine_similarity

from hiersae_cli.metrics import tree
from hiersae_cli.metrics.catalogue import OF_EDGE, metric_of
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.reconstruction import EdgeSums
from hiersae_cli.sae.tree import mutual_information


def counts_of(parent, child):
    return parent.sum(), child.sum(), (parent & child).sum(), len(parent)


def miller_madow(parent, child):
    """Plug-in information by scikit-learn, with the correction from the numbers of values and pairs that occur."""
    values = (len(set(parent)), len(set(child)), len(set(zip(parent, child, strict=True))))
    correction = (values[0] + values[1] - values[2] - 1) / (2 * len(parent) * math.log(2))
    return mutual_info_score(parent, child) / math.log(2) + correction


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_statistics_equal_a_recount(rows):
    parent, child = np.array(rows).T
    counts = counts_of(parent, child)
    found = tree.edge_statistics(*counts)
    assert found["mi_bits"] == pytest.approx(miller_madow(parent.tolist(), child.tolist()), abs=1e-12)
    entropy = mutual_info_score(child, child) / math.log(2)
    if child.any() and not child.all():
        assert found["mi_over_entropy"] == pytest.approx(np.clip(found["mi_bits"] / entropy, 0, 1), abs=1e-9)
    else:
        assert np.isnan(found["mi_over_entropy"])
    for name, given_, what in (
        ("p_parent_given_child", child, parent),
        ("p_child_given_parent", parent, child),
    ):
        expected = what[given_].mean() if given_.any() else math.nan
        assert found[name] == pytest.approx(expected, nan_ok=True)
    expected = (parent & child).mean() / (parent.mean() * child.mean()) if parent.any() and child.any() else math.nan
    assert found["lift"] == pytest.approx(expected, nan_ok=True)


@given(st.integers(2, 200), st.data())
def test_the_maximum_is_the_best_positive_association(rows, data):
    n_parent, n_child = data.draw(st.integers(1, rows - 1)), data.draw(st.integers(1, rows - 1))
    least = max(0, n_parent + n_child - rows)
    both = np.arange(least, min(n_parent, n_child) + 1)
    # The plug-in estimate is the corrected one over infinitely many rows of the same shares.
    plug_in = tree.mi_bits(n_parent * 1e9, n_child * 1e9, both * 1e9, rows * 1e9)
    positive = both * rows >= n_parent * n_child
    assert tree.max_mi_bits(n_parent, n_child, rows) == pytest.approx(plug_in[positive].max(), abs=1e-6)


@given(st.integers(1, 400), st.data())
def test_no_statistic_leaves_its_range(rows, data):
    n_parent, n_child = data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows))
    n_both = data.draw(st.integers(max(0, n_parent + n_child - rows), min(n_parent, n_child)))
    found = tree.edge_statistics(n_parent, n_child, n_both, rows)
    assert set(found) == set(OF_EDGE)
    for name, value in found.items():
        low, high = metric_of(name).range
        assert np.isnan(value) or low <= value <= high, name
    if n_both * rows < n_parent * n_child:
        assert np.isnan(found["mi_over_max"]) or found["mi_over_max"] == 0
    assert tree.mi_over_max(n_parent, n_child, n_both, rows) == pytest.approx(found["mi_over_max"], nan_ok=True)


def test_latents_that_avoid_each_other_have_none_of_the_bound():
    """Seen on a real model: a child that never fires with a parent of 99.6 % had 1,676 times its bound."""
    found = tree.edge_statistics(n_parent=39_840, n_child=160, n_both=0, n_rows=40_000)
    assert found["mi_bits"] > 0.01 and found["mi_over_max"] == 0


def test_containment_is_one_however_rare_the_child():
    found = tree.edge_statistics(
        n_parent=150_000, n_child=[30_000, 10, 150_000], n_both=[30_000, 10, 150_000], n_rows=1e6
    )
    assert found["mi_over_max"] == pytest.approx([1, 1, 1], abs=1e-5)
    assert found["mi_over_entropy"][0] == pytest.approx(0.44, abs=0.005)  # published for p = .15, c = .03
    assert found["mi_bits"][0] == pytest.approx(0.086, abs=0.0005)
    assert found["p_parent_given_child"] == pytest.approx([1, 1, 1])


def test_a_child_that_fires_more_than_its_parent_is_measured_the_other_way_round():
    child_within = tree.mi_over_max(500, 100, 80, 1000)
    assert tree.mi_over_max(100, 500, 80, 1000) == pytest.approx(child_within)
    assert tree.mi_over_max(100, 500, 100, 1000) == pytest.approx(1)


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        ((50, 0, 0, 100), {"mi_over_max", "mi_over_entropy", "p_parent_given_child", "lift"}),
        ((0, 50, 0, 100), {"mi_over_max", "p_child_given_parent", "lift"}),
        ((50, 100, 50, 100), {"mi_over_max", "mi_over_entropy"}),
        ((100, 50, 50, 100), {"mi_over_max"}),
        ((0, 0, 0, 100), {"mi_over_max", "mi_over_entropy", "p_parent_given_child", "p_child_given_parent", "lift"}),
        ((100, 100, 100, 100), {"mi_over_max", "mi_over_entropy"}),
        ((0, 0, 0, 0), set(tree.edge_statistics(1, 1, 1, 1))),
    ],
)
def test_what_is_not_defined_is_nan_and_nothing_else_is(counts, undefined):
    found = tree.edge_statistics(*counts)
    assert {name for name, value in found.items() if np.isnan(value)} == undefined
    if counts[-1]:
        assert found["mi_bits"] == pytest.approx(0, abs=1e-12)


def test_independent_latents_have_no_information_on_average():
    generator = np.random.default_rng(0)
    parent, child = generator.random((2, 2000, 400)) < 0.1
    found = tree.mi_bits(parent.sum(1), child.sum(1), (parent & child).sum(1), 400)
    plug_in_bias = 1 / (2 * 400 * math.log(2))
    assert abs(found.mean()) < plug_in_bias / 10


def test_tensors_and_arrays_broadcast_alike():
    n_parent, n_child, n_both = (
        torch.tensor([[40.0], [70.0]]),
        torch.tensor([10.0, 20.0, 30.0]),
        torch.full((2, 3), 9.0),
    )
    from_tensors = tree.edge_statistics(n_parent, n_child, n_both, 100)
    from_arrays = tree.edge_statistics(n_parent.numpy(), n_child.int().numpy(), n_both.numpy(), 100)
    for name, values in from_tensors.items():
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, from_arrays[name])
    assert from_tensors["mi_bits"].shape == (2, 3)


def test_training_measures_the_same_information():
    generator = np.random.default_rng(1)
    parent, child = generator.integers(0, 1000, (2, 200)).astype(float)
    both = np.floor(np.minimum(parent, child) * generator.random(200)).clip(parent + child - 1000)
    theirs = mutual_information(*map(torch.from_numpy, (both, child, parent)), 1000.0)
    inside = (parent > 0) & (child > 0)
    assert tree.mi_bits(parent, child, both, 1000)[inside] == pytest.approx(theirs.numpy()[inside], abs=1e-12)


PARENTS = np.array([-1, -1, -1, 0, 0, 0, 1, -1, 3])  # 0 with three children, one of them with a child; 2 and 7 alone


def random_code(rows, seed=0):
    generator = np.random.default_rng(seed)
    rates = np.array([0.4, 0.3, 0.2, 0.1, 0.2, 0.0, 0.3, 1.0, 0.05])
    return generator.random((rows, 9)) < rates


def summed(fired, blocks, parts=3):
    """The sums of a code in batches that cut through blocks."""
    sums = EdgeSums(blocks, PARENTS)
    block = torch.arange(len(fired)) * blocks // len(fired)
    for part in torch.arange(len(fired)).chunk(parts):
        sums.add(Firings.of(torch.from_numpy(fired[part]).float()), block[part])
    return sums, block.numpy()


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_sums_over_edges_equal_a_recount(parts):
    fired = random_code(200)
    sums, block = summed(fired, 4, parts)
    assert sums.child_E.tolist() == [3, 4, 5, 6, 8] and sums.parent_E.tolist() == [0, 0, 0, 1, 3]
    assert sums.parent_P.tolist() == [0, 1, 3]
    for number in range(4):
        rows = fired[block == number]
        any_child = np.stack([rows[:, parent == PARENTS].any(1) for parent in sums.parent_P], 1)
        assert sums.both_KE[number].tolist() == (rows[:, sums.child_E] & rows[:, sums.parent_E]).sum(0).tolist()
        assert sums.any_KP[number].tolist() == any_child.sum(0).tolist()
        assert sums.covered_KP[number].tolist() == (any_child & rows[:, sums.parent_P]).sum(0).tolist()


def test_a_batch_in_which_nothing_fires_adds_nothing():
    sums = EdgeSums(2, PARENTS)
    sums.add(Firings.of(torch.zeros(5, 9)), torch.tensor([0, 0, 1, 1, 1]))
    assert not sums.both_KE.any() and not sums.any_KP.any()
    none = EdgeSums(2, np.full(9, -1))
    none.add(Firings.of(torch.ones(5, 9)), torch.tensor([0, 0, 1, 1, 1]))
    assert none.both_KE.shape == (2, 0) and none.any_KP.shape == (2, 0)


def test_or_distance_and_sibling_overlap_equal_a_recount():
    fired = random_code(500, 1)
    sums, _ = summed(fired, 1)
    parents = fired[:, sums.parent_P]
    children = [fired[:, parent == PARENTS] for parent in sums.parent_P]
    union = np.stack([rows.any(1) for rows in children], 1)
    expected = [jaccard_score(parents[:, place], union[:, place]) for place in range(len(children))]
    distance = tree.or_distance(parents.sum(0), sums.any_KP[0], sums.covered_KP[0])
    assert distance == pytest.approx(1 - np.array(expected))
    # The numerator is the Hamming distance.
    hamming = [hamming_loss(parents[:, place], union[:, place]) * 500 for place in range(len(children))]
    assert distance * (parents | union).sum(0) == pytest.approx(hamming)
    overlap = tree.sibling_overlap([rows.sum() for rows in children], sums.any_KP[0])
    assert overlap == pytest.approx([1 - rows.any(1).sum() / rows.sum() for rows in children])


def test_families_at_their_limits():
    assert tree.or_distance(30, 30, 30) == 0 and tree.or_distance(30, 20, 0) == 1 and tree.or_distance(30, 0, 0) == 1
    assert np.isnan(tree.or_distance(0, 0, 0)) and np.isnan(tree.sibling_overlap(0, 0))
    assert tree.sibling_overlap(90, 30) == pytest.approx(2 / 3) and tree.sibling_overlap(30, 30) == 0


def test_sibling_cosine_equals_the_mean_over_pairs():
    rows = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 10)[:, None]
    expected = [cosine_similarity(rows[[a]], rows[[b]]).item() for a, b in ((3, 4), (3, 5), (4, 5))]
    found = tree.sibling_cosine(PARENTS, rows)
    assert found == pytest.approx([np.mean(expected)], abs=1e-6)  # of the only parent with several children
    rows[4] = 0
    assert tree.sibling_cosine(PARENTS, rows) == pytest.approx([expected[1] / 3], abs=1e-6)
    assert not len(tree.sibling_cosine(np.full(9, -1), rows))
