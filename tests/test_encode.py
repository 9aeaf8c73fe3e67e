"""``hiersae encode``: codes equal the model's own, row by row; the file is whole or not there; damage is recognised."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.sparse import csr_matrix

from hiersae_cli import Activations, Codes, load_run
from hiersae_cli.config.encode import EncodeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.errors import FileError, HierSAEError, UsageError, VersionError
from hiersae_cli.formats.codes import SCHEMA, SCHEMA_VERSION, writing_codes
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.workflows import encode, info
from tests import caches
from tests.helpers import PATIENCE, hiersae, start

BATCH = 1000


def encoded(run: Path, out: Path, *acts: Path, **flags: Any) -> dict[str, Any]:
    given = {"run": str(run), "out": str(out), "acts": [str(path) for path in acts], "batch": BATCH, "device": "cpu"}
    return encode.run(EncodeConfig(**{**given, **flags}))


def matrix(path: Path) -> csr_matrix:
    """The codes, by the specification alone."""
    with h5py.File(path) as file:
        parts = (file["values"][...], file["indices"][...], file["indptr"][...])
        return csr_matrix(parts, (file.attrs["rows"], file.attrs["latents"]))


def write(path: Path, code_BF: np.ndarray, cuts: tuple[int, ...] = (), compression: str = "none") -> Path:
    """A file of a dense code, appended in parts that end at ``cuts``."""
    config = EncodeConfig(run="run", acts=["acts.h5"])
    described = {"run": {"name": "run", "arch": "topk", "module": "h.0"}, "host": {"name": "host", "fingerprint": "0"}}
    head = {**header(SCHEMA, SCHEMA_VERSION, config, {"run": "0"}), **described}
    with writing_codes(path, head, (code_BF.shape[1],), compression) as writer:
        for part_BF in np.split(code_BF, cuts):
            writer.add(Firings.of(torch.from_numpy(part_BF)))
    return path


# ---------------------------------------------------------------- what is encoded


@pytest.mark.parametrize("name", ["tiny_hier", "tiny_flat", "tiny_deep", "tiny_hard"])
def test_every_row_has_the_code_that_the_model_gives_it(
    name: str, tiny_acts: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run, out = request.getfixturevalue(name), tmp_path / "new" / "codes.h5"
    done = hiersae("encode", run, tiny_acts, "-o", out, "--batch", BATCH, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    trained = load_run(run)
    with Activations(tiny_acts) as acts, torch.inference_mode():
        x_BD = acts.read(trained.module).float()
        code_BF = torch.cat([trained.model.encode(part_BD) for part_BD in x_BD.split(BATCH)]).numpy()
        inputs = {str(run): trained.sha256, str(tiny_acts): acts.fingerprint}
    with Codes(out) as codes:
        found = codes.read()
        assert (codes.rows, codes.latents, codes.firings) == (*code_BF.shape, np.count_nonzero(code_BF))
        assert codes.widths == trained.model.widths and codes.header["inputs"] == inputs
        assert codes.header["run"]["hard"] is (name == "tiny_hard")
    assert found.dtype == np.float32 and np.array_equal(found.toarray() > 0, code_BF > 0)
    np.testing.assert_allclose(found.toarray(), code_BF, rtol=1e-5)
    assert (found != matrix(out)).nnz == 0
    answer = json.loads(done.stdout)
    assert (answer["rows"], answer["latents"], answer["firings"]) == (20_000, 128, found.nnz)
    assert answer["l0"] == pytest.approx(8, abs=2) == found.nnz / 20_000
    # Sparse codes give the model's reconstruction, in the units of the cache.
    decoded = found[:64] @ trained.model.W_dec_FD.detach().numpy() + trained.model.b_dec_D.detach().numpy()
    with torch.inference_mode():
        np.testing.assert_allclose(decoded, trained.model(x_BD[:64]).numpy(), rtol=1e-3, atol=1e-4)


def test_batches_and_compression_change_nothing(tiny_hier: Path, tiny_acts: Path, tmp_path: Path) -> None:
    encoded(tiny_hier, tmp_path / "first.h5", tiny_acts)
    first = matrix(tmp_path / "first.h5")
    changes: tuple[dict[str, Any], ...] = ({"batch": 177}, {"batch": 50_000}, {"compression": "lzf"})
    for number, flags in enumerate((*changes, {"compression": "gzip"})):
        out = tmp_path / f"{number}.h5"
        encoded(tiny_hier, out, tiny_acts, **flags)
        found = matrix(out)
        assert np.array_equal(found.indptr, first.indptr) and np.array_equal(found.indices, first.indices), flags
        np.testing.assert_allclose(found.data, first.data, rtol=1e-5)
    with h5py.File(tmp_path / "3.h5") as file:
        assert all(file[name].compression == "gzip" for name in ("indptr", "indices", "values"))


def test_several_caches_are_numbered_through_and_rows_may_be_limited(
    tiny_hier: Path, tiny_acts: Path, tmp_path: Path
) -> None:
    result = encoded(tiny_hier, tmp_path / "codes.h5", tiny_acts, tiny_acts, tokens=20_700, batch=999)
    with Codes(tmp_path / "codes.h5") as codes:
        assert codes.rows == result["rows"] == 20_700 and codes.header["config"]["acts"] == [str(tiny_acts)] * 2
        again, first = codes.read(20_000), codes.read(0, 700)
        assert np.array_equal(again.indices, first.indices) and first.nnz > 1_000
    assert encoded(tiny_hier, tmp_path / "all.h5", tiny_acts, tokens=10**6)["rows"] == 20_000


def test_an_unfinished_run_is_announced(
    tiny_hier: Path, tiny_acts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_hier, folder.path)
    folder.write_model(load_file(folder.model_file), 40, 195)
    encoded(folder.path, tmp_path / "codes.h5", tiny_acts, tokens=100)
    assert "training not ended (step 40 of 195)" in capsys.readouterr().err
    with Codes(tmp_path / "codes.h5") as codes:
        assert (codes.header["run"]["step"], codes.header["run"]["steps"]) == (40, 195)


# ---------------------------------------------------------------- whole or not there


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_encoding_leaves_what_was_there(
    tiny_hier: Path, tiny_acts: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "codes.h5"
    out.write_text("old")
    args = ("encode", tiny_hier, tiny_acts, "-o", out, "--overwrite", "--batch", "1", "--device", "cpu")
    process = start(*args)
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob(".codes.h5.*.tmp")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(stop)
    errors = process.communicate()[1]
    assert out.read_text() == "old"
    if stop == signal.SIGKILL:
        encoded(tiny_hier, out, tiny_acts, overwrite=True, tokens=10)  # takes what was left behind away
        assert matrix(out).shape == (10, 128)
    else:
        assert process.returncode == 130, errors
        assert "nothing is kept" in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == [out]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "codes.h5"
    out.write_text("old")
    head = header(SCHEMA, SCHEMA_VERSION, EncodeConfig(run="run", acts=[]), {})
    with pytest.raises(ZeroDivisionError), writing_codes(out, head, (3,)):
        raise ZeroDivisionError
    assert out.read_text() == "old" and list(tmp_path.iterdir()) == [out]


def test_refusals_are_one_sentence_and_write_nothing(tiny_hier: Path, tiny_acts: Path, tmp_path: Path) -> None:
    module = load_run(tiny_hier).module
    other_module = caches.write(tmp_path / "random.h5", caches.content(70))
    wrong_width = caches.write(tmp_path / "width.h5", caches.content(70, widths={module: 7}))
    other_model = caches.write(tmp_path / "model.h5", caches.content(70, widths={module: 32}))
    (tmp_path / "link.h5").symlink_to(tiny_acts)
    (tmp_path / "taken.h5").write_text("mine")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out" / "codes.h5"
    before = sorted(tmp_path.rglob("*"))
    for flags, code, message in (
        ({"acts": [str(other_module)]}, 1, f"holds h.0, h.1; {tiny_hier} was trained on {module}"),
        ({"acts": [str(wrong_width)]}, 1, f"{module} has width 7; {tiny_hier} was trained on width 32"),
        ({"acts": [str(tiny_acts), str(other_model)]}, 1, f"{other_model}: activations of host (a); {tiny_hier}"),
        ({"acts": [str(tmp_path / "none.h5")]}, 2, "none.h5: no such file"),
        ({"acts": [str(tmp_path / "taken.h5")]}, 1, "taken.h5: not an HDF5 file"),
        ({"run": str(tmp_path / "none")}, 2, "no such run folder"),
        ({"run": str(tmp_path / "empty")}, 2, "no config.json in this folder"),
        ({"run": str(tiny_acts)}, 2, "no such run folder"),
        ({"out": str(tmp_path / "link.h5"), "overwrite": True}, 2, "is the cache"),
        ({"out": str(tmp_path / "empty"), "overwrite": True}, 1, "this is a folder"),
        ({"device": "abacus"}, 2, "not available here"),
        ({"batch": 0}, 2, "--batch 0: must be at least 1"),
        ({"compression": "zip"}, 2, "none, lzf, gzip"),
    ):
        with pytest.raises(HierSAEError) as caught:
            encode.run(EncodeConfig(**{"run": str(tiny_hier), "acts": [str(tiny_acts)], "out": str(out), **flags}))
        assert caught.value.exit_code == code and message in caught.value.message, flags
        assert "\n" not in caught.value.message
    for args, code, message in (
        ((tiny_hier, tiny_acts, "-o", tmp_path / "taken.h5"), 1, "already exists"),
        ((tiny_hier, tmp_path / "none.h5", "-o", out), 2, "no such file"),
    ):
        done = hiersae("encode", *args)
        assert done.returncode == code and message in done.stderr and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 2
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "taken.h5").read_text() == "mine"


# ---------------------------------------------------------------- the file


@settings(max_examples=30)
@given(st.data())
def test_any_slice_of_any_code_is_read_as_it_was_written(data: st.DataObject) -> None:
    rows, latents = data.draw(st.integers(0, 12)), data.draw(st.integers(1, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    fired = random.random((rows, latents)) < data.draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    code_BF = np.where(fired, random.exponential(size=fired.shape), 0).astype(np.float32)
    cuts = tuple(sorted(data.draw(st.lists(st.integers(0, rows), max_size=4))))
    bounds = st.none() | st.integers(-15, 15)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "codes.h5", code_BF, cuts, data.draw(st.sampled_from(["none", "lzf", "gzip"])))
        with Codes(path) as codes:
            assert (codes.rows, codes.latents, codes.firings) == (rows, latents, np.count_nonzero(code_BF))
            for _ in range(4):
                start, stop = data.draw(st.integers(-15, 15)), data.draw(bounds)
                found = codes.read(start, stop)
                found.check_format(full_check=True)
                assert np.array_equal(found.toarray(), code_BF[start:stop])


def damaged(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def put(name: str, place: int, value: float) -> Callable[[h5py.File], None]:
    return lambda file: file[name].__setitem__(place, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("indices", 1, 4), "not ascending latents"),
        (put("indices", 0, 5), "not ascending latents"),
        (put("indices", 0, -1), "not ascending latents"),
        (put("indptr", 1, 9), "indptr does not ascend"),
        (put("indptr", 0, 1), "sizes do not fit together"),
        (put("values", 3, np.nan), "finite and above 0"),
        (put("values", 3, 0), "finite and above 0"),
        (lambda file: file["values"].resize(3, axis=0), r"values has the shape \(3,\)"),
        (lambda file: file.pop("indptr"), "indptr"),
        (lambda file: file.pop("header"), "header"),
        (lambda file: file.attrs.pop("rows"), "rows"),
        (lambda file: file.attrs.update({"latents": 4}), "sizes do not fit together"),
    ],
)
def test_damage_is_recognised(tmp_path: Path, change: Callable[[h5py.File], None], message: str) -> None:
    code_BF = np.array([[1, 0, 2, 0, 3], [0, 0, 0, 4, 0]], np.float32)
    path = damaged(write(tmp_path / "codes.h5", code_BF), change)
    with pytest.raises(FileError, match=message) as caught, Codes(path) as codes:
        codes.read()
    assert caught.value.message.startswith(f"{path}: damaged: ") and "\n" not in caught.value.message


def test_other_files_are_refused(tiny_acts: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "codes.h5", np.ones((2, 3), np.float32))
    with pytest.raises(FileError, match=r"not a hiersae.codes file \(it is hiersae.activations\)"):
        Codes(tiny_acts)
    with pytest.raises(FileError, match=r"not a hiersae.activations file \(it is hiersae.codes\)"):
        Activations(path)
    with pytest.raises(UsageError, match="no such file"):
        Codes(tmp_path / "none.h5")
    (tmp_path / "short.h5").write_bytes(path.read_bytes()[:900])
    with pytest.raises(FileError, match="truncated"):
        Codes(tmp_path / "short.h5")
    damaged(path, lambda file: file.attrs.update({"schema_version": 2}))
    with pytest.raises(VersionError, match="version 2"):
        Codes(path)


def test_info_describes_codes(tiny_deep: Path, tiny_acts: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes.h5"
    made = encoded(tiny_deep, out, tiny_acts, tokens=500)
    done = hiersae("info", out, "--verify")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()[1:]}
    assert lines["kind"].startswith("codes, ") and lines["latents"] == "8 + 24 + 96" and lines["rows"] == "500"
    assert lines["state"] == "complete" and "ascend in every row" in lines["verified"]
    answer, _ = info.run(InfoConfig(path=str(out)))
    assert {name: answer[name] for name in ("rows", "latents", "firings", "l0")} == {
        name: made[name] for name in ("rows", "latents", "firings", "l0")
    }
    assert answer["schema"] == "hiersae.codes" and answer["widths"] == [8, 24, 96] and not answer["verified"]
    damaged(out, put("values", 7, np.inf))
    info.run(InfoConfig(path=str(out)))
    with pytest.raises(FileError, match="finite and above 0"):
        info.run(InfoConfig(path=str(out), verify=True))
