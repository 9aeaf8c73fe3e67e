"""Changes of HDF5 files: of the types, sizes, layouts, links and values of datasets, and of attributes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.mutations.changes import TEXTS, Change, bytes_of, of_json

_BOMB = 3 << 30  # bytes that a few kilobytes unpack to


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
    values = (
        None,
        1,
        -1,
        2**40,
        np.nan,
        "x",
        b"\xff\xfe",
        [],
        [1, 2],
        np.zeros((2, 2)),
        h5py.Empty("f"),
        "\ud800".encode("utf-8", "surrogatepass"),
    )
    values += ("x" * 60_000, np.zeros(8000), np.array(["x"], "S1"), np.ones((), _COMPOUND), np.void(b"x"), 1.5, True)
    for name, key in attributes:
        for value in values:
            yield f"{name}@{key} = {value!r:.30}", lambda n=name, k=key, v=value: _attribute(path, n, k, v)  # type: ignore[misc]
    for name in ("new", "rows", "activations", "header/x"):
        for what, add in _ADDED.items():
            yield f"{name}: {what}", lambda name=name, add=add: _added(path, name, add)  # type: ignore[misc]
    for what, data in of_json(head):
        yield f"header: {what}", lambda data=data: _header(path, json.dumps(data))  # type: ignore[misc]
    for text in TEXTS:
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


def _huge(size: int, chunk: int, filled: bool) -> Callable[[h5py.File, str, Any, Any], None]:
    """A dataset of the same type that claims ``size`` bytes, in chunks of ``chunk`` bytes, nearly empty."""

    def change(file: h5py.File, name: str, data: Any, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        row = item.dtype.itemsize * int(np.prod(item.shape[1:]))
        rows, per_chunk = size // max(row, 1), max(1, chunk // max(row, 1))
        tail, dtype = item.shape[1:], item.dtype
        del file[name]
        new = file.create_dataset(name, (rows, *tail), dtype, chunks=(per_chunk, *tail), compression="gzip")
        if filled and not dtype.hasobject:
            for start in range(0, rows, per_chunk):
                new.id.write_direct_chunk((start, *(0 for _ in tail)), _zeros(per_chunk * row))

    return change


@cache
def _zeros(size: int) -> bytes:
    """What gzip makes of zeros, put together from blocks that are all packed alike."""
    block = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(size % block)) + packer.flush()
    checksum = (size % 65521) << 16 | 1
    return b"\x78\xda" + packed * (size // block) + rest + checksum.to_bytes(4, "big")


def _unknown_filter(file: h5py.File, name: str, data: Any) -> None:
    shape = np.shape(data) or (1,)
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(tuple(max(1, size) for size in shape))
    created.set_filter(40_000, h5py.h5z.FLAG_OPTIONAL, (1,))
    kind = h5py.h5t.py_create(
        np.asarray(data).dtype if np.asarray(data).dtype != object else np.dtype("<f4"), logical=True
    )
    made = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), created)
    made.write_direct_chunk((0,) * len(shape), b"x" * 100)


def _circle(file: h5py.File, name: str, data: Any) -> None:
    file[name] = file["/"]


def _named_type(file: h5py.File, name: str, data: Any) -> None:
    file[name] = np.dtype("<f4")


def _of_itself(file: h5py.File, name: str, data: Any) -> None:
    data = np.asarray(data)
    layout = h5py.VirtualLayout(np.shape(data) or (1,), data.dtype)
    layout[...] = h5py.VirtualSource(".", name, np.shape(data) or (1,))
    file.create_virtual_dataset(name, layout)


def _empty_string(file: h5py.File, name: str, data: Any) -> None:
    file.create_dataset(name, np.shape(data), h5py.string_dtype())


def _lists(file: h5py.File, name: str, data: Any) -> None:
    file.create_dataset(name, np.shape(data), h5py.vlen_dtype(np.dtype("<i4")))


def _soft_loop(file: h5py.File, name: str, data: Any) -> None:
    file[name] = h5py.SoftLink(f"/{name}")


_ADDED: dict[str, Callable[[h5py.File, str], None]] = {
    "one more": lambda file, name: _put(file, name, np.zeros(3)),
    "one more text": lambda file, name: _put(file, name, "x"),
    "a circle": lambda file, name: _circle(file, f"{name}/a", None),
    "a deep group": lambda file, name: file.create_group("/".join([name, *"x" * 5000])) and None,
    "a link": lambda file, name: _soft(file, f"{name}/a", None),
    "an odd name": lambda file, name: _put(file, f"{name}/\udcffa\nb", np.zeros(3)),
    "many": lambda file, name: [file.create_group(f"{name}/{n}") for n in range(2000)] and None,
    "a reference": lambda file, name: _references(file, f"{name}/a", np.zeros(3)),
}


def _put(file: h5py.File, name: str, value: Any) -> None:
    file[name] = value


def _added(path: Path, name: str, add: Callable[[h5py.File, str], None]) -> None:
    with h5py.File(path, "r+") as file:
        add(file, name)


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
    "3 GB unwritten": _huge(_BOMB, 1 << 16, filled=False),
    "2 to the 60 bytes unwritten": _huge(1 << 60, 1 << 16, filled=False),
    "3 GB packed": _huge(_BOMB, 1 << 22, filled=True),
    "3 GB in one chunk": _huge(_BOMB, _BOMB, filled=True),
    "3 GB in one chunk, unwritten": _huge(_BOMB, _BOMB, filled=False),
    "an unknown filter": _instead(_unknown_filter),
    "a circle": _instead(_circle),
    "a soft link to itself": _instead(_soft_loop),
    "a named type": _instead(_named_type),
    "virtual, of itself": _instead(_of_itself),
    "lists": _instead(_lists),
    "unwritten texts": _instead(_empty_string),
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
    "checked": _with(np.asarray, fletcher32=True),
    "lzf": _with(np.asarray, compression="lzf"),
    "shuffled bytes": _with(np.asarray, compression="gzip", shuffle=True),
    "rounded": _with(np.asarray, scaleoffset=3),
    "growing": _with(np.asarray, maxshape=None, chunks=True),
    "complex": _with(lambda data: np.zeros(np.shape(data), "<c8")),
    "long double": _with(lambda data: np.zeros(np.shape(data), "<g")),
    "opaque": _with(lambda data: np.zeros(np.shape(data), "V4")),
    "uint32": _with(lambda data: np.zeros(np.shape(data), "<u4")),
    "Latin-1 texts": _with(lambda data: np.full(np.shape(data), "x", object), dtype=h5py.string_dtype("ascii")),
    "texts of bytes": _with(lambda data: np.full(np.shape(data), b"\xff\xfe", object), dtype=h5py.string_dtype()),
    "one more": _with(lambda data: np.concatenate([data, data[-1:]])),
    "one fewer": _with(lambda data: data[:-1]),
    "turned": _with(lambda data: np.asarray(data).T.copy()),
    "flat": _with(np.ravel),
    "backwards": _with(lambda data: np.asarray(data)[::-1].copy()),
    "mixed": _with(lambda data: np.random.default_rng(0).permutation(data)),
    "three dimensions": _with(lambda data: np.asarray(data)[None, None]),
    "the largest": _with(lambda data: np.full_like(data, np.iinfo(data.dtype).max)),
    "the smallest": _with(lambda data: np.full_like(data, np.iinfo(data.dtype).min)),
    "all infinite": _filled(np.inf),
    "all 1": _filled(1),
    "all 2 to the 60": _filled(1 << 60),
    "all -7": _filled(-7),
    "all 2 to the 30": _filled(1 << 30),
    "all not a number": _filled(np.nan),
    "all 'x'": _filled(b"x"),
}
