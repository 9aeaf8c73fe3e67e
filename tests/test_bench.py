"""``hiersae bench`` through the real command: its figures are complete and consistent. No test checks a speed."""

from __future__ import annotations

import json

import pytest

from tests.helpers import hiersae

SIZES = ("--latents", "256,512", "--d", 16, "--k", 8, "--batch", 64, "--steps", 2, "--warmup", 1, "--device", "cpu")


def test_bench_times_every_model_of_every_size() -> None:
    done = hiersae("bench", *SIZES, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["machine"]["device"] == "cpu" and result["machine"]["gbytes_copied"] > 0
    assert [(row["model"], row["latents"]) for row in result["rows"]] == [
        (model, latents) for latents in (256, 512) for model in ("hiersae", "hiersae-open", "hiersae-batchtopk")
    ]
    for row in result["rows"]:
        assert row["tokens_per_s"] == pytest.approx(64 / row["step_ms"] * 1e3, rel=0.05)
        assert 0 < row["counted"]["touched_rows"] <= row["latents"]
        assert sum(row["parts"].values()) > 0
        assert ("at_best" in row) == (row["model"] == "hiersae")
        assert (row["counted"]["grouped_flop"] > 0) == (row["model"] == "hiersae")
    gated = result["rows"][0]["counted"]
    # 16 coarse latents, 64 rows of width 16: a dense product of 64 x 16 x 16, two operations each.
    assert gated["dense_flop"] == 2 * 64 * 16 * 16
    assert result["rows"][2]["counted"]["dense_flop"] == 2 * 64 * 16 * 256


def test_bench_prints_a_table() -> None:
    done = hiersae("bench", *SIZES, fresh=True)
    assert done.returncode == 0, done.stderr
    assert "| hiersae-batchtopk | 512 |" in done.stdout and "at the machine's rates" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--latents", 100), "--latents 100: must be at least 8 times the L0"),
        (("--k", 2), "--k 2: must be at least 4"),
        (("--steps", 0), "--steps 0: must be at least 1"),
    ],
)
def test_bench_refuses_sizes_that_make_no_hierarchy(flags: tuple[object, ...], message: str) -> None:
    done = hiersae("bench", *flags)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
