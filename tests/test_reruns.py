"""The same command again after a kill: the same content, and nothing left over. Two at once: one is refused."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hiersae_cli.config.dashboard import DashboardConfig
from tests.caches import datasets
from tests.helpers import PATIENCE, Started, hiersae, killed, start

TRAIN = ("--arch", "batchtopk", "--widths", "64", "--k", "4", "--batch", "128", "--device", "cpu")
LM = ("--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch", "4", "--device", "cpu")


def hidden(folder: Path) -> list[str]:
    """Names of temporary files and folders anywhere in ``folder``."""
    return [str(file) for file in folder.rglob("*") if file.name[0] == "." or file.name.endswith(".partial")]


@pytest.mark.parametrize(("at", "code"), [("os.chmod:report.json:1", 0), ("os.rename:edges.csv:1", 1)])
def test_outputs_of_an_evaluation_are_all_there_or_none(
    tiny_hier: Path, tiny_acts: Path, tmp_path: Path, at: str, code: int
) -> None:
    outputs = {"--edges": "edges.csv", "--html": "page.html", "--markdown": "page.md", "-o": "report.json"}
    flags = ["eval", tiny_hier, "--acts", tiny_acts, "--resamples", "100", "--plots", tmp_path / "plots"]
    flags += [part for flag, name in outputs.items() for part in (flag, tmp_path / name)]
    assert killed(at, *flags)
    assert not (tmp_path / "report.json").exists()
    again = hiersae(*flags)
    assert again.returncode == code, again.stderr
    assert code == 0 or "already exists" in again.stderr  # the killed command had only renames left to do
    assert all((tmp_path / name).stat().st_size for name in outputs.values())
    assert json.loads((tmp_path / "report.json").read_text())["schema"] == "hiersae.report"
    assert len(list((tmp_path / "plots").iterdir())) > 1 and not hidden(tmp_path)


@pytest.mark.parametrize("at", ["open:metrics.jsonl:4", "os.rename:model.safetensors:1"])
def test_training_killed_before_its_first_checkpoint_has_each_line_once(
    tiny_acts: Path, tmp_path: Path, at: str
) -> None:
    flags = ("train", tiny_acts, *TRAIN, "--tokens", "8k", "--log-every", "10")
    assert hiersae(*flags, "-o", tmp_path / "whole").returncode == 0
    assert killed(at, *flags, "-o", tmp_path / "run")
    again = hiersae(*flags, "-o", tmp_path / "run")
    assert again.returncode == 0, again.stderr
    steps = [
        [json.loads(line)["step"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "run")
    ]
    assert steps[0] == steps[1] == [10, 20, 30, 40, 50, 60, 62]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not hidden(tmp_path) and len(list((tmp_path / "run").iterdir())) == 3


def test_overwriting_that_is_killed_before_its_first_step_leaves_the_run(tiny_acts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ("train", tiny_acts, *TRAIN, "-o", run)
    assert hiersae(*flags, "--tokens", "2k").returncode == 0
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    assert killed("os.remove:run/:1", *flags, "--tokens", "1k", "--overwrite")
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before
    assert hiersae(*flags, "--tokens", "1k", "--overwrite").returncode == 0
    assert (run / "model.safetensors").read_bytes() != before["model.safetensors"] and not hidden(run)


def test_a_synthetic_cache_that_is_killed_is_drawn_again(tmp_path: Path) -> None:
    flags = ("synth", "toy", "--rows", "2k", "--device", "cpu")
    assert hiersae(*flags, "-o", tmp_path / "whole.h5").returncode == 0
    assert killed("os.rename:acts.h5.partial:2", *flags, "-o", tmp_path / "acts.h5")
    assert (tmp_path / "acts.h5.partial").exists()
    again = hiersae(*flags, "-o", tmp_path / "acts.h5")
    assert again.returncode == 0, again.stderr
    assert datasets(tmp_path / "acts.h5") == datasets(tmp_path / "whole.h5") and not hidden(tmp_path)


def test_a_study_has_its_links_when_it_has_its_name(tiny_dashboard: DashboardConfig, tmp_path: Path) -> None:
    inputs = ["--baseline", tiny_dashboard.baseline, "--acts", tiny_dashboard.acts[0], "--model", tiny_dashboard.model]
    flags = ("study", "new", tiny_dashboard.run, *inputs, "--sets", "2", "--raters", "3", "-o", tmp_path / "study")
    assert killed("os.rename:links.json:1", *flags)
    assert not (tmp_path / "study").exists()
    again = hiersae(*flags)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "study" / "links.json").stat().st_mode & 0o777 == 0o600 and not hidden(tmp_path)
    assert hiersae(*flags).returncode == 1


def test_a_checkpoint_next_to_its_finished_model_goes(tiny_text: Path, tmp_path: Path) -> None:
    flags = ("lm", tiny_text, *LM, "--steps", "4", "-o", tmp_path / "host")
    assert killed("os.rmdir:host.partial:1", *flags)
    assert (tmp_path / "host").exists() and (tmp_path / "host.partial").exists()
    assert "already exists" in hiersae(*flags).stderr
    assert [file.name for file in tmp_path.iterdir()] == ["host"]


def test_an_unfinished_cache_next_to_the_finished_one_goes(tiny_text: Path, tiny_host: Path, tmp_path: Path) -> None:
    acts = tmp_path / "acts.h5"
    flags = ("cache", tiny_text, "--model", tiny_host, "--layer", "1", "--tokens", "1k", "--device", "cpu")
    flags = (*flags, "--compression", "lzf", "-o", acts)
    assert killed("os.remove:/acts.h5.partial:1", *flags)
    assert acts.exists() and Path(f"{acts}.partial").exists()
    assert "already exists" in hiersae(*flags).stderr
    assert [file.name for file in tmp_path.iterdir()] == ["acts.h5"]


def test_a_second_training_is_refused_with_the_number_of_the_first(
    tiny_acts: Path, tiny_text: Path, tmp_path: Path
) -> None:
    train = ("train", tiny_acts, *TRAIN, "--tokens", "100M", "-o", tmp_path / "run")
    lm = ("lm", tiny_text, *LM, "--steps", "1M", "-o", tmp_path / "host")
    signs = (tmp_path / "run" / "metrics.jsonl", tmp_path / "host.partial" / "checkpoint.safetensors")
    for flags, sign in zip((train, lm), signs, strict=True):
        first = start(*flags)
        _wait(first, sign)
        for more in ((), ("--overwrite",)):
            second = hiersae(*flags, *more)
            assert second.returncode == 1 and f"process {first.pid}, is writing it" in second.stderr, second.stderr
        first.kill()
        first.wait()
        third = start(*flags)  # a dead process keeps nobody out
        time.sleep(1)
        third.send_signal(signal.SIGINT)
        errors = third.communicate()[1]
        assert third.returncode == 130 and "is writing it" not in errors, errors


def _wait(process: Started, sign: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not sign.exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_codes_for_which_there_is_no_room_are_refused_without_a_crash(
    tiny_hier: Path, tiny_acts: Path, small_disk: Path
) -> None:
    out = small_disk / "codes.h5"
    done = hiersae("encode", tiny_hier, tiny_acts, "-o", out, "--device", "cpu", fresh=True)
    assert done.returncode == 1 and f"{out}: no space left on the disk: it needs" in done.stderr, done.stderr
    assert not list(small_disk.iterdir())
