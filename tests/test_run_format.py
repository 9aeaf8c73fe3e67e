"""The run folder: what the weights' file holds, and that earlier versions are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hiersae_cli import load_run
from hiersae_cli.errors import FileError
from hiersae_cli.formats.run import SCHEMA_VERSION, RunFolder
from tests.helpers import hiersae

DATA = Path(__file__).parent / "data"
VERSION_2 = DATA / "run-v2"
VERSION_1 = DATA / "run-v1"  # two levels, trained by release 0.1.0, which gave the code of run-v1-code.json


def test_version_1_is_read() -> None:
    run = load_run(VERSION_1)
    said = json.loads((DATA / "run-v1-code.json").read_text())
    code = run.model.encode(torch.tensor(said["x"]))
    assert code.tolist() == [pytest.approx(row, abs=1e-5) for row in said["code"]]
    assert run.model.parent_F.tolist() == [-1, -1, -1, 1, 0, 2, 0, 0, 0, 1]  # type: ignore[union-attr, operator]
    assert run.hardened is None
    done = hiersae("info", VERSION_1, "--verify")
    assert done.returncode == 0 and "hiersae.run version 1" in done.stdout


def test_version_2_is_read() -> None:
    run = load_run(DATA / "run-v2")  # three levels, two passes, hardened
    said = json.loads((DATA / "run-v2-code.json").read_text())
    code = run.model.encode(torch.tensor(said["x"]))
    assert code.tolist() == [pytest.approx(row, abs=1e-5) for row in said["code"]]
    assert run.hardened is not None


def test_a_flat_run_of_version_1_is_read(tiny_flat: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "flat")
    shutil.copytree(tiny_flat, folder.path)
    folder.write_header({**folder.read_header(), "schema_version": 1})
    assert torch.equal(load_run(folder.path).model.W_enc_FD, load_run(tiny_flat).model.W_enc_FD)


def test_training_of_version_1_cannot_go_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(VERSION_1, folder.path)
    assert folder.read_state() is None
    folder.write_state({"step": torch.tensor(3)})
    with pytest.raises(FileError, match="version 1"):
        folder.read_state()


def test_a_checkpoint_with_not_a_number_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(VERSION_2, folder.path)
    folder.write_header({**folder.read_header(), "schema_version": SCHEMA_VERSION})
    folder.write_state({"step": torch.tensor(3), "W_enc_FD": torch.tensor([1.0, float("nan")])})
    with pytest.raises(FileError, match="W_enc_FD holds not-a-number"):
        folder.read_state()


@pytest.mark.parametrize("name", ["price_P", "price_on_F", "W_enc_FD"])
def test_a_tensor_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(VERSION_1, folder.path)
    tensors = load_file(folder.model_file)
    del tensors[name]
    save_file(tensors, folder.model_file)
    with pytest.raises(FileError, match="damaged") as caught:
        load_run(folder.path)
    assert name in caught.value.message and str(folder.model_file) in caught.value.message


def test_weights_hold_nothing_that_only_training_needs(tiny_deep: Path) -> None:
    tensors = load_file(tiny_deep / "model.safetensors")
    assert not [name for name in tensors if name.startswith("counts.")]
    assert {"parent_F", "price_on_F", "price_off_F", "hard"} <= set(tensors)
    parent_F = tensors["parent_F"]
    assert parent_F.shape == (128,) and (parent_F[:8] == -1).all()
    for part, above in ((slice(8, 32), range(8)), (slice(32, 128), range(8, 32))):
        found = parent_F[part][parent_F[part] >= 0].tolist()
        assert found and set(found) <= set(above)
    rootless = parent_F < 0
    assert torch.equal(tensors["price_on_F"][rootless], tensors["price_off_F"][rootless])


def test_a_run_ends_though_a_killed_process_left_half_a_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_state({"step": torch.tensor(3)})
    (folder.state_file.parent / ".state.safetensors.1234.tmp").write_text("half")
    folder.remove_state()
    assert not folder.state_file.parent.exists()
