"""What commands suggest to run next: it fits the cache, it is matched, and it runs as printed."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.cli.app import commands
from hiersae_cli.cli.flags import build
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.workflows.common import advice
from tests.helpers import hiersae

COMMANDS: dict[str, Any] = commands()


def parsed(command: str) -> TrainConfig:
    """The configuration of a command line as printed."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("hiersae", "train")
    values = dict(COMMANDS[verb].make_context(verb, words).params)
    config = build(TrainConfig, {name: value for name, value in values.items() if name not in ("json", "quiet")})
    assert isinstance(config, TrainConfig)
    return config


def cache(rows: int, width: int, *more: str) -> dict[str, Any]:
    return {"splits": {"train": rows}, "modules": {name: {"width": width} for name in ("h.1", *more)}}


@settings(max_examples=100)
@given(rows=st.integers(1, 10**9), width=st.integers(1, 20_000))
def test_sizes_fit_the_cache(rows: int, width: int) -> None:
    config = parsed(advice.after_cache("acts.h5", cache(rows, width)))
    assert config.tokens <= max(10 * rows, 1000)
    assert 64 <= sum(config.widths) <= 16_384 and sum(config.widths) <= max(64, 8 * width)
    assert rows < 10**5 or config.tokens >= 500 * sum(config.widths)
    assert not advice.repeats(rows, width, config.tokens) or rows < 256


def test_sizes_of_known_caches() -> None:
    small = parsed(advice.after_cache("acts.h5", cache(60_000, 64)))
    assert (small.widths, small.tokens) == ((256, 256), 600_000)
    large = parsed(advice.after_cache("my acts.h5", cache(1_200_000, 576, "h.2")))
    assert (large.acts, large.module, sum(large.k)) == (["my acts.h5"], "h.1", 32)


def test_so_many_epochs_are_told_in_plain_numbers() -> None:
    assert advice.repeats(60_000, 64, 10**7).startswith("--tokens 10M repeats 60,000 rows 167 times")
    assert not advice.repeats(60_000, 64, 10**6)


@pytest.mark.parametrize(
    "options",
    [
        {"arch": "hier"},
        {"arch": "hier", "widths": (8, 24, 96), "k": (2, 2.5, 3), "relevel": True, "tree_every": 7, "refine": True},
        {"arch": "hier", "optimizer": "row-adam", "moments": "bfloat16", "lr": 0.01, "seed": 3, "module": "h 2"},
        {"arch": "topk", "widths": (256,), "k": (8,), "batch": 512, "warmup": 0.1},
        {"arch": "jumprelu", "l0_weight": 2.0},
        {"arch": "matryoshka"},
    ],
)
def test_the_other_run_is_matched_in_all_that_both_can_have(tmp_path: Path, options: dict[str, Any]) -> None:
    config = TrainConfig(acts=["some acts.h5"], out=str(tmp_path / "runs" / "hier-0"), tokens=300_000, **options)
    command, compare = advice.after_training(replace(config, out="runs/hier-0"), {"synthetic": False, "host": "gpt2"})
    other = parsed(command)
    assert (other.arch == "hier") != (config.arch == "hier")
    assert sum(other.widths) == sum(config.widths) and sum(other.k) == sum(config.k)
    hier_or_jumprelu = {"tree_every", "relevel", "l0_weight"}
    ours, theirs = (
        {name: value for name, value in vars(each).items() if name not in {"arch", "widths", "k", "out"}}
        for each in (config, other)
    )
    assert {n: v for n, v in ours.items() if n not in hier_or_jumprelu} == {
        n: v for n, v in theirs.items() if n not in hier_or_jumprelu
    }
    assert "--acts 'some acts.h5' --model gpt2 -o report.json" in compare and "--baseline" in compare


def test_the_recipe_of_the_toy_tree_is_what_synth_proposes() -> None:
    command = advice.after_synth(SynthConfig(preset="toy"), {})
    assert parsed(command) == TrainConfig(acts=["acts.h5"], out="runs/toy", **advice.TOY)


def test_the_proposed_commands_run_as_printed(tiny_acts: Path, tiny_host: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my work"
    folder.mkdir()
    shutil.copy(tiny_acts, folder / "acts.h5")
    sizes = ("--widths", "16,112", "--k", "4,4", "--tokens", "10k", "--batch", "256", "--device", "cpu")
    done = hiersae("train", folder / "acts.h5", *sizes, "-o", folder / "runs" / "hier", cwd=folder)
    first, second = [line.removeprefix("next: ") for line in done.stderr.splitlines() if line.startswith("next: ")]
    assert first.startswith("hiersae train acts.h5 --arch batchtopk --widths 128 --k 8 --tokens 10k --batch 256")
    assert second == f"hiersae eval runs/hier --baseline runs/flat --acts acts.h5 --model {tiny_host} -o report.json"
    flat = hiersae(*shlex.split(first)[1:], cwd=folder)
    assert flat.returncode == 0, flat.stderr
    assert [line for line in flat.stderr.splitlines() if line.startswith("next: ")] == [f"next: {second}"]
    headers = [json.loads((folder / "runs" / name / "config.json").read_text()) for name in ("hier", "flat")]
    assert headers[0]["config"]["lr"] == headers[1]["config"]["lr"]


def test_the_host_is_named_as_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache made within a folder names its host relative to that folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "host").mkdir(parents=True)
    config = TrainConfig(acts=["demo/acts.h5"], out="demo/hier", tokens=10_000)
    assert "--model demo/host " in advice.after_training(config, {"synthetic": False, "host": "host"})[-1]


def test_after_eval_and_dashboard_comes_the_browser(tmp_path: Path) -> None:
    report = {"subjects": {"a": {"path": "runs/flat", "arch": "batchtopk"}}}
    config = EvalConfig(runs=["runs/hier"], baseline=["runs/flat"], acts=["acts.h5"], model="a host", out="report.json")
    assert advice.after_eval(config, report) == (
        "hiersae dashboard runs/hier --acts acts.h5 --baseline runs/flat --model 'a host' --report report.json --serve"
    )
    pages = tmp_path / "my pages" / "index.html"
    shown = DashboardConfig(run="runs/hier", acts=["acts.h5"], out=str(pages.parent), tokens=200_000)
    assert advice.after_dashboard(shown, {"pages": str(pages)}) == [
        f"open file://{tmp_path}/my%20pages/index.html",
        "hiersae dashboard runs/hier --acts acts.h5 --tokens 200k --serve",
    ]
