"""``--config FILE``: the command that made a file, again."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import hiersae

FLAGS = ("--widths", "8,56", "--k", "2,2.5", "--tokens", "5k", "--batch", "128", "--orphan-weight", "10", "--harden")


@pytest.fixture(scope="module")
def run(tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again") / "run"
    done = hiersae("train", tiny_acts, *FLAGS, "--seed", 3, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


def config(file: Path) -> dict[str, object]:
    recorded: dict[str, object] = json.loads((file / "config.json").read_text())["config"]
    return recorded


@pytest.mark.parametrize("name", ["", "config.json"])
def test_a_run_is_trained_again_to_the_same_bits(name: str, run: Path, tmp_path: Path) -> None:
    done = hiersae("train", "--config", run / name, "-o", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert config(tmp_path / "again") == config(run)
    first, second = (load_file(folder / "model.safetensors") for folder in (run, tmp_path / "again"))
    assert all(torch.equal(first[tensor], second[tensor]) for tensor in first)


def test_flags_override_the_configuration(run: Path, tmp_path: Path) -> None:
    done = hiersae("train", "--config", run, "--seed", 4, "--k", "2,2", "--tokens", "2k", "-o", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert config(tmp_path / "other") == {**config(run), "seed": 4, "k": [2, 2], "tokens": 2000}


def test_a_cache_and_a_report_are_made_again(tiny_acts: Path, run: Path, tmp_path: Path) -> None:
    done = hiersae("cache", "--config", tiny_acts, "-o", tmp_path / "acts.h5")
    assert done.returncode == 0, done.stderr
    with h5py.File(tiny_acts) as first, h5py.File(tmp_path / "acts.h5") as second:
        assert first["fingerprint"][()] == second["fingerprint"][()]
    flags = ("--acts", tmp_path / "acts.h5", "--resamples", 100, "--no-controls")
    assert hiersae("eval", run, *flags, "-o", tmp_path / "report.json").returncode == 0
    again = hiersae("eval", "--config", tmp_path / "report.json", "-o", tmp_path / "again.json")
    assert again.returncode == 0, again.stderr
    reports = [json.loads((tmp_path / name).read_text()) for name in ("report.json", "again.json")]
    assert reports[0]["runs"] == reports[1]["runs"] and reports[0]["config"] == reports[1]["config"]


def test_what_cannot_be_repeated_is_refused(tiny_acts: Path, run: Path, tmp_path: Path) -> None:
    def refused(*args: object) -> str:
        done = hiersae(*args, "-o", tmp_path / "out")
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr and not (tmp_path / "out").exists()
        return done.stderr

    assert f"{tmp_path / 'none'}: no such file" in refused("train", "--config", tmp_path / "none")
    assert "another command or release wrote it: bos is not one of the flags" in refused("train", "--config", tiny_acts)
    (tmp_path / "text.json").write_text('["a"]')
    assert "records no configuration of hiersae" in refused("train", "--config", tmp_path / "text.json")
    (tmp_path / "wrong.json").write_text('{"config": {"seed": "one"}, "inputs": {}}')
    assert "Invalid value for '--seed'" in refused("train", "--config", tmp_path / "wrong.json")
    (tmp_path / "half.json").write_text('{"config": {"seed"')
    assert "half.json" in refused("train", "--config", tmp_path / "half.json")
    header = json.loads((run / "config.json").read_text())
    (tmp_path / "theirs.json").write_text(json.dumps({**header, "converted": {"tool": "SAELens"}}))
    assert "another tool trained this run" in refused("train", "--config", tmp_path / "theirs.json")
