"""A small benchmark of trees: it trains and measures with the real commands, resumes, and refuses bad options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.trees import __main__ as trees
from benchmarks.trees import families, table
from benchmarks.trees.ablations import VARIANTS, Priced, ReadsTheActivation
from hiersae_cli import load_run
from hiersae_cli.config.architectures import ARCHITECTURES, HierOptions
from hiersae_cli.console import Console
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.tree import Node, Tree

PARENT, CHILDREN = Node("a0", None, 0, 0, {"rate": 0.25}, label="when"), ("after", "before", "until")
SMALL = [
    *("--truth-features=40", "--truth-width=16", "--truth-roots=4", "--truth-branching=2", "--truth-depth=1"),
    *("--samples=20k", "--l0=2", "--widths=4,12"),
]


@pytest.fixture(autouse=True)
def variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only these tests know the benchmark's architectures."""
    for name, architecture in VARIANTS.items():
        monkeypatch.setitem(ARCHITECTURES, name, architecture)


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    options = trees.parser().parse_args([*arguments, "--quick", "--device=cpu", f"--out={folder}"])
    return trees.run(options, Console.silent())[-1]


def test_the_toy_suite_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = bench(tmp_path, "toy", "--samples=20k", "--seeds=1")
    names = [f"{name}-l1.16-20k-seed0" for name in ("hier-3-17", "hier-5-15", "batchtopk")]
    assert list(report["runs"]) == names and report == json.loads((tmp_path / "report-l1.16.json").read_text())
    assert all(0 <= report["runs"][name]["edge_f1"]["value"] <= 1 for name in names)

    trained = []
    train = trees.train.run
    monkeypatch.setattr(trees.train, "run", lambda config, console: trained.append(config) or train(config, console))
    more = bench(tmp_path, "toy", "--samples=20k", "--seeds=2", "--only=hier-3")
    assert [config.seed for config in trained] == [1] and set(more["runs"]) == {names[0], "hier-3-17-l1.16-20k-seed1"}
    bench(tmp_path, "toy", "--samples=20k", "--seeds=1", "--only=hier-3", "--set", "tree_weight=0")
    assert load_run(tmp_path / "hier-3-17-l1.16-20k-tree_weight=0-seed0").config.tree_weight == 0


def test_ablations_lack_their_part(tmp_path: Path) -> None:
    parents = {}
    for part in ("hard", "activation", "random-tree"):
        report = bench(tmp_path, "synthtree-1k", *SMALL, "--only=hier", f"--ablate={part}")
        (name,) = report["runs"]
        assert name == f"hier-4-12-{part}-l2-20k-seed0"
        parents[part] = load_run(tmp_path / name).model.parent_F
        assert (report["runs"][name]["p_parent_given_child"]["value"] == 1) == (part == "hard")
    assert (parents["random-tree"][4:] >= 0).all() and not torch.equal(parents["activation"], parents["random-tree"])

    model = ReadsTheActivation(6, HierOptions(widths=(2, 3), k=(1, 1))).eval()
    model.initialise(torch.zeros(6), 0)  # thresholds of 0: every positive pre-activation fires
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.encode(x), torch.relu(x @ model.W_enc_FD.T), atol=1e-6)


def test_a_priced_flat_dictionary_has_lower_prices_for_frequent_latents(tmp_path: Path) -> None:
    arguments = ("synthtree-1k", *SMALL, "--only=batchtopk", "--set-flat=tree_weight=1.0")
    (plain,) = bench(tmp_path, *arguments)["runs"].values()
    (priced,) = bench(tmp_path, *arguments, "--control=priced")["runs"].values()
    assert plain["fvu"] != priced["fvu"]

    model = Priced(4, HierOptions(widths=(4,), k=(1,), tree_weight=1.0, curriculum="none")).train()
    model.initialise(torch.zeros(4), 0)
    model.fired_F.copy_(torch.tensor([900.0, 100.0, 10.0, 0.0]))
    model.rows.fill_(1000.0)
    model.finish()
    assert model.price_F[0] == 0.5 and model.price_F.diff().gt(0).all()  # log2((1 - q) / q), but no firing is free
    assert model.price_F[1].item() == pytest.approx(np.log2(900.5 / 100.5), abs=1e-5)


def test_only_the_best_of_several_tries_is_measured(tmp_path: Path) -> None:
    report = bench(tmp_path, "toy", "--samples=20k", "--seeds=1", "--only=hier-3", "--tries=3")
    fvu = {
        run.parent.name: json.loads(run.read_text().splitlines()[-1])["fvu"] for run in tmp_path.glob("*/metrics.jsonl")
    }
    assert len(fvu) == 3 and list(report["runs"]) == [min(fvu, key=fvu.__getitem__)]


def test_the_best_of_several_rates_is_measured_on_a_cache(tmp_path: Path, tiny_acts: Path, tiny_host: Path) -> None:
    rows = tmp_path / "rows.json"
    cache = ("smollm2", f"--acts={tiny_acts}", "--module=transformer.h.1", f"--model={tiny_host}", f"--json={rows}")
    report = bench(tmp_path, *cache, "--samples=4k", "--l0=4", "--rates=0.5,2")
    names = ("hier-64-64", "batchtopk", "matryoshka-32-128")
    assert [name.partition("-l4-")[0] for name in report["runs"]] == list(names)
    fvu = {path.parent.name: json.loads(path.read_text().splitlines()[-1])["fvu"] for path in tmp_path.glob("b*/m*l")}
    assert len(fvu) == 2 and min(fvu, key=fvu.__getitem__) in report["runs"]
    figures = json.loads(rows.read_text())
    assert [row["arch"] for row in figures] == ["hier", "batchtopk", "matryoshka"]
    assert all({"fvu", "ce_recovered", "hierarchy_score", "absorption"} <= row.keys() for row in figures)


def test_saelens_reads_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("sae_lens")
    runs = bench(tmp_path, "synthtree-1k", *SMALL, "--seeds=2", "--only=saelens")["runs"]
    kinds = ("saelens-batchtopk", "saelens-matryoshka-4-16")
    assert list(runs) == [f"{kind}-l2-20k-seed{seed}" for kind in kinds for seed in (0, 1)]
    assert all(0 < figures["fvu"]["value"] < 2 for figures in runs.values())
    smaller = bench(tmp_path, "synthtree-1k", *SMALL, "--only=saelens-b", "--set-flat=batch=512")["runs"]
    (figures,) = smaller.values()
    assert figures["fvu"] != runs["saelens-batchtopk-l2-20k-seed0"]["fvu"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("toy", "--widths", "3,17", "--widths", "5,25"),
        ("toy", "--samples", "10"),
        ("toy", "--set", "k_start=0.5"),
        ("synthtree-1k", "--set-flat", "refine=True"),
        ("cache",),
    ],
)
def test_options_that_do_not_fit_are_refused_before_drawing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        bench(tmp_path / "new", *arguments)
    assert not (tmp_path / "new").exists()


def test_the_table_has_a_row_for_each_architecture_and_the_frontiers_a_line() -> None:
    def figures(fvu: float, low: float | None, high: float | None) -> dict[str, Any]:
        bits = {"value": 150.0, "low": None, "high": None}
        return {
            "fvu": {"value": fvu, "low": low, "high": high, "of_seeds": [fvu]},
            "l0": bits,
            "bits_per_token_tree": bits,
        }

    sizes = {"latents": 2048, "k": [12, 20]}
    report = {
        "subjects": {name: {"arch": name, **sizes} for name in ("hier", "topk", "control")},
        "groups": {
            "hier": {"subjects": ["hier"], "figures": figures(0.14, 0.138, 0.142)},
            "topk": {"subjects": ["topk"], "figures": figures(0.15, None, None)},
            "random": {"subjects": ["control"], "figures": {}},
        },
    }
    rows = table.rows_of(report)
    lines = table.table(rows, {"fvu": "FVU", "bits_per_token_tree": "bits", "lift": "lift"}).splitlines()
    assert lines[2:] == [
        "| hier | 2,048 | 32 | 1 | .140 ± .002 | 150.0 |  |",
        "| topk | 2,048 | 32 | 1 | .150 | 150.0 |  |",
    ]
    assert table.frontiers(rows).count("<svg") == 1


def test_families_stand_at_equal_distances() -> None:
    nodes = [PARENT]
    nodes += [
        Node(f"b{place}", "a0", 1, place, {"p_child_given_parent": 1 / (1 + place)}, label=label)
        for place, label in enumerate(CHILDREN)
    ]
    assert families.families(Tree({}, nodes), 10) == ["   1. when (25.0%): after | before | until"]
