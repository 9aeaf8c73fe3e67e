"""``hiersae sweep``: plans, what they make, resuming, shards, and ``runs/compare.sh``, which writes one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats import sweep_plan
from tests.helpers import PATIENCE, environment, hiersae

ROOT = Path(__file__).parent.parent
SMALL = """
seeds = [0, 1]
[train]
acts = "ACTS"
tokens = "2k"
batch = 128
[grid]
l0 = [2, 4]
[[runs]]
arch = "hier"
widths = [8, 24]
shares = [1, 1]
[[runs]]
name = "flat"
arch = "batchtopk"
widths = 32
[eval]
controls = false
resamples = 100
tokens = "1k"
"""


def plan_of(text: str, tmp_path: Path, acts: object = "acts.h5") -> sweep_plan.Plan:
    (tmp_path / "plan.toml").write_text(text.replace("ACTS", str(acts)))
    return sweep_plan.load(tmp_path / "plan.toml", tmp_path / "out")


def test_a_plan_is_a_grid_of_runs_and_seeds(tmp_path: Path) -> None:
    plan = plan_of(SMALL, tmp_path)
    seeds_first = [f"{name}-{seed}" for seed in (0, 1) for name in ("hier-2", "flat-2", "hier-4", "flat-4")]
    assert list(plan.runs) == seeds_first
    assert plan.runs["hier-4-1"].k == (2, 2) and plan.runs["flat-4-1"].k == (4,)
    assert plan.runs["hier-4-1"].seeds == (1, 1) and plan.runs["hier-4-1"].out == str(tmp_path / "out/runs/hier-4-1")
    assert [report.name for report in plan.reports] == ["l0-2", "l0-4"]
    assert plan.reports[1].groups == {"hier": ["hier-4-0", "hier-4-1"], "flat": ["flat-4-0", "flat-4-1"]}
    assert plan.reports[1].options == {"acts": ["acts.h5"], "controls": False, "resamples": 100, "tokens": 1000}


def test_options_may_be_texts_and_a_run_may_have_its_own_grid(tmp_path: Path) -> None:
    plan = plan_of(
        """
        [train]
        acts = ["a.h5", "b.h5"]
        lr = "3e-3"
        widths = "8,24"
        k = "1,2.5"
        [[runs]]
        harden = true
        grid = { tree_weight = [0, 0.5], curriculum = ["none", "lead=0.1"] }
        """,
        tmp_path,
    )
    assert list(plan.runs) == [
        f"hier-tree_weight={weight}-curriculum={curriculum}-0"
        for weight in (0, 0.5)
        for curriculum in ("none", "lead=0.1")
    ]
    run = plan.runs["hier-tree_weight=0.5-curriculum=lead=0.1-0"]
    assert (run.lr, run.k, run.harden, run.tree_weight, run.acts) == (3e-3, (1, 2.5), True, 0.5, ["a.h5", "b.h5"])
    (report,) = plan.reports
    assert report.name == "report" and next(iter(report.groups)) == "hier-tree_weight=0-curriculum=none"


@pytest.mark.parametrize(
    ("change", "problem"),
    {
        ("[grid]", "[gird]"): "gird is not part of a plan",
        ('tokens = "2k"', "token = 2000"): "token is not an option of a run",
        ('tokens = "2k"', 'tokens = "many"'): "tokens: 'many' is not a number",
        ("batch = 128", "batch = 128.5"): "batch cannot be 128.5",
        ("batch = 128", 'out = "x"'): "out is not an option of a run",
        (
            "l0 = [2, 4]",
            "\n".join(f"{name} = [{'0, ' * 99}]" for name in ("lr", "k", "clip")),
        ): "has 970,299 combinations",
        ("l0 = [2, 4]", "l0 = 2"): "grid.l0 must be a list of values",
        ("l0 = [2, 4]", "l0 = [-2]"): "l0 must be a number above 0",
        ("l0 = [2, 4]", "l0 = [200]"): "hier-200-0: --k 100",
        ("shares = [1, 1]", "shares = [1, 1, 1]"): "shares must be a list of 2 numbers",
        ("seeds = [0, 1]", "seeds = [0, 0]"): "seeds must be a list of different whole numbers",
        ('name = "flat"', 'name = "hier"'): "two runs are called hier-2-0",
        ('name = "flat"', 'name = "../flat"'): "is not a name for a folder",
        ("widths = 32", "widths = 32\ntree_every = 5"): "tree-every: is for --arch hier, not batchtopk",
        ('acts = "ACTS"', ""): "Say what to train on",
        ("controls = false", 'control = "no"'): "control is not an option of eval",
        ("[eval]", "[[eval]]\nrun = 1\n[[eval]]"): "run is not an option of eval",
        ("seeds = [0, 1]", "seeds = [0, 1"): "not a TOML file",
    }.items(),
)
def test_a_wrong_plan_is_refused(change: tuple[str, str], problem: str, tmp_path: Path) -> None:
    assert change[0] in SMALL
    with pytest.raises(FileError) as caught:
        plan_of(SMALL.replace(*change), tmp_path)
    assert problem in str(caught.value) and str(tmp_path / "plan.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "lines"),
    {
        ("batch = 128", "batsh = 128"): ", line 6: batsh is not an option of a run\nDid you mean batch? ",
        ("[grid]", "[gird]"): ", line 7: ",
        ('tokens = "1k"', 'tokens = "1q"'): ", line 20: ",
        ('tokens = "2k"', 'tokens = "2q"'): ", line 5: ",
        ("batch = 128", "batch = -128 # as many as fit"): ", line 6: hier-2-0: --batch -128",
        ('arch = "hier"', 'arch = "heir"'): ", line 10: heir-2-0: --arch 'heir'",
        ("l0 = [2, 4]", "l0 = [-2]"): ", line 8: ",
        ("widths = 32", "widths = 32\ntree_every = 5"): ", line 17: flat-2-0: --tree-every",
        ('name = "flat"', 'name = "../flat"'): ", line 14: ",
        ('acts = "ACTS"', ""): ": hier-2-0: ",
    }.items(),
)
def test_a_message_names_the_lines_of_the_plan(change: tuple[str, str], lines: str, tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        plan_of(SMALL.replace(*change), tmp_path)
    assert f"{tmp_path / 'plan.toml'}{lines}" in str(caught.value)


def test_a_missing_plan_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such plan"):
        sweep_plan.load(tmp_path / "none.toml", tmp_path)


def test_a_sweep_trains_in_shards_measures_and_resumes(tiny_acts: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(SMALL.replace("ACTS", str(tiny_acts)))
    for shard, trained in (("1/2", 4), ("2/2", 8)):
        done = hiersae("sweep", plan, "-o", out, "--shard", shard)
        assert done.returncode == 0, done.stderr
        assert len(list(out.glob("runs/*/model.safetensors"))) == trained and not list(out.glob("*.json"))
    done = hiersae("sweep", plan, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "8 runs, 8 of them trained; 2 reports" in done.stderr
    table = (out / "table.md").read_text()
    assert done.stdout == table and "| hier | 32 | 2 | 2 | " in table and "| flat | 32 | 4 | 2 | " in table
    assert (out / "frontiers.svg").read_text().count(">flat<") == 0 and "<svg" in (out / "frontiers.svg").read_text()
    assert {path.name for path in out.iterdir()} == {
        *("runs", "table.md", "frontiers.svg", "plots-l0-2", "plots-l0-4"),
        *(f"l0-{l0}.{ending}" for l0 in (2, 4) for ending in ("json", "md", "html")),
    }
    report = json.loads((out / "l0-4.json").read_text())
    assert [group["subjects"] for group in report["groups"].values()] == [
        ["hier-4-0", "hier-4-1"],
        ["flat-4-0", "flat-4-1"],
    ]
    # A release with another default for the hierarchy has recorded it for the flat run too.
    config = out / "runs" / "flat-2-0" / "config.json"
    config.write_text(re.sub(r'"tree_weight": [\d.]+', '"tree_weight": 0.1', config.read_text()))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    again = hiersae("sweep", plan, "-o", out, "--json")
    assert again.returncode == 0 and "l0-2.json exists already" in again.stderr
    assert json.loads(again.stdout)["runs"]["hier-2-0"]["fvu"] > 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == before

    plan.write_text(plan.read_text().replace("batch = 128", "batch = 64"))
    refused = hiersae("sweep", plan, "-o", out)
    assert refused.returncode == 1 and "hier-2-0: a run of another configuration is in the way: batch" in refused.stderr


def test_compare_writes_a_plan_and_carries_it_out(tiny_acts: Path, tiny_host: Path, tmp_path: Path) -> None:
    """The script's variables and flags reach the plan; a stand-in for ``hiersae`` only lists it."""
    stand_in = tmp_path / "bin" / "hiersae"
    stand_in.parent.mkdir()
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hiersae_cli "$@" --dry-run\n')
    stand_in.chmod(0o755)
    variables = {
        "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        **{"SEEDS": "0 1", "L0": "8 16", "ARCHS": "hier matryoshka topk", "LEVELS": "16 48", "NESTED": "16,48"},
        **{"SHARES": "25 75", "HIER": "--orphan-weight 10 --harden", "WORDNET": str(tmp_path)},
    }

    def compare(**more: str) -> list[str]:
        words = ["bash", ROOT / "runs" / "compare.sh", tiny_acts, tiny_host, out, "--tokens", "2k", "--batch", "128"]
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment({**variables, **more}), timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return [Path(line).relative_to(out).as_posix() for line in done.stdout.splitlines()]

    out = tmp_path / "out"
    runs = [f"runs/{arch}-{l0}-{seed}" for seed in (0, 1) for l0 in (8, 16) for arch in ("hier", "matryoshka", "topk")]
    reports = ["l0-8.json", "wordnet-l0-8.json", "l0-16.json", "wordnet-l0-16.json"]
    assert compare() == [*runs, *reports]
    plan = sweep_plan.load(out / "plan.toml", out)
    hier, nested, flat = (plan.runs[f"{arch}-8-1"] for arch in ("hier", "matryoshka", "topk"))
    assert (hier.widths, hier.k, hier.orphan_weight, hier.harden, hier.tokens) == ((16, 48), (2, 6), 10, True, 2000)
    assert (nested.widths, nested.k, flat.widths, flat.k) == ((16, 48), (8,), (64,), (8,))
    assert plan.reports[0].options["tasks"] == ("probing", "absorption", "hierarchy")
    assert plan.reports[1].options["labeller"] == "wordnet" and not plan.reports[1].in_table
    (out / "plan.toml").unlink()
    assert compare(EVAL="no") == runs
    assert [path.name for path in out.glob("*.toml")] == ["plan-hier,matryoshka,topk-0,1.toml"]
