"""Metrics of downstream tasks, each against an independent computation.

Legend of shapes: N rows, D width, F latents, C concepts, K blocks, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array, csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef

from hiersae_cli.host.model import Host
from hiersae_cli.metrics.absorption import absorption
from hiersae_cli.metrics.concept_tree import (
    chance_scores,
    depths,
    detectors,
    in_tree,
    lies_below,
    of_pairs,
    pair_scores,
    shared_detectors,
)
from hiersae_cli.metrics.detection import Confusion, mean_known
from hiersae_cli.metrics.perturbation import Perturbation, targeted
from hiersae_cli.metrics.probing import (
    LatentSums,
    best_f1_score,
    best_latents,
    dense_probes,
    f1_of,
    fit_probe,
    sparse_probe,
)
from hiersae_cli.metrics.splitting import latents_split
from hiersae_cli.metrics.steering import DAMAGE, Steering, targets

ROWS, LATENTS, CONCEPTS, BLOCKS = 400, 12, 4, 5
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    """A sparse code with a dead latent (0), one that fires once (1) and one that always does (2), and concepts."""
    random = np.random.default_rng(0)
    code = np.where(random.random((ROWS, LATENTS)) < 0.2, random.random((ROWS, LATENTS)) + 0.1, 0.0)
    code[:, 0], code[:, 1], code[:, 2] = 0, 0, 1.5
    code[7, 1] = 3.0
    member = (code[:, 3 : 3 + CONCEPTS] > 0) ^ (random.random((ROWS, CONCEPTS)) < 0.1)
    known = np.ones((ROWS, CONCEPTS), bool)
    known[:60, 1] = False
    block = np.arange(ROWS) * BLOCKS // ROWS
    x = code @ random.normal(size=(LATENTS, 8)) + 0.3 * random.normal(size=(ROWS, 8))
    return {"code": code, "member": member, "known": known, "block": block, "x": x.astype(np.float32)}


def test_detection_against_scikit_learn(case: dict[str, Any]) -> None:
    yes = case["code"][:, 3 : 3 + CONCEPTS] > 0
    confusion = Confusion.of(yes, case["member"], case["known"], case["block"], BLOCKS)
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 3]], float)
    for concept in range(CONCEPTS):
        for number, weight in enumerate(weights):
            counted = weight[case["block"]] * case["known"][:, concept]
            truth, answer = case["member"][:, concept], yes[:, concept]
            for found, expected in (
                (confusion.f1, f1_score(truth, answer, sample_weight=counted)),
                (confusion.balanced_accuracy, balanced_accuracy_score(truth, answer, sample_weight=counted)),
                (confusion.phi, matthews_corrcoef(truth, answer, sample_weight=counted)),
            ):
                assert found(weights)[number, concept] == pytest.approx(expected)


def test_detection_where_nothing_is_to_be_told() -> None:
    """Concepts without rows, with all rows; answers that are always yes or no."""
    rows, everything = np.zeros((6, 1), bool), np.ones((1, 1))
    block = np.zeros(6, int)
    mixed = np.arange(6)[:, None] < 2

    def of(yes: Any, member: Any) -> Confusion:
        return Confusion.of(yes, member, ~rows, block, 1)

    assert np.isnan(of(rows, rows).f1(everything)) and np.isnan(of(rows, rows).balanced_accuracy(everything))
    assert np.isnan(of(~rows, ~rows).balanced_accuracy(everything))
    assert of(rows, mixed).f1(everything) == 0 and of(rows, mixed).balanced_accuracy(everything) == 0.5
    assert of(~rows, mixed).balanced_accuracy(everything) == 0.5
    for yes, member in ((rows, rows), (~rows, mixed), (rows, mixed), (mixed, ~rows)):
        assert of(yes, member).phi(everything) == 0
    assert of(mixed, mixed).phi(everything) == 1
    assert mean_known(np.array([[1.0, np.nan, 3.0], [np.nan] * 3])).tolist()[0] == 2
    assert np.isnan(mean_known(np.array([[np.nan]]))).all()


def test_correlations_and_differences_against_numpy(case: dict[str, Any]) -> None:
    sums = LatentSums(csr_array(case["code"]), case["member"], case["known"])
    correlation, difference = sums.correlations(), sums.mean_differences()
    assert correlation.shape == difference.shape == (CONCEPTS, LATENTS)
    assert (correlation[:, [0, 2]] == 0).all()  # dead, and always the same
    for concept in range(CONCEPTS):
        known, member = case["known"][:, concept], case["member"][:, concept]
        for latent in range(LATENTS):
            values = case["code"][known, latent]
            expected = np.corrcoef(values, member[known])[0, 1] if values.std() > 1e-9 else 0
            assert correlation[concept, latent] == pytest.approx(expected), (concept, latent)
            inside, outside = values[member[known]].mean(), values[~member[known]].mean()
            assert difference[concept, latent] == pytest.approx(inside - outside)
    constant = LatentSums(csr_array(case["code"]), np.ones_like(case["member"]), case["known"])
    assert (constant.correlations() == 0).all()
    assert best_latents(correlation, 2)[:, 0].tolist() == [3, 4, 5, 6]
    assert best_latents(-correlation, 2)[:, 0].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("latents", [[3], [4, 1], [3, 4, 5, 6, 7], [0], [2], [0, 2, 3]])
def test_sparse_probes_against_a_fit_on_all_rows(case: dict[str, Any], latents: list[int]) -> None:
    """Rows where nothing fires count together: the fit must be that of scikit-learn on every row."""
    features = case["code"][:, latents]
    deviation = features.std(0)
    scaled = (features - features.mean(0)) / np.where(deviation > 0, deviation, np.inf)
    for concept in (0, 1):
        known, member = case["known"][:, concept], case["member"][:, concept]
        probe = sparse_probe(csc_array(case["code"]), np.array(latents), member, known)
        if latents in ([0], [2]):
            assert (probe.weight == 0).all() and probe.bias == probe.balanced_score
            continue
        if known.all():
            expected = LogisticRegression(max_iter=1000, tol=1e-8).fit(scaled, member).decision_function(scaled)
            assert probe.score(features) == pytest.approx(expected, abs=0.02)
        share = member[known].mean()
        assert probe.balanced_score == pytest.approx(np.log(share / (1 - share)))


def test_the_threshold_for_f1_against_all_thresholds(case: dict[str, Any]) -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        score, member = random.integers(0, 6, 40).astype(float), random.random(40) < 0.3
        member[0] = True
        weight = random.integers(0, 4, 40).astype(float)
        least = best_f1_score(score, member, weight)
        values = [f1_score(member, score >= at, sample_weight=weight) for at in np.unique(score)]
        assert f1_score(member, score >= least, sample_weight=weight) == pytest.approx(max(values))
    assert best_f1_score(np.zeros(4), np.array([True, False, False, False]), np.ones(4)) == -np.inf
    assert f1_of(np.zeros(3, bool), np.zeros(3, bool)) == 0


def test_probes_of_constant_labels() -> None:
    features = np.random.default_rng(0).normal(size=(30, 2))
    for member in (np.zeros(30, bool), np.ones(30, bool)):
        probe = fit_probe(features, member, np.ones(30))
        assert (probe.weight == 0).all() and np.isfinite(probe.bias)
    dense = dense_probes(features.astype(np.float32), np.zeros((30, 1), bool), np.ones((30, 1), bool), CPU)
    assert np.isfinite(dense[0].weight).all()


def test_dense_probes_against_scikit_learn(case: dict[str, Any]) -> None:
    x, penalty = case["x"], 0.01
    x = np.column_stack([x, np.full(ROWS, 3.0)]).astype(np.float32)  # and a constant coordinate
    probes = dense_probes(x, case["member"], case["known"], CPU, penalty)
    scaled = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), np.inf)
    for concept, probe in enumerate(probes):
        known, member = case["known"][:, concept], case["member"][:, concept]
        solver = LogisticRegression(C=1 / (penalty * known.sum()), max_iter=5000, tol=1e-8)
        expected = solver.fit(scaled[known], member[known]).decision_function(scaled)
        assert probe.score(x) == pytest.approx(expected, abs=0.02)


def test_splitting() -> None:
    values = [0.5, 0.6, 0.64, 0.66, 0.9]
    assert latents_split(lambda k: values[k - 1]) == 3
    assert latents_split(lambda k: 0.5) == 1
    assert latents_split(lambda k: k / 10) == 10
    assert latents_split(lambda k: k / 10, most=2) == 2


def test_absorption_against_rows_one_by_one(case: dict[str, Any]) -> None:
    random = np.random.default_rng(3)
    decoder, direction = random.normal(size=(LATENTS, 8)), random.normal(size=8)
    unit = direction / np.linalg.norm(direction)
    projection = random.normal(size=ROWS) * 2
    main = np.array([3, 5])
    absorbed, share = absorption(csr_array(case["code"]), decoder, direction, projection, main)
    cosine = decoder @ unit / np.linalg.norm(decoder, axis=1)
    seen = set()
    for row in range(ROWS):
        carried = case["code"][row] * (decoder @ unit)
        others = [f for f in range(LATENTS) if f not in main]
        best = max((carried[f] for f in others if cosine[f] >= 0.025), default=0)
        expected = not case["code"][row, main].any() and projection[row] > 0 and best >= 0.4 * projection[row]
        assert absorbed[row] == expected
        by_main = max(carried[main].sum(), 0)
        three = sorted((max(carried[f], 0) for f in others if cosine[f] >= 0.1), reverse=True)[:3]
        total = by_main + sum(three)
        value = 0 if by_main >= projection[row] or total == 0 else sum(three) / total
        assert share[row] == pytest.approx(value)
        seen.add((bool(expected), value > 0))
    assert len(seen) >= 3  # the case has all sorts of rows


def test_absorption_of_a_planted_case() -> None:
    """A child's latent carries its parent, whose own latent keeps silent in half of the child's rows."""
    decoder = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    code = np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 1.0], [0, 0, 1.0]])
    absorbed, share = absorption(csr_array(code), decoder, np.array([2.0, 0]), code @ decoder[:, 0], np.array([0]))
    assert absorbed.tolist() == [False, True, False, False]
    assert share.tolist() == [0, 1, 0, 0]
    none, zero = absorption(csr_array(np.zeros((2, 3))), decoder, np.array([1.0, 0]), np.ones(2), np.array([0]))
    assert not none.any() and not zero.any()


def test_perturbation_against_ablated_activations(case: dict[str, Any]) -> None:
    random = np.random.default_rng(4)
    decoder, weight = random.normal(size=(LATENTS, 8)), random.normal(size=(8, CONCEPTS))
    x, least = case["x"].astype(float), np.array([0.0, 0.5, -0.5, 1.0])
    chosen = [np.array([3, 4]), np.array([2]), np.array([0], int), np.array([], int)]
    found = Perturbation(
        csc_array(case["code"]), chosen, decoder @ weight, x @ weight, least, case["member"], case["known"],
        case["block"], BLOCKS,
    )  # fmt: skip
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 1, 0, 2]], float)
    drops = found.drops(weights)
    for concept, latents in enumerate(chosen):
        ablated = x - case["code"][:, latents] @ decoder[latents]
        for probe in range(CONCEPTS):
            for number, each in enumerate(weights):
                counted = each[case["block"]] * case["known"][:, probe]
                before, after = (
                    balanced_accuracy_score(
                        case["member"][:, probe], (rows @ weight)[:, probe] >= least[probe], sample_weight=counted
                    )
                    for rows in (x, ablated)
                )
                assert drops[number, concept, probe] == pytest.approx(before - after, abs=1e-12)
    assert (drops[:, 2:] == 0).all()  # a dead latent, and none
    others = np.ones((CONCEPTS, CONCEPTS), bool) & ~np.eye(CONCEPTS, dtype=bool)
    others[3] = False
    score = targeted(drops, others)
    assert score[0, 0] == pytest.approx(drops[0, 0, 0] - drops[0, 0, 1:].mean())
    assert np.isnan(score[:, 3]).all()


def test_concept_tree() -> None:
    # Concepts 0 -> 1, 2 and 3 -> 4; latents 0 -> 1, 2 and 3.
    parent, tree = np.array([-1, 0, 0, -1, 3]), np.array([-1, 0, 0, -1])
    phi = np.array([[0.9, 0, 0, 0], [0, 0.8, 0.1, 0], [0, 0, 0.5, 0], [0, 0, 0, 0], [0, 0.1, 0, -0.4]])
    best = detectors(phi)
    assert best.tolist() == [0, 1, 2, -1, 1]
    edges = in_tree(best, parent, tree)
    assert edges.tolist() == [False, True, True, False, False]
    scores = pair_scores(np.array([0.6, 0.7, -0.1, 0.0, 0.3]), parent, edges)
    assert scores.tolist() == [0.6, 0.0, 0.0]
    assert not in_tree(best, parent, np.full(4, -1)).any()
    assert len(pair_scores(np.zeros(2), np.array([-1, -1]), np.zeros(2, bool))) == 0
    assert depths(np.array([-1, 0, 1, 1, -1, 4])).tolist() == [0, 1, 2, 2, 0, 1]


def test_concepts_joined_at_any_depth_by_chance_or_by_one_latent() -> None:
    # Concepts 0 -> 1 -> 2, 0 -> 3 -> 4 and, of another family, 5 -> 6; latents 0 -> 1 -> 2 -> 3 and 0 -> 4.
    parent = np.array([-1, 0, 1, 0, 3, -1, 5])
    tree = np.array([-1, 0, 1, 2, 0])
    detector = np.array([0, 1, 3, 4, 2, 0, 0])
    below = lies_below(detector, tree)
    assert of_pairs(below, parent).tolist() == [False, True, True, True, False, False, False]
    assert in_tree(detector, parent, tree).tolist() == [False, True, False, True, False, False, False]
    assert shared_detectors(detector, parent).tolist() == [False] * 6 + [True]
    phi = np.array([0.9, 0.8, 0.3, 0.6, 0.5, 1, 1])
    assert pair_scores(phi, parent, of_pairs(below, parent)).tolist() == [0.8, 0.3, 0.6, 0, 0]
    # Most rows of 1 to 4 belong to 5, and all of 6 to 0 and 3. So wrong parents are 3 for 1 and 2, 1 for 3 and 4, 6.
    inside = np.zeros((7, 7))
    inside[:5, 5] = inside[6, [0, 3]] = 0.6
    chance = chance_scores(phi, parent, inside, below)
    assert chance.tolist() == [0, 0, 0, 0.5, 0]  # only the detector of 4 lies below that of 1
    assert np.isnan(chance_scores(phi, parent, np.ones((7, 7)), below)).all()
    nobody = np.full(7, -1)
    assert not lies_below(nobody, tree).any() and not shared_detectors(nobody, parent).any()


def test_nothing_lies_below_itself_in_a_circle() -> None:
    assert lies_below(np.array([0, 1, 2, 3, 0]), np.array([1, 2, 0, -1])).astype(int).tolist() == [
        [0, 1, 1, 0, 0],
        [1, 0, 1, 0, 1],
        [1, 1, 0, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
    ]


def test_targets_of_steering() -> None:
    found = targets(np.array([3, 0, 1]), np.array([10, 20, 10]))
    assert found.tolist() == [1, -1, 0] and targets(np.zeros(3), np.ones(3)).tolist() == [0, 0, 0]
    assert targets(np.array([1, 2]), np.array([2, 4])).tolist() == [0, 0]


def test_steering_against_the_host_by_hand(tiny_host: Path) -> None:
    host = Host.load(str(tiny_host), CPU)
    host.model.get_output_embeddings().weight.mul_(20)  # untrained, it hardly distinguishes tokens
    tokens = torch.randint(0, 20, (3, 16), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([16, 16, 10])
    path, direction = host.layer_path(1), torch.randn(32, generator=torch.Generator().manual_seed(1))
    counted = (torch.arange(16) >= 2) & (torch.arange(16) < lengths[:, None])
    steering = Steering(host, path, tokens, counted)
    change, damage = steering.response(direction, 0.05)
    assert 0.9 * DAMAGE < damage < 1.12 * DAMAGE
    # The strength is not told: find it by bisection, and the change by the host's own loss.
    clean = host.log_probabilities(tokens)[counted]
    low, high = 0.0, 100.0
    for _ in range(50):
        middle = (low + high) / 2

        def added(x: torch.Tensor, size: float = middle) -> torch.Tensor:
            y = x.clone()
            y[:, 2:] += size * direction / direction.norm()
            return y

        with host.spliced(path, added):
            steered = host.log_probabilities(tokens)[counted]
        kl = (clean.exp() * (clean - steered)).sum(1).mean().item()
        low, high = (middle, high) if kl < damage else (low, middle)
    assert change == pytest.approx((steered - clean).mean(0).numpy(), abs=1e-4)
    assert steering.vocabulary == len(change)
