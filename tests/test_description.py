"""Description length: the identities that define it, and the trees that shorten it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.metrics import mutual_info_score

from hiersae_cli.metrics import description
from hiersae_cli.metrics.description import FiringRows, SupportCode, chow_liu, most_informative_parents
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.tree import binary_entropy

FLAT = np.full(6, -1)


def fired(seed: int, rows: int = 400) -> np.ndarray:
    """Six latents that depend on each other at random."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(3, 6))
    return generator.normal(size=(rows, 3)) @ mixing + 0.5 * generator.normal(size=(rows, 6)) > generator.normal(size=6)


def kept(fired_BF: np.ndarray) -> FiringRows:
    rows = FiringRows(fired_BF.shape[1])
    for part in np.array_split(fired_BF, 3):
        rows.add(Firings.of(torch.from_numpy(part).float()))
    return rows


def bits(parent_F: np.ndarray, fitted: FiringRows, coded_BF: np.ndarray, times: float = 1) -> float:
    """Bits a row; with rates fitted on ``times`` as many rows of the same shares."""
    both = coded_BF & coded_BF[:, parent_F]
    sums = (np.array([float(len(coded_BF))]), coded_BF.sum(0, keepdims=True), both.sum(0, keepdims=True))
    code = SupportCode.fitted(parent_F, fitted.rows * times, fitted.fired_F * times, fitted.both(parent_F) * times)
    return float(code.bits(*sums)[0]) / len(coded_BF)


def plug_in_information(fired_BF: np.ndarray, a: int, b: int) -> float:
    joint = 2 * fired_BF[:, a] + fired_BF[:, b]
    share = np.bincount(joint, minlength=4) / len(fired_BF)
    entropy = -sum(p * np.log2(p) for p in share if p > 0)
    return float(binary_entropy(fired_BF[:, a].mean()) + binary_entropy(fired_BF[:, b].mean()) - entropy)


def all_trees(count: int) -> list[list[tuple[int, int]]]:
    """Every spanning tree of ``count`` nodes, from its Prüfer sequence."""
    trees = []
    for sequence in itertools.product(range(count), repeat=count - 2):
        degree = [1 + sequence.count(node) for node in range(count)]
        edges = []
        for node in sequence:
            leaf = degree.index(1)
            edges.append((leaf, node))
            degree[leaf] -= 1
            degree[node] -= 1
        edges.append(tuple(node for node in range(count) if degree[node] == 1))  # type: ignore[arg-type]
        trees.append(edges)
    return trees


def test_counts_of_batches_are_counts_of_the_whole() -> None:
    fired_BF = fired(0)
    rows = kept(fired_BF)
    assert rows.rows == 400
    assert rows.fired_F.tolist() == fired_BF.sum(0).tolist()
    together = fired_BF.T.astype(int) @ fired_BF
    parent_F = np.array([-1, 0, 0, 5, -1, 1])
    assert rows.both(parent_F).tolist() == np.where(parent_F >= 0, together[range(6), parent_F], 0).tolist()


def test_pairs_are_all_those_beyond_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scikit-learn's information of every pair, however many are looked at in one go."""
    generator = np.random.default_rng(0)
    fired_BF = generator.random((3000, 60)) < np.concatenate([[0, 1, 0.9, 0.6], np.geomspace(0.4, 0.002, 56)])
    fired_BF[:, 20:40] &= fired_BF[:, 2:22] | (generator.random((3000, 20)) < 0.2)  # some within others
    fired_BF[:, 5] &= ~fired_BF[:, 4]  # two that exclude each other
    expected = {}
    for a, b in itertools.combinations(range(60), 2):
        one, two = fired_BF[:, a], fired_BF[:, b]
        cells = len(set(one)) + len(set(two)) - len(set(zip(one, two, strict=True))) - 1
        if 2 * 3000 * mutual_info_score(one, two) + cells > chi2.isf(0.01 / 60, 1) - 1:
            expected[a, b] = bool((one & two).mean() > one.mean() * two.mean())
    for at_once in (1, 200, 1 << 22):
        monkeypatch.setattr(description, "_CELLS", at_once)
        found = kept(fired_BF).pairs()
        pairs = zip(found.first_E.tolist(), found.second_E.tolist(), strict=True)
        assert dict(zip(pairs, found.likelier_E.tolist(), strict=True)) == expected
    assert not expected[4, 5] and 8 < len(expected) < 400


# Counts times a million: the half firing that the estimate adds then weighs nothing, and rates are plug-in.
@settings(max_examples=25)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(6)), roots=st.integers(1, 3))
def test_a_tree_saves_the_information_of_its_edges(seed: int, order: list[int], roots: int) -> None:
    fired_BF, parent_F = fired(seed), FLAT.copy()
    generator = np.random.default_rng(seed)
    for rank in range(roots, 6):
        parent_F[order[rank]] = order[generator.integers(rank)]
    rows = kept(fired_BF)
    saved = sum(plug_in_information(fired_BF, child, parent) for child, parent in enumerate(parent_F) if parent >= 0)
    flat = bits(FLAT, rows, fired_BF, 1e6)
    assert flat == pytest.approx(binary_entropy(fired_BF.mean(0)).sum(), abs=1e-4)
    assert bits(parent_F, rows, fired_BF, 1e6) == pytest.approx(flat - saved, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_no_tree_is_shorter_than_that_of_chow_and_liu(seed: int) -> None:
    fired_BF = fired(seed)
    rows = kept(fired_BF)
    pairs = rows.pairs(level=6)  # of six latents: with nothing left out as chance
    parent_F = chow_liu(pairs)

    def saving(tree_F: np.ndarray) -> float:
        return bits(FLAT, rows, fired_BF, 1e6) - bits(tree_F, rows, fired_BF, 1e6)

    information = {pair: plug_in_information(fired_BF, *pair) for pair in itertools.product(range(6), repeat=2)}
    best = max(sum(information[edge] for edge in tree) for tree in all_trees(6))
    assert saving(parent_F) == pytest.approx(best, abs=1e-4)
    assert saving(parent_F) >= saving(most_informative_parents(pairs)) - 1e-4
    assert parent_F[pairs.fired_F.argmax()] == -1 and (parent_F == -1).sum() == 1


def test_chow_liu_leaves_what_is_independent_apart() -> None:
    rows = np.arange(64)
    # Two exact copies of bit 0 (one of them flipped), one of bit 1, and bits that are independent of these.
    fired_BF = np.stack([rows & 1, 1 - (rows & 1), rows & 2, rows & 2, rows & 4], 1) > 0
    fired_BF[0, 0] = True  # the most frequent of its tree
    parent_F = chow_liu(kept(fired_BF).pairs())
    assert parent_F.tolist() == [-1, 0, -1, 2, -1]


def test_most_informative_parents_are_more_frequent_and_make_likelier() -> None:
    rows = np.arange(1000)
    top, middle, low = rows % 2 == 0, rows % 4 == 0, rows % 8 == 0
    against = (rows % 2 == 1) & (rows % 3 > 0)  # never with top: informative, but no parent
    rare = rows == 16
    parent_F = most_informative_parents(kept(np.stack([low, top, against, middle, rare], 1)).pairs())
    assert parent_F.tolist() == [3, -1, -1, 1, -1]


def test_a_latent_that_nearly_always_fires_is_no_parent() -> None:
    """At a rate of .996 all lies within it by arithmetic: children of lift 1.004 tell nothing."""
    random = np.random.default_rng(0)
    sink = random.random(20_000) < 0.996
    half = random.random(20_000) < 0.5
    within = np.stack([sink & (random.random(20_000) < rate) for rate in (0.1, 0.2, 0.3)], 1)
    alone = half & (random.random(20_000) < 0.5)
    pairs = kept(np.column_stack([sink, within, half, alone])).pairs()
    assert 0 in pairs.first_E.tolist()  # more than chance, so only its rate speaks against it
    assert most_informative_parents(pairs).tolist() == [-1, -1, -1, -1, -1, 4]


def test_independent_latents_stay_without_parents() -> None:
    noise = np.random.default_rng(1).random((5000, 40)) < np.linspace(0.02, 0.4, 40)
    pairs = kept(noise).pairs()
    # A hundredth of 40 latents is expected to get one.
    assert (most_informative_parents(pairs) != -1).sum() <= 2 and (chow_liu(pairs) != -1).sum() <= 2


def test_other_documents_pay_for_what_was_learned_by_heart() -> None:
    generator = np.random.default_rng(0)
    noise = generator.random((120, 6)) < 0.2
    rows = kept(noise)
    tree = np.array([-1, 0, 1, 2, 3, 4])
    fresh = generator.random((20_000, 6)) < 0.2
    assert bits(tree, rows, noise) < bits(FLAT, rows, noise)
    assert bits(tree, rows, fresh) > bits(FLAT, rows, fresh)
