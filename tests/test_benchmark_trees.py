"""The benchmark of trees, in small: its rows, that it goes on where it was stopped, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from hiersae_cli.config.architectures import HierOptions
from hiersae_cli.console import Console
from hiersae_cli.errors import UsageError

ROW = {
    "suite", "seed", "arch", "trainer", "options", "data", "samples", "l0_wanted", "l0", "f1", "mcc", "uniqueness",
    "edge_f1", "edge_precision", "edge_recall", "fvu", "bits_per_token", "bits_per_token_tree", "p_parent_given_child",
    "hierarchy_score", "seconds", "dictionary", "tries",
}  # fmt: skip


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from benchmarks.trees import __main__ as trees

    monkeypatch.setattr(trees, "_QUICK_ROWS", {"held_out": 4096, "fitting": 4096})
    return trees


def bench(trees: ModuleType, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    common = ("--quick", "--device", "cpu", "--json", str(folder / "rows.json"), "--scratch", str(folder / "scratch"))
    trees.run(trees.parser().parse_args([*arguments, *common]), Console.silent())
    return json.loads((folder / "rows.json").read_text())["rows"]


def test_rows_of_the_toy_and_going_on(trees: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chart = tmp_path / "chart.svg"
    rows = bench(trees, tmp_path, "toy", "--samples", "20k", "--seeds", "1", "--plot", str(chart))
    assert chart.read_text().count('<g id="axes_') == 2
    assert [row["arch"] for row in rows] == [
        "hier-3-17", "hier-5-15", "batchtopk", "batchtopk+max-mi", "batchtopk+chow-liu"
    ]  # fmt: skip
    assert all(set(row) == ROW and row["trainer"] == "hiersae" for row in rows)
    assert rows[2]["edge_f1"] == max(rows[3]["edge_f1"], rows[4]["edge_f1"])
    with np.load(tmp_path / "rows" / rows[2]["dictionary"]) as content:
        assert content["decoder_FD"].shape == (20, 20)
        assert content["batchtopk+chow-liu"].shape == (20,)
    head = json.loads((tmp_path / "rows.json").read_text())
    assert head["versions"]["torch"] and head["machine"]["cores"]

    trained = []
    inner = trees.train_ours
    monkeypatch.setattr(trees, "train_ours", lambda config, *rest: trained.append(config) or inner(config, *rest))
    more = bench(trees, tmp_path, "toy", "--samples", "20k", "--seeds", "2", "--only", "hier-3")
    assert more[: len(rows)] == rows and len(more) == len(rows) + 1
    assert [config.seed for config in trained] == [1]
    changed = bench(trees, tmp_path, "toy", "--samples", "20k", "--seeds", "1", "--set", "tree_weight=0")
    assert [row["arch"] for row in changed[len(more) :]] == ["hier-3-17", "hier-5-15"]  # the flat ones have no tree
    assert changed[-1]["options"]["tree_weight"] == 0
    tuned = bench(trees, tmp_path, "toy", "--samples", "20k", "--seeds", "1", "--set-flat", "lr=0.01")
    assert [row["arch"] for row in tuned[len(changed) :]] == ["batchtopk", "batchtopk+max-mi", "batchtopk+chow-liu"]
    assert tuned[-1]["options"] == {"lr": 0.01} and tuned[-1]["fvu"] != rows[-1]["fvu"]


def test_ablations_lack_their_part(trees: ModuleType, tmp_path: Path) -> None:
    learned = {}
    for part in ("hard", "activation", "random-tree"):
        row = bench(trees, tmp_path, "toy", "--samples=60k", "--seeds=1", "--only=hier-5", f"--ablate={part}")[-1]
        assert row["options"]["variant"] == part
        with np.load(tmp_path / "rows" / row["dictionary"]) as content:
            learned[part] = content["hier-5-15"]
        assert (row["p_parent_given_child"] == 1) == (part == "hard")
    again = bench(trees, tmp_path, "toy", "--samples=20k", "--seeds=1", "--only=hier-5", "--ablate=random-tree")[-1]
    with np.load(tmp_path / "rows" / again["dictionary"]) as content:
        assert (content["hier-5-15"] == learned["random-tree"]).all() and (learned["random-tree"][5:] >= 0).all()
    assert (learned["activation"] != learned["random-tree"]).any()

    from benchmarks.trees.ablations import ReadsTheActivation

    model = ReadsTheActivation(
        6, HierOptions(widths=(2, 3), k=(1, 1))
    ).eval()  # thresholds of 0: all that is positive fires
    model.initialise(torch.zeros(6), 0)
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.encode(x), torch.relu(x @ model.W_enc_FD.T), atol=1e-6)


def test_a_priced_flat_dictionary_fires_what_is_cheap(trees: ModuleType, tmp_path: Path) -> None:
    arguments = ("toy", "--samples=60k", "--seeds=1", "--only=batchtopk", "--set-flat=tree_weight=1.0")
    plain = bench(trees, tmp_path, *arguments)[-1]
    priced = bench(trees, tmp_path, *arguments, "--control=priced")[-1]
    assert priced["options"]["variant"] == "priced" and priced["fvu"] != plain["fvu"]

    from benchmarks.trees.ablations import Priced

    model = Priced(
        4, trees.TrainConfig(arch="batchtopk", widths=(4,), k=(1,), tree_weight=1.0, curriculum="none")
    ).train()
    model.initialise(torch.zeros(4), 0)
    model.fired_F.copy_(torch.tensor([900.0, 100.0, 10.0, 0.0]))
    model.rows.fill_(1000.0)
    model.finish()
    assert model.price_F[0] == 0.5 and model.price_F.diff().gt(0).all()  # log2((1 - q) / q), no firing free
    assert model.price_F[1].item() == pytest.approx(np.log2(900.5 / 100.5), abs=1e-5)


def test_of_several_tries_the_best_is_kept(trees: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    train = trees.train_ours

    def kept(*arguments: Any) -> Any:
        made.append(train(*arguments))
        return made[-1]

    monkeypatch.setattr(trees, "train_ours", kept)
    row = bench(trees, tmp_path, "toy", "--samples=60k", "--seeds=1", "--only=hier-3", "--tries=3")[-1]
    with np.load(tmp_path / "rows" / row["dictionary"]) as content:
        chosen = [np.array_equal(content["decoder_FD"], model.W_dec_FD.detach().numpy()) for model in made]
    held = trees.DrawnRows(
        "toy", trees.Shape(), 60_000, 20_000, 200_000, tmp_path / "again", torch.device("cpu"), Console.silent()
    )
    with torch.inference_mode():
        errors = [sum(float((x - m(x)).square().sum()) for x in held.fitting()) for m in made]
    assert row["tries"] == 3 and sum(chosen) == 1 and errors[chosen.index(True)] == min(errors)


def test_saelens_reads_the_same_rows(trees: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("sae_lens")
    shape = ["--truth-features=40", "--truth-width=16", "--truth-roots=4", "--truth-branching=2", "--truth-depth=1"]
    small = [*shape, "--samples=20k", "--l0=2", "--widths=4,12"]
    rows = bench(trees, tmp_path, "synthtree-1k", *small, "--only=saelens")
    assert [row["arch"] for row in rows if "+" not in row["arch"]] == ["saelens-batchtopk", "saelens-matryoshka-4-16"]
    assert all(set(row) == ROW and row["trainer"].startswith("sae-lens") for row in rows)
    assert all(0 < row["fvu"] < 2 for row in rows)
    again = bench(trees, tmp_path, "synthtree-1k", *small, "--only=saelens-b", "--set-flat=lr=0.001")
    smaller = bench(trees, tmp_path, "synthtree-1k", *small, "--only=saelens-b", "--set-flat=batch=512")
    fvu = {json.dumps(row["options"]): row["fvu"] for row in smaller if row["arch"] == "saelens-batchtopk"}
    assert again[-1]["options"] == {"lr": 0.001} and len(fvu) == 3
    assert fvu["{}"] == fvu['{"lr": 0.001}'] != fvu['{"batch": 512}']


def test_drawn_rows_are_kept_and_lengthened(trees: ModuleType, tmp_path: Path) -> None:
    def opened(samples: int) -> Any:
        cpu = torch.device("cpu")
        return trees.DrawnRows("toy", trees.Shape(), samples, 2048, 2048, tmp_path, cpu, Console.silent())

    short = opened(3 * 2048)
    batches = [batch for _, batch in zip(range(4), short.training(0), strict=False)]
    assert torch.equal(batches[0], batches[3]) and not torch.equal(batches[0], batches[1])
    assert torch.equal(next(short.training(9)), batches[2])
    with open(next(tmp_path.glob("*.float32")), "ab") as file:
        file.write(b"a draw that was stopped")
    long = opened(5 * 2048)
    again = [batch for _, batch in zip(range(5), long.training(0), strict=False)]
    assert all(torch.equal(one, two) for one, two in zip(batches[:3], again, strict=False))
    assert next(tmp_path.glob("*.float32")).stat().st_size == 5 * 2048 * 20 * 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("toy", "--widths", "3,17", "--widths", "5,25"),
        ("toy", "--samples", "10"),
        ("toy", "--set", "k_start=0.5"),
        ("toy", "--set-flat", "batch=100"),
        ("shakespeare",),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    trees: ModuleType, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError):
        bench(trees, tmp_path, *arguments)
    assert not (tmp_path / "rows.json").exists()
