"""Recovery of a known dictionary and tree: by hand, and against the scorer of SynthSAEBench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hiersae_cli import load_run
from hiersae_cli.config.architectures import DictionaryOptions
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.description import FiringRows
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.intervals import Bootstrap
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, Moments
from hiersae_cli.metrics.recovery import (
    DetectorSums,
    Matching,
    edge_recovery,
    match_features,
    mean_correlation,
    shuffled_parents,
    uniqueness,
    within_reach,
)
from hiersae_cli.metrics.tree import binary_entropy
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.synth import Truth, generator
from hiersae_cli.workflows import synth
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.eval.trees import TreeSums
from hiersae_cli.workflows.train import run as train

# Two trees 0 -> {1 -> 2, 3} and 4 -> 5, and the loose features 6 and 7.
PARENTS = np.array([-1, 0, 1, 0, -1, 4, -1, -1])
ALL = np.ones(8, bool)


def matching_of(features: list[int], cosine: float = 0.9) -> Matching:
    matched = np.array(features)
    return Matching(matched, matched, np.where(matched < 0, 0.0, cosine))


def test_a_perfect_dictionary_scores_one_in_any_order_and_sign() -> None:
    features = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])
    matching = match_features(-3 * features[order], features)
    assert matching.matched_F.tolist() == matching.nearest_F.tolist() == order.tolist()
    assert mean_correlation(matching) == pytest.approx(1, abs=1e-6)
    assert uniqueness(matching) == 1


def test_matching_is_one_to_one_and_leaves_surplus_latents_out() -> None:
    matching = match_features(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 0.0]]), torch.eye(2))
    assert matching.nearest_F.tolist()[:2] == [0, 0]
    assert matching.matched_F.tolist() == [0, 1, -1]
    assert uniqueness(matching) == pytest.approx(1 / 3)
    assert mean_correlation(matching) == pytest.approx((1 + 0.1 / 1.01**0.5) / 2)


def test_detectors_by_hand() -> None:
    code = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 0]])
    truth = torch.tensor([[1.0, 0], [0, 0], [0, 1], [0, 1]])
    sums = DetectorSums(2, np.array([0, 1, 1]), 2)
    for part in (slice(0, 3), slice(3, 4)):
        sums.add(Firings.of(code[part]), truth[part], torch.tensor([0, 0, 1, 1])[part])
    scores = sums.scores(np.array([[1.0, 1.0], [1.0, 0.0]]))
    assert scores["precision"] == pytest.approx([(0.5 + 1 + 0) / 3, 0.5 / 3])
    assert scores["recall"] == pytest.approx([(1 + 0.5 + 0) / 3, 1 / 3])
    assert scores["f1"] == pytest.approx([(2 / 3 + 2 / 3 + 0) / 3, (2 / 3) / 3])


def test_true_tree_is_recovered_whole() -> None:
    found = edge_recovery(matching_of(list(range(8))), PARENTS, PARENTS, ALL)
    assert (found.recovered, found.correct, found.reachable, found.found) == (4, 4, 4, 4)
    assert found.precision == found.recall == found.f1 == 1


def test_edges_by_hand() -> None:
    # Latents 0..4 stand for features 0, 1, 2, 5 and, too faintly, 4.
    matching = matching_of([0, 1, 2, 5, 4])
    matching.cosine_F[4] = 0.6
    tree = np.array([-1, 0, 0, 4, -1])  # right; grandparent instead of parent; right, but its parent is not matched
    strict = edge_recovery(matching, tree, PARENTS, ALL)
    assert (strict.recovered, strict.correct, strict.reachable, strict.found) == (3, 1, 4, 1)
    assert strict.precision == pytest.approx(1 / 3) and strict.recall == 1 / 4
    assert strict.f1 == pytest.approx(2 / (3 + 4))
    assert edge_recovery(matching, tree, PARENTS, ALL, ancestors=True).correct == 2
    assert edge_recovery(matching, tree, PARENTS, ALL, cosine=0.5).correct == 2
    assert edge_recovery(matching, tree, PARENTS, ALL, cosine=0.95).correct == 0


def test_recall_is_over_the_edges_within_reach() -> None:
    reachable = within_reach(np.array([0.4, 0.3, 0.1, 0.3, 0.2, 0.1, 0.3, 0.1]), 5)
    assert np.flatnonzero(reachable).tolist() == [0, 1, 3, 4, 6]
    found = edge_recovery(matching_of([0, 1, 4, 5]), np.array([-1, 0, -1, 2]), PARENTS, reachable)
    # Edges 0 -> 1 and 0 -> 3 lie within reach; 4 -> 5, which was found, does not.
    assert (found.recovered, found.correct, found.reachable, found.found) == (2, 2, 2, 1)


def test_no_edges_is_no_error() -> None:
    none = np.full(8, -1)
    found = edge_recovery(matching_of(list(range(8))), none, none, ALL)
    assert found.precision == found.recall == found.f1 == 0


def test_agrees_with_the_scorer_of_synthsaebench() -> None:
    evals = pytest.importorskip("sae_lens.synthetic.evals", reason="the official scorer is in the extra 'synth'")
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(60, 16, generator=generator)
    decoder = torch.cat([features[:30] + 0.3 * torch.randn(30, 16, generator=generator), features[:5], features[:1]])
    truth = torch.relu(torch.randn(500, 60, generator=generator) - 1)
    code = torch.relu(truth[:, [*range(30), 0, 1, 2, 3, 4, 0]] + 0.7 * torch.randn(500, 36, generator=generator) - 0.5)
    code[:, 7] = 0
    matching = match_features(decoder, features)
    sums = DetectorSums(1, matching.nearest_F, 60)
    sums.add(Firings.of(code), truth, torch.zeros(500, dtype=torch.int64))
    ours = {name: value[0] for name, value in sums.scores(np.ones((1, 1))).items()}
    theirs = evals.compute_classification_metrics(code, truth, decoder, features)
    assert mean_correlation(matching) == pytest.approx(evals.mean_correlation_coefficient(decoder, features), abs=1e-3)
    assert uniqueness(matching) == pytest.approx(evals.feature_uniqueness(decoder, features), abs=1e-3)
    assert ours["precision"] == pytest.approx(theirs.precision, abs=1e-3)
    assert ours["recall"] == pytest.approx(theirs.recall, abs=1e-3)
    assert ours["f1"] == pytest.approx(theirs.f1_score, abs=1e-3)


def test_shuffled_parents_keep_levels_and_numbers_of_children() -> None:
    tree = np.array([-1, -1, 0, 0, 1, -1, 2, 3, 3, 4, 4, 4])
    shuffled = shuffled_parents(tree, Levels((2, 4, 6)), seed=1)
    assert (shuffled != tree).any() and (shuffled[[0, 1, 5]] == -1).all()
    for level in (slice(2, 6), slice(6, 12)):
        assert sorted(shuffled[level]) == sorted(tree[level])


class TrueModel(SparseAutoencoder):
    """The toy's own features as latents."""

    def __init__(self, truth: Truth):
        super().__init__(truth.width, DictionaryOptions(widths=(3, len(truth) - 3), k=(1, 1)))
        self.W_dec_FD.data.copy_(truth.features_ND)

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        return (x_BD @ self.W_dec_FD.T - 0.3).clamp_min(0)


@pytest.mark.parametrize("learned", [True, False])
def test_figures_of_the_truth_itself(learned: bool) -> None:
    source = generator("toy")
    truth, model = source.truth, TrueModel(source.truth)
    fitted, data = FiringRows(20), DataSums(4, truth.width)
    fitted.add(Firings.of(model.encode(source.sample(20_000, seed=1)[0])))
    x, magnitudes = source.sample(8000, seed=2)
    block, firings, moments = torch.arange(8000) // 2000, Firings.of(model.encode(x)), Moments(x.mean(0))
    sums = CodeSums(4, model.widths)
    with torch.no_grad():
        trees = TreeSums(model, truth.parent_N.numpy() if learned else None, fitted, truth, moments, 4, seed=0)
        data.add(x, block)
        moments.add(x)
        sums.add(x, firings, model.decode(model.encode(x)), block)
        trees.add(x, firings, block, magnitudes)
        for start in range(0, 8000, 500):
            trees.add_stretch(firings.between(start, start + 500))
        found = trees.figures(sums, data, Bootstrap(4, 100, 0))
    value = {name: figure.estimate(0.95).value for name, figure in found.items()}
    for name in ("mcc", "uniqueness", "f1", "precision", "recall", "edge_f1", "edge_recall", "ancestor_f1"):
        assert value[name] == pytest.approx(1, abs=1e-3), name
    assert value["hierarchy_score"] == 1
    assert value["edge_f1_shuffled"] < 0.7
    assert value["beyond_shift"] == 1 and value["p_parent_given_child"] == pytest.approx(1)
    assert value["sibling_overlap"] == pytest.approx(0, abs=0.01)  # siblings exclude each other
    assert value["sibling_cosine"] == pytest.approx(0, abs=1e-6)  # and are orthogonal
    # A parent fires alone in two fifths of its rows, 1 - 3 x 0.2, and no child without it.
    assert value["or_distance"] == pytest.approx(0.4, abs=0.04)
    assert all(figure.estimate(0.95).low is not None for figure in found.values())
    # Each of nine children that fires in a fifth of its parent's rows, the tree tells when it cannot.
    parent, child = 0.15, 0.03
    told = 9 * (binary_entropy(child) - parent * binary_entropy(0.2))
    assert value["bits_per_token"] - value["bits_per_token_tree"] == pytest.approx(told, rel=0.1)
    # Siblings exclude each other, which Chow and Liu's tree may use too.
    assert value["bits_per_token_chow_liu"] <= value["bits_per_token_tree"] + 0.01


def test_eval_of_a_synthetic_cache(tmp_path: Path) -> None:
    acts, run, all_held_out = str(tmp_path / "acts.h5"), str(tmp_path / "run"), str(tmp_path / "held_out.h5")
    synth.run(SynthConfig(preset="toy", out=acts, rows=6000, held_out=0.3, device="cpu"))
    synth.run(SynthConfig(preset="toy", out=all_held_out, rows=2000, held_out=2000, device="cpu"))
    train.run(
        TrainConfig(acts=[acts], out=run, widths=(3, 17), k=(1, 1), tokens=20_000, batch=256, buffer=1, device="cpu")
    )
    out = tmp_path / "report.json"
    evaluate.run(EvalConfig(runs=[run], acts=[acts], out=str(out), resamples=100, device="cpu"))
    report = json.loads(out.read_text())["runs"]["run"]
    model, truth = load_run(run).model, generator("toy").truth
    matching = match_features(model.W_dec_FD, truth.features_ND)
    assert report["mcc"]["value"] == pytest.approx(mean_correlation(matching), abs=1e-6)
    assert report["f1"]["low"] < report["f1"]["value"] < report["f1"]["high"]
    assert {"edge_f1", "ancestor_f1", "hierarchy_score", "bits_per_token_tree"} <= set(report)
    # Nothing can be fitted where all is held out, but weights can be scored.
    report = evaluate.run(EvalConfig(runs=[run], acts=[all_held_out], resamples=100, device="cpu"))["runs"]["run"]
    assert "mcc" in report and "bits_per_token" not in report
