"""Changes of files of text, JSON, TOML, CSV, SQLite and tensors: each changes one thing that the format says."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from hiersae_cli.formats.tensors import save_tensors

Change = Callable[[], None]

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 3, 0.5, 1e308, 2**31, 2**63, -(2**63), 10**25, float("nan"), float("-inf")),
    *("", "x", "a\0b", "\ud800", "1e999", [], [1, 2, 3], [["x"]], {}, {"config": 1}),
    *(1.0, -0.5, 2**40, "1", "a\nb", "../../x", "/dev/zero", "<b>", "x" * 100_000, [0] * 10_000, {"": 0}, [None], [{}]),
)
TEXTS = (
    *(
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"9" * 5000,
        b"1e999",
        b"\0",
        b'"\\ud800"',
        b"[[]" + b",[]" * 100_000,
    ),
    *(b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a": ' * 500 + b"1" + b"}" * 500, b'{"a": ' * 100_000),
)
_DEEP = "[" * 100_000 + "]" * 100_000
_LARGE_PACKED = 400 << 20  # bytes that a packed file unpacks to
_LARGE = 3 << 30  # bytes of a file with a hole, which takes no room on the disk


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
    for name, text in _texts_of_json(lines[-1]):
        yield name, lambda text=text: path.write_text("".join(lines[:-1]) + text)  # type: ignore[misc]
    for content in TEXTS:
        yield f"{content[:20]!r}", lambda content=content: path.write_bytes(content)  # type: ignore[misc]
    yield from bytes_of(path)


def _texts_of_json(text: str) -> Iterator[tuple[str, str]]:
    """JSON that Python does not write: fields twice, and values nested deeper than Python can."""
    data = json.loads(text)
    if isinstance(data, dict):
        for key, value in data.items():
            again = f"{json.dumps(key)}: {json.dumps(None if value else [1])}"
            yield f"{key} twice, the first wrong", text.replace("{", f"{{{again}, ", 1)
            yield f"{key} twice, the second wrong", f"{text.rstrip()[:-1]}, {again}}}"
            yield f"{key} deep", json.dumps({**data, key: "DEEP"}).replace('"DEEP"', _DEEP)
    for name, more in (
        ("a comma", ","),
        ("another value", " 1"),
        ("a comment", "// x"),
        ("NUL", "\0"),
        ("words", "x" * 99),
    ):
        yield f"{name} at the end", text.rstrip() + more


def bytes_of(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the bytes of any file, whatever it holds."""
    content = path.read_bytes()
    for place in {len(content) * part // 12 for part in range(12)}:
        yield f"cut at {place}", lambda place=place: path.write_bytes(content[:place])  # type: ignore[misc]
        flipped = content[:place] + bytes([content[place] ^ 0x41 if content else 0]) + content[place + 1 :]
        yield f"byte {place} flipped", lambda flipped=flipped: path.write_bytes(flipped)  # type: ignore[misc]

    encoded = {
        "a mark": b"\xef\xbb\xbf" + content,
        "UTF-16": b"\xff\xfe" + content.decode("latin-1").encode("utf-16-le"),
        "CR LF": content.replace(b"\n", b"\r\n"),
        "twice": content * 2,
        "more": content + b"\0" * 100,
        "zeros": bytes(len(content)),
        "ones": b"\xff" * len(content),
        "in capitals": content.upper(),
    }
    for name, changed in encoded.items():
        yield name, lambda changed=changed: path.write_bytes(changed)  # type: ignore[misc]
    yield "a hole at the end", lambda: os.truncate(path, _LARGE)
    yield "a hole", lambda: path.write_bytes(b"") or os.truncate(path, _LARGE)

    def replaced(make: Callable[[], object]) -> None:
        path.unlink()
        make()

    yield "a pipe", lambda: replaced(lambda: os.mkfifo(path))
    yield "a folder", lambda: replaced(path.mkdir)
    yield "a socket", lambda: replaced(lambda: socket.socket(socket.AF_UNIX).bind(str(path)))
    yield "nothing", lambda: replaced(lambda: None)
    for target in ("/dev/zero", "/dev/null", "/dev/random", "nowhere", ".", path.name):
        yield f"a link to {target}", lambda target=target: _link(path, target)  # type: ignore[misc]


def numbers_of(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the first numbers of a binary file, such as sizes, and of any of its bytes."""
    content = path.read_bytes()
    for place in range(4, min(len(content) - 8, 400), 4):
        for number in (0, 1, 9, 12, 2**20, 2**31, 2**62, 2**64 - 1):
            changed = content[:place] + number.to_bytes(8, "little") + content[place + 8 :]
            yield f"{number} at {place}", lambda changed=changed: path.write_bytes(changed)  # type: ignore[misc]
    yield from bytes_of(path)


def packed_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of what a gzip file holds, and of its bytes."""
    for content in (b"", b"\0" * 100, b"\xff\xfea\0", b"x" * _LARGE_PACKED, b"\0" * _LARGE_PACKED, b"a\n" * 99):
        packed = gzip.compress(content, 1)
        yield f"{content[:5]!r}, {len(content)} bytes", lambda packed=packed: path.write_bytes(packed)  # type: ignore[misc]
    yield from bytes_of(path)


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
    for name, changed in _other_places({name: value for name, value in head.items() if name != "__metadata__"}):
        again = {**head, **changed}
        yield name, lambda again=again: write(json.dumps(again).encode())  # type: ignore[misc]
    for name, text in _texts_of_json(content[8 : 8 + size].decode()):
        yield name, lambda text=text: write(text.encode())  # type: ignore[misc]
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    for name in names[:12]:
        for what, change in _OF_TENSOR.items():
            yield f"{name} {what}", lambda name=name, change=change: _tensor(path, name, change)  # type: ignore[misc]
    for pattern in (b"\0", b"\xff", b"\x7f\xc0"):
        filled = (pattern * len(data))[: len(data)]
        yield f"data {pattern!r}", lambda filled=filled: write(content[8 : 8 + size], data=filled)  # type: ignore[misc]
    yield from bytes_of(path)


def _other_places(tensors: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Headers whose tensors lie over each other, beyond the file, or have impossible sizes."""
    for name, tensor in list(tensors.items())[:4]:
        for other in list(tensors)[:3]:
            yield f"{name} over {other}", {name: {**tensor, "data_offsets": tensors[other]["data_offsets"]}}
        start, end = tensor["data_offsets"]
        for places in (
            (end, start),
            (start, end + 4),
            (start + 4, end + 4),
            (start, start),
            (0, 2**63),
            (2**64 - 4, 4),
        ):
            yield f"{name} at {places}", {name: {**tensor, "data_offsets": places}}
        for shape in ([2**40, 2**40], [2**62, 4], [2**64 - 1], [-1], [], [1] * 70, [*tensor["shape"], 0]):
            yield f"{name} of shape {shape[:3]}", {name: {**tensor, "shape": shape}}
        for kind in ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F4", "x"):
            yield f"{name} of {kind}", {name: {**tensor, "dtype": kind}}
    yield "one more", {"more": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}


_OF_TENSOR: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
    "removed": lambda _: None,
    "float64": torch.Tensor.double,
    "float16": torch.Tensor.half,
    "bfloat16": torch.Tensor.bfloat16,
    "int64": torch.Tensor.long,
    "bool": torch.Tensor.bool,
    "flat": torch.Tensor.flatten,
    "one dimension more": lambda tensor: tensor[None],
    "first": lambda tensor: tensor[:1],
    "empty": lambda tensor: tensor[:0],
    "turned": lambda tensor: tensor.T,
    "twice": lambda tensor: torch.cat([tensor, tensor]),
    **{
        f"all {value}": lambda t, v=value: torch.full_like(t, v) for value in (float("nan"), float("inf"), -1, 1e38, 99)
    },
}


def _tensor(path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Change a tensor, and the checksum with it, if the file has one."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata() or {}
    changed = change(tensors.pop(name))
    if changed is not None:
        tensors[name] = changed.contiguous()
    save_tensors(path, tensors, metadata, checked="crc32" in metadata)


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


_OF_TOML = ("-1", "0", "3", "0.5", "1e308", "nan", "inf", "9" * 25, "true", '""', '"x"', '"../x"', '"a\\u0000b"')
_OF_TOML += ("[]", "[[1]]", "{}", "1979-05-27", "0x7fffffffffffffff", "[" * 5000 + "]" * 5000, "[0, " * 9, "1e400")


def toml_file(path: Path) -> Iterator[tuple[str, Change]]:
    """Changes of the values of a TOML file."""
    text = path.read_text()
    for value in re.finditer(r"(?<== )(?:\[[^\]]*\]|\"[^\"]*\"|[\w.]+)", text):
        for new in _OF_TOML:
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
