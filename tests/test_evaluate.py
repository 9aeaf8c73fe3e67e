"""``hiersae eval``: each figure against a computation by hand, the report's form, and refusals."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiersae_cli import Activations, load_run
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.formats.activations import HELD_OUT, ActivationSet
from hiersae_cli.host.model import Host
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums
from hiersae_cli.metrics.tree import edge_statistics
from hiersae_cli.workflows.eval import run as evaluate
from tests.helpers import hiersae

METRICS = (
    "fvu", "ev", "l0", "l0_level_0", "l0_level_1", "dead", "ce_recovered", "kl",
    "mi_bits", "mi_over_max", "p_parent_given_child", "lift",
)  # fmt: skip


@pytest.fixture(scope="module")
def report(
    tiny_host: Path, tiny_acts: Path, tiny_hier: Path, tiny_flat: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("eval") / "report.json"
    done = hiersae(
        "eval", tiny_hier, "--baseline", tiny_flat, "--acts", tiny_acts, "--model", tiny_host, "-o", out, "--json"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(out.read_text())
    return dict(json.loads(out.read_text()))


@pytest.fixture(scope="module")
def held_out(tiny_acts: Path) -> torch.Tensor:
    with Activations(tiny_acts) as acts:
        module = acts.modules[0]
        return acts.read(module)[torch.from_numpy(acts.usable(module, HELD_OUT))].double()


def test_the_norms_of_a_cache_are_read_once_for_all_runs(
    tiny_hier: Path, tiny_flat: Path, tiny_acts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[ActivationSet] = []
    monkeypatch.setattr(ActivationSet, "check_finite", lambda acts: looks.append(acts))
    runs = [load_run(path) for path in (tiny_hier, tiny_flat)]
    evaluate.open_caches(runs, EvalConfig(runs=["hier"], acts=[str(tiny_acts)])).close()
    assert len(looks) == 1


def test_report_has_the_promised_keys(report: dict[str, Any], tiny_hier: Path, tiny_flat: Path) -> None:
    hier, flat = report["runs"][tiny_hier.name], report["runs"][tiny_flat.name]
    assert set(METRICS) <= set(hier)
    assert set(METRICS) - {"l0_level_0", "l0_level_1"} <= set(flat)
    assert list(report["paired"]) == [tiny_flat.name, "random", "neurons", "pca"]
    for figures in (hier, flat, report["paired"][tiny_flat.name]):
        for metric, figure in figures.items():
            extra = {"p", "p_holm", "verdict"} if figures is report["paired"][tiny_flat.name] else set()
            assert set(figure) == {"value", "low", "high", "n", "unit"} | extra
            assert figure["low"] <= figure["value"] <= figure["high"], metric
    assert report["schema"] == "hiersae.report"
    assert report["subjects"][tiny_flat.name]["tree"] == "post-hoc"


def test_reconstruction_figures_by_hand(report: dict[str, Any], held_out: torch.Tensor, tiny_hier: Path) -> None:
    model = load_run(tiny_hier).model.double()
    code = model.encode(held_out)
    error = (held_out - model.decode(code)).square().sum()
    fvu = (error / (held_out - held_out.mean(0)).square().sum()).item()
    figures = report["runs"][tiny_hier.name]
    assert figures["fvu"]["value"] == pytest.approx(fvu, rel=1e-3)
    assert figures["ev"]["value"] == pytest.approx(1 - fvu, rel=1e-3)
    assert figures["fvu"]["n"] == len(held_out)
    active = (code > 0).double()
    assert figures["l0"]["value"] == pytest.approx(active.sum(1).mean().item(), rel=1e-3)
    assert figures["l0_level_0"]["value"] == pytest.approx(active[:, :16].sum(1).mean().item(), rel=1e-3)
    assert figures["dead"]["value"] == pytest.approx((active.sum(0) == 0).double().mean().item(), abs=0.01)


def test_tree_figures_by_hand(report: dict[str, Any], held_out: torch.Tensor, tiny_hier: Path) -> None:
    model = load_run(tiny_hier).model
    code, figures = model.encode(held_out.float()), report["runs"][tiny_hier.name]
    shares = shares_of_parents(model, code)
    assert figures["p_parent_given_child"]["n"] == len(shares) > 0
    assert figures["p_parent_given_child"]["value"] == pytest.approx(np.mean(shares), rel=1e-6)
    fired, parent = (code > 0).numpy(), model.parent_F.numpy()
    nested = fired[:, parent >= 0] & fired[:, parent[parent >= 0]]
    assert figures["nested_firings"]["value"] == pytest.approx(nested.sum() / fired.sum(), rel=1e-6)


def shares_of_parents(model: Any, code: torch.Tensor) -> list[float]:
    """P(parent | child) of every edge whose child fires 20 times."""
    fired = (code > 0).numpy()
    edges = ((child, parent) for child, parent in enumerate(model.parent_F.tolist()) if parent >= 0)
    return [fired[fired[:, child], parent].mean() for child, parent in edges if fired[:, child].sum() >= 20]


def test_three_levels(tiny_acts: Path, tiny_deep: Path, tiny_flat: Path, held_out: torch.Tensor) -> None:
    done = hiersae("eval", tiny_deep, "--baseline", tiny_flat, "--acts", tiny_acts, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    figures, model = report["runs"][tiny_deep.name], load_run(tiny_deep).model
    code = model.encode(held_out.float())
    for level, part in enumerate(model.level_slices()):
        active = (code[:, part] > 0).float().sum(1).mean().item()
        assert figures[f"l0_level_{level}"]["value"] == pytest.approx(active, rel=1e-3)
    assert "l0_level_3" not in figures and "fvu_soft" not in figures
    shares = shares_of_parents(model, code)
    assert figures["p_parent_given_child"]["n"] == len(shares) > 20
    assert figures["p_parent_given_child"]["value"] == pytest.approx(np.mean(shares), rel=1e-6)
    assert report["subjects"][tiny_deep.name]["edges"] == (model.parent_F >= 0).sum()  # type: ignore[union-attr, operator]
    assert report["subjects"][tiny_flat.name]["tree"] == "post-hoc"


def test_a_flat_run_has_one_tree_whatever_it_is_compared_with(
    tiny_acts: Path, tiny_deep: Path, tiny_hier: Path, tiny_flat: Path
) -> None:
    def evaluated(run: Path, *baselines: Path) -> dict[str, Any]:
        config = EvalConfig(
            runs=[str(run)], baseline=list(map(str, baselines)), acts=[str(tiny_acts)], controls=False, device="cpu"
        )
        return dict(evaluate.run(config)["runs"][tiny_flat.name])

    alone = evaluated(tiny_flat)
    assert evaluated(tiny_deep, tiny_flat) == evaluated(tiny_hier, tiny_flat) == alone
    assert alone["p_parent_given_child"]["n"] == alone["hierarchy_score"]["n"] > 20


def test_a_hardened_tree_is_measured_on_soft_firing_too(
    tiny_acts: Path, tiny_hard: Path, tiny_flat: Path, held_out: torch.Tensor
) -> None:
    done = hiersae("eval", tiny_hard, "--baseline", tiny_flat, "--acts", tiny_acts, "--full")
    assert done.returncode == 0, done.stderr
    assert "fvu_soft" in done.stdout and "p_parent_given_child_soft" in done.stdout
    report = json.loads(hiersae("eval", tiny_hard, "--baseline", tiny_flat, "--acts", tiny_acts, "--json").stdout)
    figures, flat = report["runs"][tiny_hard.name], report["runs"][tiny_flat.name]
    model: Any = load_run(tiny_hard).model
    variance = (held_out - held_out.mean(0)).square().sum().item()
    for hard, fvu, l0, share in (
        (True, "fvu", "l0", "p_parent_given_child"),
        (False, "fvu_soft", "l0_soft", "p_parent_given_child_soft"),
    ):
        code = model.encode(held_out.float(), hard=hard)
        error = (held_out - model.decode(code)).square().sum().item()
        assert figures[fvu]["value"] == pytest.approx(error / variance, rel=1e-3)
        assert figures[l0]["value"] == pytest.approx((code > 0).sum(1).float().mean().item(), rel=1e-3)
        assert figures[share]["value"] == pytest.approx(np.mean(shares_of_parents(model, code)), rel=1e-6)
    assert figures["p_parent_given_child"]["value"] == 1 > figures["p_parent_given_child_soft"]["value"]
    # Soft firing against soft firing; what a hardened tree gives by its form is compared with nothing.
    paired = report["paired"][tiny_flat.name]
    for metric in ("mi_bits", "mi_over_max", "p_parent_given_child", "lift", "or_distance"):
        assert metric not in paired
        difference = figures[f"{metric}_soft"]["value"] - flat[metric]["value"]
        assert paired[f"{metric}_soft"]["value"] == pytest.approx(difference)
    assert paired["fvu_soft"]["value"] == pytest.approx(figures["fvu_soft"]["value"] - flat["fvu"]["value"])
    assert report["subjects"][tiny_hard.name]["hard"] and not report["subjects"][tiny_flat.name]["hard"]
    other = json.loads(hiersae("eval", tiny_flat, "--baseline", tiny_hard, "--acts", tiny_acts, "--json").stdout)
    turned = other["paired"][tiny_hard.name]
    assert set(turned) == set(paired)
    assert all(turned[metric]["value"] == pytest.approx(-paired[metric]["value"]) for metric in paired)


def test_differences_are_the_differences(report: dict[str, Any], tiny_hier: Path, tiny_flat: Path) -> None:
    hier, flat = report["runs"][tiny_hier.name], report["runs"][tiny_flat.name]
    for metric, figure in report["paired"][tiny_flat.name].items():
        assert figure["value"] == pytest.approx(hier[metric]["value"] - flat[metric]["value"])


def test_loss_figures_by_hand(report: dict[str, Any], tiny_host: Path, tiny_acts: Path, tiny_hier: Path) -> None:
    """Window by window, with the host's own loss and no batching."""
    host, run = Host.load(str(tiny_host), torch.device("cpu")), load_run(tiny_hier)
    with Activations(tiny_acts) as acts:
        tokens, position, split = (acts.column(name) for name in ("tokens", "position", "split"))
    starts = np.append(np.flatnonzero(position == 0), len(position))
    clean, spliced, ablated, count = 0.0, 0.0, 0.0, 0
    for start, stop in pairwise(starts):
        if split[start] != HELD_OUT or stop - start < 2:
            continue
        window = torch.from_numpy(tokens[start:stop].astype(np.int64))[None]
        kept = stop - start - 1

        def loss(window: torch.Tensor = window, kept: int = kept) -> float:
            with torch.no_grad():
                return float(host.model(window, labels=window).loss) * kept

        clean += loss()
        with host.spliced(run.module, lambda x: run.model(x.flatten(0, 1)).view_as(x)):
            spliced += loss()
        with host.spliced(run.module, torch.zeros_like):
            ablated += loss()
        count += kept
    figure = report["runs"][tiny_hier.name]["ce_recovered"]
    assert figure["n"] == count
    assert figure["value"] == pytest.approx((ablated - spliced) / (ablated - clean), rel=1e-3)


def test_splicing_the_activations_themselves_recovers_everything(tiny_host: Path) -> None:
    host = Host.load(str(tiny_host), torch.device("cpu"))
    sums = LossSums(2, {"same": lambda x: x, "zero": torch.zeros_like})
    tokens = torch.randint(0, 10, (4, 12), generator=torch.Generator().manual_seed(0))
    lengths, everywhere = torch.tensor([12, 12, 7, 2]), torch.ones(4, 12, dtype=torch.bool)
    sums.add(host, host.layer_path(1), tokens, lengths, everywhere, torch.tensor([0, 0, 1, 1]))
    ones = np.ones((1, 2))
    assert sums.tokens_K.tolist() == [22, 7]
    assert sums.kl("same", ones)[0] == 0
    assert sums.recovered("same", "zero", ones)[0] == 1
    assert sums.kl("zero", ones)[0] > 0


@pytest.mark.filterwarnings("error")
def test_a_resampling_without_a_measured_token_has_no_loss() -> None:
    sums = LossSums(2, {"same": lambda x: x, "zero": torch.zeros_like})
    sums.tokens_K[0] = 5
    without = np.array([[0.0, 2.0]])
    assert np.isnan([sums.ce("clean", without), sums.kl("same", without)]).all()
    assert np.isnan(sums.recovered("same", "zero", without)).all()


def test_sums_of_batches_equal_sums_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    x, code = torch.randn(100, 6, generator=generator), torch.relu(torch.randn(100, 8, generator=generator))
    block = torch.arange(100) // 30
    results = []
    for size in (7, 100):
        data, sums = DataSums(4, 6), CodeSums(4, (3, 5))
        for part in torch.arange(100).split(size):
            data.add(x[part], block[part])
            sums.add(x[part], Firings.of(code[part]), x[part] * 0.5, block[part])
        w = np.array([[1.0, 1, 1, 1], [2, 0, 1, 0]])
        results.append(np.concatenate([sums.fvu(data, w), sums.l0(data, w), sums.l0(data, w, 1), [sums.dead()]]))
    assert results[0] == pytest.approx(results[1])
    assert results[0][0] == pytest.approx((0.25 * x.square().sum() / (x - x.mean(0)).square().sum()).item(), rel=1e-5)


def test_without_a_host_there_are_no_losses(tiny_acts: Path, tiny_hier: Path) -> None:
    done = hiersae("eval", tiny_hier, "--acts", tiny_acts, "--json")
    figures = json.loads(done.stdout)["runs"][tiny_hier.name]
    assert "fvu" in figures and "kl" not in figures


def test_an_unmatched_baseline_is_announced(tiny_acts: Path, tiny_hier: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    done = hiersae(
        "train", tiny_acts, "--arch", "topk", "--widths", "64", "--k", "3", "--tokens", "8k", "--seed", "4", "-o", other
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = hiersae("eval", tiny_hier, "--baseline", other, "--acts", tiny_acts, "--json")
    assert "not matched" in done.stderr
    words = " ".join(json.loads(done.stdout)["mismatches"]["other"])
    for difference in ("latents: 128 against 64", "wanted L0: 8 against 3", "seed", "training tokens"):
        assert difference in words


def test_two_runs_of_one_name_are_told_apart(tiny_acts: Path, tiny_hier: Path, tmp_path: Path) -> None:
    again = tmp_path / tiny_hier.name
    shutil.copytree(tiny_hier, again)
    done = hiersae("eval", tiny_hier, "--baseline", again, "--acts", tiny_acts, "--json")
    report = json.loads(done.stdout)
    assert list(report["runs"])[:2] == [tiny_hier.name, f"{tiny_hier.name}_2"]
    assert report["paired"][f"{tiny_hier.name}_2"]["fvu"]["value"] == 0


def test_refusals_name_the_file_and_leave_nothing(
    tiny_acts: Path, tiny_hier: Path, tiny_host: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_hier, damaged)
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    newer = tmp_path / "newer"
    shutil.copytree(tiny_hier, newer)
    header = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps({**header, "schema_version": 99}))
    stranger = tmp_path / "stranger"
    shutil.copytree(tiny_host, stranger)
    (stranger / "config.json").write_text((stranger / "config.json").read_text() + "\n")
    for arguments, code, words in (
        (("nowhere", "--acts", tiny_acts), 2, "nowhere"),
        ((tiny_hier,), 2, "--acts"),
        ((tiny_hier, "--acts", "nothing.h5"), 2, "nothing.h5"),
        ((damaged, "--acts", tiny_acts), 1, "damaged"),
        ((newer, "--acts", tiny_acts), 1, "99"),
        ((tiny_hier, "--acts", tiny_acts, "--model", stranger), 1, "not the model"),
        ((tiny_hier, "--acts", tiny_acts, "--model", tmp_path / "no" / "host"), 2, "host"),
        ((tiny_hier, "--acts", tiny_acts, "--confidence", "2"), 2, "confidence"),
    ):
        done = hiersae("eval", *arguments, "-o", out)
        assert done.returncode == code, (arguments, done.stderr)
        assert words in done.stderr and "Traceback" not in done.stderr, (arguments, done.stderr)
        assert not out.exists()
    out.write_text("precious")
    done = hiersae("eval", tiny_hier, "--acts", tiny_acts, "-o", out)
    assert done.returncode == 1 and out.read_text() == "precious"


def test_statistics_of_a_perfect_edge() -> None:
    values = edge_statistics(150.0, 30.0, 30.0, 1000.0)
    assert values["p_parent_given_child"] == 1
    assert values["mi_over_max"] == pytest.approx(1, abs=0.02)
