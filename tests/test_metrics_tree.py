"""Parent-child statistics against independent computations, and where they are not defined."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from hiersae_cli.metrics import tree


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
        assert found["mi_over_entropy"] == pytest.approx(found["mi_bits"] / entropy, abs=1e-9)
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
