"""Reading files safely: types come from the format, files from where they are, and nothing ends in a traceback."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open

from hiersae_cli import Activations, cli, load_run
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json
from hiersae_cli.formats.fields import COUNT, require_fields
from hiersae_cli.formats.index import IndexFile
from hiersae_cli.formats.tensors import read_tensors, save_tensors
from hiersae_cli.host.text import documents
from hiersae_cli.workflows import info
from tests import caches
from tests.mutations import KINDS

RUN = Path(__file__).parent / "data" / "run-v2"


def test_bytes_of_an_index_are_never_taken_for_addresses(tmp_path: Path) -> None:
    KINDS["index"].make(tmp_path)
    path = tmp_path / "index.h5"
    with h5py.File(path, "r+") as file:
        rows = len(file["rows/split"])
        for name in ("rows/split", "run/tables/parent"):
            shape = file[name].shape
            del file[name]
            file.create_dataset(name, shape, h5py.ref_dtype)[...] = np.full(rows, file["rows"].ref)[: shape[0]]
    with pytest.raises(FileError, match="rows/split is stored as object, not as uint8"):
        IndexFile(path)


def _stored_again(name: str, **options: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        data = file[name][...]
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=data.astype(options.pop("dtype", data.dtype)), **options)
        file[name].attrs.update(attributes)

    return change


def _in_another_file(file: h5py.File) -> None:
    count = len(file["documents/offset"])
    del file["documents/offset"]
    file.create_dataset("documents/offset", (count,), "<i8", external=[("/etc/passwd", 0, 8 * count)])


def _claiming(name: str, rows: int, chunk: int) -> Callable[[h5py.File], None]:
    """A dataset of many rows that are not in the file."""

    def change(file: h5py.File) -> None:
        tail, dtype, attributes = file[name].shape[1:], file[name].dtype, dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, (rows, *tail), dtype, maxshape=(None, *tail), chunks=(chunk, *tail))
        file[name].attrs.update(attributes)

    return change


def _header_of_itself(file: h5py.File) -> None:
    del file["header"]
    layout = h5py.VirtualLayout((1,), h5py.string_dtype())
    layout[...] = h5py.VirtualSource(".", "header", (1,))
    file.create_virtual_dataset("header", layout)


def _linked(file: h5py.File) -> None:
    file.move("documents", "elsewhere")
    file["documents"] = h5py.SoftLink("/elsewhere")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file["activations/h.0"].attrs.update(dtype="bf16"), "h.0 is said to be bf16"),
        (_stored_again("activations/h.0", dtype="<f8"), "activations/h.0 is stored as float64"),
        (_stored_again("activations/h.0", dtype="<i4"), "activations/h.0 is stored as int32"),
        (_stored_again("tokens", dtype=">i4"), "tokens is stored as >i4"),
        (_stored_again("norms/h.1", chunks=(5,)), "norms/h.1 is chunked"),
        (_in_another_file, "documents/offset lies in another file"),
        (_linked, "documents/name is a link to something else"),
        (_claiming("documents/name", 1 << 27, 1 << 10), "documents/name claims 1,073,741,824 bytes"),
        (_claiming("activations/h.0", 40, 1 << 26), "activations/h.0 has chunks of"),
        (_header_of_itself, "header has 1 dimensions"),
    ],
)
def test_a_cache_that_is_stored_differently_is_refused(
    tmp_path: Path, change: Callable[[h5py.File], None], said: str
) -> None:
    path = caches.write(tmp_path / "acts.h5", caches.content(40))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(FileError, match=said) as caught:
        Activations(path)
    assert "hiersae cache" in caught.value.hint


def test_a_joined_cache_takes_rows_only_from_its_shards(tmp_path: Path) -> None:
    KINDS["joined cache"].make(tmp_path)
    path = tmp_path / "joined.h5"
    shutil.copy(tmp_path / "1.h5", tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        shape = file["norms/h.0"].shape
        del file["norms/h.0"]
        layout = h5py.VirtualLayout(shape, "<f4")
        layout[:28] = h5py.VirtualSource("other.h5", "norms/h.0", (28,))
        file.create_virtual_dataset("norms/h.0", layout)
    with pytest.raises(FileError, match=r"norms/h\.0 takes its data from other\.h5"):
        Activations(path)


@pytest.mark.parametrize("parents", [{3: 4}, {3: 3, 4: 4}, {5: 99}, {5: -5}, {0: 1}, {9: 0}])
def test_weights_whose_parents_are_not_one_level_up_are_refused(tmp_path: Path, parents: dict[int, int]) -> None:
    folder = shutil.copytree(RUN, tmp_path / "run")  # three levels: latents 0 to 2, 3 to 7, 8 to 13
    tensors = load_file(folder / "model.safetensors")
    for latent, parent in parents.items():
        tensors["parent_F"][latent] = parent
    save_tensors(folder / "model.safetensors", tensors, {"step": "100", "steps": "100"})
    with pytest.raises(FileError, match="which is not one level up"):
        load_run(folder)
    with pytest.raises(FileError, match="which is not one level up"):
        info.run(InfoConfig(path=str(folder)))


def test_json_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in (
        '{"a": NaN}',
        "[1, -Infinity]",
        "9" * 5000,
        "[" * 70 + "]" * 70,
        "[" * 10**5,
        '{"a": 1, "b": {"c": 1, "c": 1}}',
        '{"a": 1}\0',
        '{"a": 1' + "0" * 25 + "}",
    ):
        path.write_text(text)
        with pytest.raises(FileError, match=r"x\.json: not a JSON file"):
            read_json(path)
    path.write_text('{"half": "\\ud800", "deep": ' + "[" * 50 + "]" * 50 + "}")
    assert read_json(path)["half"] == "\ud800"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"n": True, "of": {}}, "'n' is true, not a whole number from 0 up"),
        ({"n": -1, "of": {}}, "'n' is -1"),
        ({"n": 1}, "'of' is missing"),
        ({"n": 1, "of": {"x": ["a"]}}, r"'of.x\[0\]' is \"a\", not a finite number"),
        ({"n": 1, "of": {"x": [1, 2.5, float("inf")]}}, r"'of.x\[2\]'"),
        ([], "it is a list, not an object"),
    ],
)
def test_the_first_field_of_another_kind_is_named(data: object, said: str) -> None:
    kind = {"n": COUNT, "of": {str: [float]}, "more?": str}
    require_fields("x.json", {"n": 0, "of": {"x": [1, 2.5]}, "unknown": None}, kind)
    with pytest.raises(FileError, match=said):
        require_fields("x.json", data, kind)


def test_only_ordinary_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, what in (("pipe", "a pipe"), ("zero", "a device")):
        for read in (
            lambda path: info.run(InfoConfig(path=str(path))),
            read_json,
            Activations,
            IndexFile,
            lambda path: read_tensors(path, "Make it again."),
        ):
            with pytest.raises(FileError, match=f"this is {what}"):
                read(tmp_path / name)  # type: ignore[no-untyped-call]
        with pytest.raises(FileError, match=f"this is {what}"):
            documents([str(tmp_path / name)], "text")
    reader, writer = os.pipe()
    documents([f"/dev/fd/{reader}"], "text")  # as the shell's <(command) is
    os.close(reader)
    os.close(writer)


def test_equal_tensors_make_equal_files(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3, 2), "a": torch.tensor(True), "c": torch.arange(3), "empty": torch.zeros(0, 4)}
    tensors |= {"half": torch.ones(5, dtype=torch.bfloat16), "n": torch.tensor([1, 2], dtype=torch.uint8)}
    metadata = {name: name for name in "zyxwvutsr"}
    save_tensors(tmp_path / "1", tensors, metadata)
    save_tensors(tmp_path / "2", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    loaded = load_file(tmp_path / "1")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
    with safe_open(tmp_path / "1", "pt") as file:
        assert file.metadata() == metadata
    save_tensors(tmp_path / "3", {"n": np.arange(3)}, {}, checked=True)
    assert read_tensors(tmp_path / "3", "")["n"].tolist() == [0, 1, 2]
    content = bytearray((tmp_path / "3").read_bytes())
    content[-8] ^= 1
    (tmp_path / "3").write_bytes(content)
    with pytest.raises(FileError, match="does not have its checksum"):
        read_tensors(tmp_path / "3", "Train again.")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *args, **options: real("/dev/full", *args, **options))
    with pytest.raises(OSError, match="No space left") as caught:
        save_tensors(tmp_path / "model.safetensors", {"w": torch.ones(10**5)}, {})
    assert caught.value.filename == str(tmp_path / "model.safetensors")


def test_what_nothing_foresaw_is_one_line_and_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise KeyError("left\nright")

    monkeypatch.setattr("hiersae_cli.cli.app.app", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # main ends a process: it ignores Ctrl-C from then on
    for debug in ("", "1"):
        monkeypatch.setenv("HIERSAE_DEBUG", debug)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 1
        error = capsys.readouterr().err
        assert ("Traceback" in error) == bool(debug)
        first, second = error.splitlines()[-2:]
        assert first.startswith("error: unexpected KeyError: ") and "HIERSAE_DEBUG=1" in second


@pytest.mark.parametrize(
    "wrong", [{"hiersae_version": []}, {"created": 3}, {"schema_version": True}, {"schema_version": "1\n2"}]
)
def test_the_common_fields_are_checked(tmp_path: Path, wrong: dict[str, object]) -> None:
    KINDS["report"].make(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(report | wrong))
    with pytest.raises(FileError) as caught:
        info.run(InfoConfig(path=str(tmp_path / "report.json")))
    assert "report.json: " in caught.value.message and "\n" not in caught.value.message


def test_info_refuses_a_report_that_pages_cannot_show(tmp_path: Path) -> None:
    KINDS["report"].make(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    for wrong in ({"groups": {}}, {"groups": [1]}, {"mismatches": {"lost": []}}, {"subjects": {}, "tests": 1}):
        (tmp_path / "report.json").write_text(json.dumps(report | wrong))
        with pytest.raises(FileError, match="damaged"):
            info.run(InfoConfig(path=str(tmp_path / "report.json")))


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    packed = tmp_path / "text.txt.gz"
    with gzip.open(packed, "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
    with pytest.raises(FileError, match=r"text\.txt\.gz: unpacks to more than 268,435,456 bytes"):
        list(documents([str(packed)], "text"))
    packed.write_bytes(gzip.compress(b"text"))
    os.truncate(packed, 1 << 32)
    with pytest.raises(FileError, match=r"text\.txt\.gz: nothing but NUL from byte 1,048,576 on"):
        list(documents([str(packed)], "text"))
    for name in ("hole.txt", "hole.json"):
        (tmp_path / name).write_text("{")
        os.truncate(tmp_path / name, 1 << 32)
        with pytest.raises(FileError, match=name):
            read_json(tmp_path / name)
        with pytest.raises(FileError, match=rf"{name}: nothing but NUL from byte 1,048,576 on"):
            list(documents([str(tmp_path / name)], "text"))


def test_a_report_of_numbers_that_json_cannot_hold_is_damaged(tmp_path: Path) -> None:
    KINDS["report"].make(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    text = json.dumps(report | {"config": {"tokens": 0.5}}).replace("0.5", "1e999")
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(FileError, match="damaged"):
        info.run(InfoConfig(path=str(tmp_path / "report.json")))
