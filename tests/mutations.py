"""Damaged copies of every kind of file, made from a seed: each changes one thing that the format says.

``drill`` damages a kind of file in many ways and reads it in every way that commands do. Only our own errors may come
of it. ``python -m tests.mutations --count 5000`` runs more of it than the tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from hiersae_cli import Activations, Codes, load_run
from hiersae_cli.concepts import labels_file
from hiersae_cli.config.cache import JoinConfig
from hiersae_cli.config.encode import EncodeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.config.study import StudyAnalyzeConfig, StudySimulateConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats import datasets, experiment_run, host, plan
from hiersae_cli.formats.codes import SCHEMA as CODES
from hiersae_cli.formats.codes import writing_codes
from hiersae_cli.formats.dictionaries import read_dictionary
from hiersae_cli.formats.index import IndexFile, IndexWriter
from hiersae_cli.formats.labels import Labels
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import SCHEMA_VERSION, RunFolder
from hiersae_cli.formats.study import REHEARSAL_FILE, Links, load_study
from hiersae_cli.formats.tensors import save_tensors
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.workflows import info
from hiersae_cli.workflows.cache import join
from hiersae_cli.workflows.study.run import analyze, simulate
from tests import caches
from tests.fake_study import make_study
from tests.foreign import saelens_folder
from tests.test_experiment import PLAN

DATA = Path(__file__).parent / "data"

Change = Callable[[], None]

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 3, 0.5, 1e308, 2**31, 2**63, -(2**63), 10**25, float("nan"), float("-inf")),
    *("", "x", "a\0b", "\ud800", "1e999", [], [1, 2, 3], [["x"]], {}, {"config": 1}),
)
_TEXTS = (b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 500 + b"1" + b"}" * 500, b"9" * 5000)


def of_json(data: Any) -> Iterator[tuple[str, Any]]:
    """Copies of ``data`` with one value replaced, removed, or put into a list; each with what was done."""
    for place in _places(data):
        for value in _VALUES:
            yield f"{place} = {value!r:.40}", _replaced(data, place, lambda _, value=value: value)
        yield f"{place} in a list", _replaced(data, place, lambda old: [old])
        yield f"{place} nested", _replaced(data, place, _nested)
        if place:
            yield f"{place} removed", _replaced(data, place, None)


def _nested(value: Any) -> Any:
    for _ in range(300):
        value = [value]
    return value


def _places(data: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    keys = list(data) if isinstance(data, dict) else range(min(len(data), 2)) if isinstance(data, list) else ()
    for key in keys:
        yield from _places(data[key], (*place, key))


def _replaced(data: Any, place: tuple[Any, ...], change: Callable[[Any], Any] | None) -> Any:
    if not place:
        return change(data) if change else None
    data = dict(data) if isinstance(data, dict) else list(data)
    if len(place) == 1 and change is None:
        del data[place[0]]
    else:
        data[place[0]] = _replaced(data[place[0]], place[1:], change)
    return data


def json_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of a JSON file, or of the last line of a file of JSON lines."""
    lines = path.read_text().splitlines(keepends=True) if path.suffix == ".jsonl" else [path.read_text()]
    for name, data in of_json(json.loads(lines[-1])):
        yield name, lambda data=data: path.write_text("".join(lines[:-1]) + json.dumps(data) + "\n")  # type: ignore[misc]
    for text in _TEXTS:
        yield f"{text[:20]!r}", lambda text=text: path.write_bytes(text)  # type: ignore[misc]
    yield from bytes_of(path)


def bytes_of(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the bytes of any file, whatever it holds."""
    content = path.read_bytes()
    for place in {len(content) * part // 12 for part in range(12)}:
        yield f"cut at {place}", lambda place=place: path.write_bytes(content[:place])  # type: ignore[misc]
        flipped = content[:place] + bytes([content[place] ^ 0x41 if content else 0]) + content[place + 1 :]
        yield f"byte {place} flipped", lambda flipped=flipped: path.write_bytes(flipped)  # type: ignore[misc]

    def pipe() -> None:
        path.unlink()
        os.mkfifo(path)

    yield "a pipe", pipe
    for target in ("/dev/zero", path.name):
        yield f"a link to {target}", lambda target=target: _link(path, target)  # type: ignore[misc]


def _link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def safetensors_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the header of a safetensors file, and of its tensors."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    head, data = json.loads(content[8 : 8 + size]), content[8 + size :]

    def write(text: bytes, length: int | None = None, data: bytes = data) -> None:
        path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)

    for name, changed in of_json(head):
        yield name, lambda changed=changed: write(json.dumps(changed).encode())  # type: ignore[misc]
    for name, value in head.get("__metadata__", {}).items():
        if value.startswith("{"):
            for what, inner in of_json(json.loads(value)):
                described = {**head, "__metadata__": {name: json.dumps(inner)}}
                yield f"{name}: {what}", lambda described=described: write(json.dumps(described).encode())  # type: ignore[misc]
    for length in (0, 1, size - 1, size + 1, 2**40, 2**63):
        yield f"length {length}", lambda length=length: write(content[8 : 8 + size], length)  # type: ignore[misc]
    for pattern in (b"\0", b"\xff", b"\x7f\xc0"):
        filled = (pattern * len(data))[: len(data)]
        yield f"data {pattern!r}", lambda filled=filled: write(content[8 : 8 + size], data=filled)  # type: ignore[misc]
    yield from bytes_of(path)


def sqlite_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the columns, rows and tables of an SQLite database."""
    with closing(sqlite3.connect(path)) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: [row[1] for row in store.execute(f"PRAGMA table_info({table})")] for table in tables}
    for table in tables:
        for change in (f"DROP TABLE {table}", f"DELETE FROM {table}"):
            yield change, lambda change=change: _sql(path, change)  # type: ignore[misc]
        for column in columns[table]:
            for value in (None, -1, 7, 1 << 62, 0.5, 1e308, "", "x", "a\0b", "9" * 300, b"\xff\xfe"):
                change = f"UPDATE {table} SET {column} = ? WHERE rowid % 3 = 1"
                yield f"{change}: {value!r:.20}", lambda c=change, v=value: _sql(path, c, v)  # type: ignore[misc]
    yield from bytes_of(path)


def _sql(path: Path, change: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as store, suppress(sqlite3.Error):
        store.execute(change, values)
        store.commit()


def toml_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the values of a TOML file."""
    text = path.read_text()
    for value in re.finditer(r"(?<== )(?:\[[^\]]*\]|\"[^\"]*\"|[\w.]+)", text):
        for new in ("-1", "0", "3", "0.5", "1e308", "nan", "inf", "9" * 25, "true", '""', '"x"', "[]", "[[1]]", "{}"):
            changed = f"{text[: value.start()]}{new}{text[value.end() :]}"
            yield f"{value[0]} = {new}", lambda changed=changed: path.write_text(changed) and None  # type: ignore[misc]
    for name in re.findall(r"\w+(?= = )|(?<=\[)\w+(?=\])", text):
        changed = text.replace(name, "x", 1)
        yield f"{name} renamed", lambda changed=changed: path.write_text(changed) and None  # type: ignore[misc]
    yield from bytes_of(path)


def csv_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the cells of a CSV file."""
    lines = path.read_text().splitlines()
    for number in range(min(len(lines), 3)):
        for place in range(lines[number].count(",") + 1):
            for value in ("", "x", "-1", "1e400", "nan", "9" * 5000, '"', "\0", "a,b", "=1+1", "/", "\ud800"):
                cells = lines[number].split(",")
                cells[place] = value
                text = "\n".join([*lines[:number], ",".join(cells), *lines[number + 1 :]])
                yield f"line {number}, cell {place}: {value!r:.20}", lambda text=text: path.write_text(text) and None  # type: ignore[misc]
    yield from bytes_of(path)


def hdf5_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the datasets and attributes of an HDF5 file."""
    with h5py.File(path) as file:
        names: list[str] = []
        file.visit(names.append)
        attributes = [(name, key) for name in ("/", *names) for key in file[name].attrs]
        head = json.loads(file["header"][()]) if "header" in file else {}
    for name in names:
        for what, change in _OF_DATASET.items():
            yield f"{name}: {what}", lambda name=name, change=change: _changed(path, name, change)  # type: ignore[misc]
    values = (None, 1, -1, 2**40, np.nan, "x", b"\xff\xfe", [], [1, 2], np.zeros((2, 2)), h5py.Empty("f"))
    for name, key in attributes:
        for value in values:
            yield f"{name}@{key} = {value!r:.30}", lambda n=name, k=key, v=value: _attribute(path, n, k, v)  # type: ignore[misc]
    for what, data in of_json(head):
        yield f"header: {what}", lambda data=data: _header(path, json.dumps(data))  # type: ignore[misc]
    for text in _TEXTS:
        if b"\0" not in text:
            yield f"header: {text[:20]!r}", lambda text=text: _header(path, text)  # type: ignore[misc]
    yield from bytes_of(path)


def _header(path: Path, text: str | bytes) -> None:
    with h5py.File(path, "r+") as file:
        file["header"][()] = text


def _attribute(path: Path, name: str, key: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        if value is None:
            del file[name].attrs[key]
        else:
            file[name].attrs[key] = value


def _changed(path: Path, name: str, change: Callable[[h5py.File, str, Any, Any], None]) -> None:
    with h5py.File(path, "r+") as file:
        item = file[name]
        data = item[...] if isinstance(item, h5py.Dataset) and not item.is_virtual else np.zeros(3)
        attributes = dict(item.attrs)
        change(file, name, data, item)
        with suppress(KeyError):  # it may be a link to nowhere now
            file[name].attrs.update(attributes)


def _with(value: Callable[[Any], Any], **options: Any) -> Callable[[h5py.File, str, Any, Any], None]:
    def change(file: h5py.File, name: str, data: Any, item: Any) -> None:
        del file[name]
        new = value(data)
        chosen = {key: option for key, option in options.items() if key != "chunks" or np.shape(new)}
        file.create_dataset(name, data=new, **chosen)

    return change


def _filled(value: Any) -> Callable[[h5py.File, str, Any, Any], None]:
    def change(file: h5py.File, name: str, data: Any, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            item[...] = value

    return change


def _instead(make: Callable[[h5py.File, str, Any], None]) -> Callable[[h5py.File, str, Any, Any], None]:
    def change(file: h5py.File, name: str, data: Any, item: Any) -> None:
        del file[name]
        make(file, name, data)

    return change


def _external(file: h5py.File, name: str, data: Any) -> None:
    count = max(1, int(np.size(data)))
    file.create_dataset(name, (count,), "u1", external=[("/etc/passwd", 0, count)])


def _virtual(file: h5py.File, name: str, data: Any) -> None:
    layout = h5py.VirtualLayout(np.shape(data) or (1,), "i4")
    layout[...] = h5py.VirtualSource("other.h5", "x", np.shape(data) or (1,))
    file.create_virtual_dataset(name, layout)


def _references(file: h5py.File, name: str, data: Any) -> None:
    file.create_dataset(name, np.shape(data), h5py.ref_dtype)


def _unwritten(file: h5py.File, name: str, data: Any) -> None:
    file.create_dataset(name, (1 << 40,), "f4", chunks=(1 << 16,))


def _group(file: h5py.File, name: str, data: Any) -> None:
    file.create_group(name)


def _soft(file: h5py.File, name: str, data: Any) -> None:
    file[name] = h5py.SoftLink("/header")


def _other(file: h5py.File, name: str, data: Any) -> None:
    file[name] = h5py.ExternalLink("other.h5", "/x")


def _removed(file: h5py.File, name: str, data: Any) -> None:
    pass


_COMPOUND = np.dtype([("a", "<i4"), ("b", "<f4")])
_OF_DATASET: dict[str, Callable[[h5py.File, str, Any, Any], None]] = {
    "removed": _instead(_removed),
    "a group": _instead(_group),
    "a soft link": _instead(_soft),
    "an external link": _instead(_other),
    "in /etc/passwd": _instead(_external),
    "virtual": _instead(_virtual),
    "references": _instead(_references),
    "2 to the 40 numbers": _instead(_unwritten),
    "texts": _with(lambda data: np.full(np.shape(data), "x", object), dtype=h5py.string_dtype()),
    "short texts": _with(lambda data: np.full(np.shape(data), b"x", "S5")),
    "pairs": _with(lambda data: np.zeros(np.shape(data), _COMPOUND)),
    "no value": _with(lambda data: h5py.Empty("f")),
    "bool": _with(lambda data: np.zeros(np.shape(data), bool)),
    "big-endian": _with(lambda data: np.zeros(np.shape(data), ">i4")),
    "float16": _with(lambda data: np.zeros(np.shape(data), "<f2")),
    "int64": _with(lambda data: np.zeros(np.shape(data), "<i8")),
    "float64": _with(lambda data: np.zeros(np.shape(data), "<f8")),
    "a scalar": _with(lambda data: np.ravel(data)[0] if np.size(data) else 0),
    "empty": _with(lambda data: np.ravel(data)[:0]),
    "one number": _with(lambda data: np.ravel(data)[:1]),
    "one dimension more": _with(lambda data: np.asarray(data)[None]),
    "compressed": _with(np.asarray, chunks=True),
    "all -7": _filled(-7),
    "all 2 to the 30": _filled(1 << 30),
    "all not a number": _filled(np.nan),
    "all 'x'": _filled(b"x"),
}


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a small one is made in a folder, the file in it that is damaged, and how it is read."""

    make: Callable[[Path], None]
    file: str
    changes: Callable[[Path], Iterator[tuple[str, Change]]]
    readers: tuple[Callable[[Path], object], ...]


def _read_cache(path: Path) -> None:
    with Activations(path, allow_unfinished=True) as acts:
        acts.document_names()
        if acts.truth is not None:
            acts.true_features(np.flatnonzero(acts.column("split") == 1)[:3])
        for module in acts.modules:
            acts.statistics(module), acts.norms(module), acts.read(module, 0, min(3, acts.rows))


def _read_codes(path: Path) -> None:
    with Codes(path) as codes:
        codes.read()


def _read_run(path: Path) -> None:
    run = load_run(path.parent)
    run.model.encode(torch.zeros(2, run.model.width))


def _read_labels(path: Path) -> None:
    Labels(path.parent, "0").history()


def _described(path: Path) -> None:
    info.run(InfoConfig(path=str(path), verify=path.name != "hiersae.json"))


def _described_folder(path: Path) -> None:
    info.run(InfoConfig(path=str(path.parent), verify=True))


def _make_joined(folder: Path) -> None:
    content = caches.content(70)
    spans = ((0, 28), (28, 70))
    shards = [caches.write(folder / f"{n}.h5", content, span=span, shard=f"{n}/2") for n, span in enumerate(spans, 1)]
    join.run(JoinConfig(shards=[str(path) for path in shards], out=str(folder / "joined.h5")))


def _make_codes(folder: Path) -> None:
    described = {"run": {"name": "run", "arch": "topk", "module": "h.0"}, "host": {"name": "host", "fingerprint": "0"}}
    head = {**header(CODES, 1, EncodeConfig(run="run", acts=["acts.h5"]), {"run": "0"}), **described}
    with writing_codes(folder / "codes.h5", head, (2, 3)) as writer:
        writer.add(Firings.of(torch.tensor([[1, 0, 2, 0, 3], [0, 0, 0, 4, 0.0]])))


def _make_index(folder: Path) -> None:
    rows, latents = 9, {"run": 5, "baseline": 4}
    run = {"name": "run", "arch": "hier", "module": "h.0", "width": 3, "widths": [2, 3], "hard": False}
    made_of = {"run": "0", "acts": ["1"], "baseline": "2", "host": None, "rows": rows, "seed": 0}
    head = {
        "schema": "hiersae.index", "schema_version": 2, "hiersae_version": "0", "created": "", "config": {},
        "inputs": {"run": "0"}, "made_of": made_of, "run": run, "baseline": {**run, "widths": [4]},
        "host": {"name": "host", "fingerprint": "0"}, "tokens": "text",
    }  # fmt: skip
    writer = IndexWriter(folder / "index.h5", head, latents, {})
    for name, count in latents.items():
        writer.append(name, Firings(rows, count, np.arange(0, rows * count, 2), np.ones(-(-rows * count // 2), "<f4")))
    writer.commit(rows)
    columns = {name: np.zeros(rows, int) for name in ("cache_row", "token", "document", "position", "split")}
    ours = {name: np.zeros(5, int) for name in ("active", "both")} | {"parent": np.array([-1, -1, 0, 1, -1])}
    ours |= {"fvu_increase": np.zeros(5, "<f4"), "own_tokens": np.zeros((5, 5), "<i4")}
    ours |= {"own_shares": np.zeros((5, 5), "<f4")}
    theirs = {"verdict": np.zeros(4, "u1"), "covered": np.zeros(4, "<f4"), "part": np.zeros((4, 8), "<i4")}
    theirs |= {"share": np.zeros((4, 8), "<f4"), "within": np.zeros((4, 8), "<f4"), "counted": np.zeros((4, 8), "u1")}
    tables = {f"run/{name}": value for name, value in ours.items()}
    tables |= {f"baseline/{name}": value for name, value in theirs.items()}
    writer.finish(columns, ["text"], lambda lists: (tables, {0: "a", 5: "\0"}))


def _make_run(folder: Path) -> None:
    shutil.copytree(DATA / "run-v2", folder, dirs_exist_ok=True)
    label = {"text": "king", "author": "Ada", "time": "2026-01-02T03:04:05+00:00"}
    labels = {"schema": "hiersae.labels", "schema_version": 2, "created": "2026", "run": "0", "labels": {"b1": [label]}}
    (folder / "labels.json").write_text(json.dumps(labels))
    figures = {"tokens": 500, "loss": 0.5, "fvu": 0.25, "l0": [1.5], "dead": 0.0}
    for step in (1, 2):
        RunFolder(folder).append_metrics({"step": step, **figures})
    # Only training that this release started has a state.
    RunFolder(folder).write_header({**RunFolder(folder).read_header(), "schema_version": SCHEMA_VERSION})
    RunFolder(folder).write_state({"step": torch.tensor(3), "W": torch.ones(2, 3)})


def _make_tree(folder: Path) -> None:
    node = {"latent": 0, "statistics": {"rate": 0.5, "dead": False, "lift": None}, "label": None}
    evidence = {
        "contexts": [{"activation": 1.5, "activations": [0.0, 1.5], "before": ["a"], "token": "b", "after": []}]
    }
    evidence |= {"tokens": [{"token": "b", "id": 1, "share": 0.5}]}
    roots = {**node, "id": "a0", "parent": None, "level": 0, "evidence": {}}
    child = {**node, "id": "b0", "parent": "a0", "level": 1, "evidence": evidence}
    tree = {
        "schema": "hiersae.tree", "schema_version": 2, "config": {}, "inputs": {"run": "0"},
        "run": {"name": "run", "arch": "hier", "module": "h.0"}, "sample": {"rows": 9, "rows_held_out": 3},
        "tokens": "text", "nodes": [roots, child],
    }  # fmt: skip
    (folder / "tree.json").write_text(json.dumps(tree))


def _make_report(folder: Path) -> None:
    figures = {"fvu": {"value": 0.25, "low": 0.2, "high": 0.3}, "kl": {"value": None}}
    report = {"schema": "hiersae.report", "schema_version": 4, "config": {}, "inputs": {"acts.h5": "0"}}
    (folder / "report.json").write_text(json.dumps({**report, "runs": {"hier": figures}, "paired": {"flat": figures}}))


def _make_study(folder: Path) -> None:
    make_study(folder, sets=1, checks=1)


def _make_data(folder: Path) -> None:
    (folder / "text.txt").write_text("hello")
    files = {"text.txt": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}
    described = {"schema": "hiersae.data", "schema_version": 1, "name": "text8", "title": "text8", "files": files}
    (folder / "data.json").write_text(json.dumps({**described, "parts": {"training": 4, "validation": 1}}))


def _make_host(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "vocab_size": 5}))
    described = {"schema": "hiersae.host", "schema_version": 1, "config": {}, "inputs": {"t.txt": "0"}}
    (folder / "hiersae.json").write_text(json.dumps({**described, "validation_loss": 1.5, "unit": "nats"}))
    save_tensors(folder / "model.safetensors", {"w": torch.ones(3)}, {"format": "pt"})


def _make_checkpoint(folder: Path) -> None:
    described = {"schema": host.CHECKPOINT_SCHEMA, "schema_version": 1, "step": 3, "config": {"steps": 5}}
    save_tensors(folder / host.CHECKPOINT, {"model/w": torch.ones(3)}, {"hiersae": json.dumps(described)}, checked=True)


def _make_dictionary(folder: Path) -> None:
    tensors = {"W_enc": torch.ones(3, 5), "b_enc": torch.ones(5), "W_dec": torch.ones(5, 3), "b_dec": torch.ones(3)}
    saelens_folder(folder / "made", tensors, architecture="topk", k=2, apply_b_dec_to_input=True)
    for file in (folder / "made").iterdir():
        file.rename(folder / file.name)
    (folder / "made").rmdir()


def _make_answers(folder: Path) -> None:
    make_study(folder, sets=1, checks=1)
    simulate(StudySimulateConfig(study=str(folder), raters=2))


def _analysed(path: Path) -> None:
    analyze(StudyAnalyzeConfig(study=str(path.parent), simulated=True, overwrite=True, resamples=100), Console.silent())


def _make_plan(folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN)


def _make_experiment(folder: Path) -> None:
    unit = folder / "text8" / "seed-0"
    (unit / "hier-0").mkdir(parents=True)
    (unit / "host").mkdir()
    described = {"schema": experiment_run.SCHEMA, "schema_version": 1, "tests": "all", "configuration": "cpu"}
    (folder / experiment_run.DESCRIPTION).write_text(json.dumps({**described, "data": {"text8": "Text"}}))
    (unit / "host" / "hiersae.json").write_text(json.dumps({"history": [{"step": 3, "validation_loss": 1.5}]}))
    (unit / "hier-0" / "metrics.jsonl").write_text(json.dumps({"step": 1, "tokens": 64, "fvu": 0.5}) + "\n")
    values = {"fvu_seeds": [0.5, 0.25], "loss": [None]}
    (folder / "final_info.json").write_text(json.dumps({"Text": {"means": {"fvu": 0.5}, "final_info_dict": values}}))


def _make_csv(folder: Path) -> None:
    (folder / "labels.csv").write_text("document,start,end,label\na.txt,0,3,verb/past\na.txt,2,9,noun\n")


def _plotted(folder: Path) -> None:
    run = experiment_run.read(folder)
    for title in experiment_run.titles([run]):
        for values in run.info[title]["final_info_dict"].values():
            experiment_run.interval(values, 0.95)


_INFO = (_described,)
KINDS: dict[str, Kind] = {
    "cache": Kind(
        lambda folder: caches.write(folder / "acts.h5", caches.content(40)) and None,
        "acts.h5", hdf5_file, (_read_cache, *_INFO),
    ),
    "compressed cache": Kind(
        lambda folder: caches.write(folder / "acts.h5", caches.content(40, "bfloat16"), "bfloat16", compression="gzip")
        and None,
        "acts.h5", hdf5_file, (_read_cache, *_INFO),
    ),
    "joined cache": Kind(_make_joined, "joined.h5", hdf5_file, (_read_cache, *_INFO)),
    "truth": Kind(
        lambda folder: shutil.copy(DATA / "acts-v2.h5", folder / "acts.h5") and None,
        "acts.h5", hdf5_file, (_read_cache, *_INFO),
    ),
    "codes": Kind(_make_codes, "codes.h5", hdf5_file, (_read_codes, *_INFO)),
    "index": Kind(_make_index, "index.h5", hdf5_file, (IndexFile, *_INFO)),
    "run": Kind(_make_run, "config.json", json_file, (_read_run, _described_folder)),
    "weights": Kind(_make_run, "model.safetensors", safetensors_file, (_read_run, _described_folder)),
    "metrics": Kind(
        _make_run, "metrics.jsonl", json_file,
        (lambda path: RunFolder(path.parent).keep_metrics_until(10), _described_folder),
    ),
    "state": Kind(
        _make_run, "state/state.safetensors", safetensors_file,
        (lambda path: RunFolder(path.parent.parent).read_state(),),
    ),
    "labels": Kind(_make_run, "labels.json", json_file, (_read_labels, *_INFO)),
    "tree": Kind(_make_tree, "tree.json", json_file, (load_tree, *_INFO)),
    "report": Kind(_make_report, "report.json", json_file, _INFO),
    "study": Kind(_make_study, "study.json", json_file, (lambda path: load_study(path.parent), *_INFO)),
    "items": Kind(_make_study, "items.json", json_file, (lambda path: load_study(path.parent), _described_folder)),
    "links": Kind(_make_study, "links.json", json_file, (lambda path: Links(path.parent).raters,)),
    "answers": Kind(_make_answers, REHEARSAL_FILE, sqlite_file, (_analysed,)),
    "plan": Kind(_make_plan, "plan.toml", toml_file, (lambda path: plan.load(path, "run_3", "cpu"),)),
    "experiment": Kind(_make_experiment, experiment_run.DESCRIPTION, json_file, (lambda path: _plotted(path.parent),)),
    "results": Kind(_make_experiment, "final_info.json", json_file, (lambda path: _plotted(path.parent),)),
    "curves": Kind(
        _make_experiment, "text8/seed-0/hier-0/metrics.jsonl", json_file, (lambda path: _plotted(path.parents[3]),)
    ),
    "losses": Kind(
        _make_experiment, "text8/seed-0/host/hiersae.json", json_file, (lambda path: _plotted(path.parents[3]),)
    ),
    "labels of a user": Kind(_make_csv, "labels.csv", csv_file, (lambda path: labels_file.read(str(path)),)),
    "data": Kind(_make_data, "data.json", json_file, (lambda path: datasets.read(path.parent),)),
    "host": Kind(_make_host, "hiersae.json", json_file, _INFO),
    "host in training": Kind(_make_checkpoint, host.CHECKPOINT, safetensors_file, (_described_folder,)),
    "dictionary": Kind(_make_dictionary, "cfg.json", json_file, (lambda path: read_dictionary(path.parent),)),
    "weights of a dictionary": Kind(
        _make_dictionary, "sae_weights.safetensors", safetensors_file, (lambda path: read_dictionary(path.parent),)
    ),
}  # fmt: skip


def drill(kind: Kind, folder: Path, count: int, seed: int) -> list[str]:
    """Damage a kind of file in up to ``count`` ways, chosen by ``seed``; returns what went wrong, one text for each.

    Reading may succeed, or raise our own error, whose message is one line that names a file.
    """
    whole, copy = folder / "whole", folder / "copy"
    whole.mkdir(parents=True)
    kind.make(whole)
    for reader in kind.readers:
        reader(whole / kind.file)
    shutil.copytree(whole, copy, symlinks=True)
    names = [name for name, _ in kind.changes(copy / kind.file)]
    chosen = set(random.Random(seed).sample(range(len(names)), min(count, len(names))))
    problems = []
    for number, (name, change) in enumerate(kind.changes(copy / kind.file)):
        if number not in chosen:
            continue
        # Some changes cannot be made: not every number is a text.
        with suppress(TypeError, ValueError, OSError, RuntimeError, ArithmeticError):
            change()
        problems += [f"{name}: {problem}" for reader in kind.readers for problem in _problems(reader, copy / kind.file)]
        shutil.rmtree(copy)
        shutil.copytree(whole, copy, symlinks=True)
    return problems


def _problems(reader: Callable[[Path], object], path: Path) -> Iterator[str]:
    try:
        reader(path)
    except HierSAEError as error:
        if "\n" in error.message or "/" not in error.message:
            yield f"an unclear message: {error.message!r}"
    except Exception as error:
        # The command line has words for errors of the system, such as a link to itself.
        if isinstance(error, OSError) and error.errno and error.filename:
            return
        yield f"{type(error).__name__}: {str(error)[:200]}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"


def main() -> None:
    """Damage every kind of file, and end with an error if something other than our errors came of it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=1000, help="ways of damage for each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, help="one kind of file")
    options = parser.parse_args()
    problems = []
    for name, kind in KINDS.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                of_kind = drill(kind, Path(folder), options.count, options.seed)
            print(f"{name}: {len(of_kind)} problems")
            problems += [f"{name}: {problem}" for problem in of_kind]
    raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
