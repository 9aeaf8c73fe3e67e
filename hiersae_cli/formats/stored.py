"""How the datasets of an HDF5 file are stored: a table for each format, checked when a file is opened.

Nothing of a file is believed: a dataset must have the type, the dimensions and the layout of its row in the table, must
lie in the file itself, and no links lead to it. So its bytes can be used where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hiersae_cli.reading import parse_json

STRING = np.dtype(object)  # of UTF-8, of any length
TYPES: dict[str, np.dtype] = {  # by their names in the documentation
    "bool": np.dtype(bool),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
    "64 bytes": np.dtype("S64"),
    "string": STRING,
}

ANY, CONTIGUOUS, CHUNKED, VIRTUAL = "in any layout", "contiguous", "chunked", "virtual"
_MOST_PACKED = 1100  # bytes that a byte can unpack to; gzip stops at 1032
_LARGEST_CHUNK = 1 << 27  # bytes, which are in memory at once
_SMALL = 1 << 20  # bytes that a dataset may lack, as the last chunk is rarely full
_LAYOUTS = {h5py.h5d.CONTIGUOUS: CONTIGUOUS, h5py.h5d.CHUNKED: CHUNKED, h5py.h5d.VIRTUAL: VIRTUAL}


@dataclass(frozen=True)
class Stored:
    """How a dataset is stored.

    Attributes:
        types: the possible names of its type, as in the documentation.
        shape: the name or the number of each dimension. ``N + 1`` is one more than N. Dimensions of one name are equal.
        layouts: the possible layouts, ``ANY`` for all that keep the data in this file.
        needed: whether it must be there.
    """

    types: str | tuple[str, ...]
    shape: tuple[str | int, ...] = ()
    layouts: tuple[str, ...] = (ANY,)
    needed: bool = True

    @property
    def dtype(self) -> np.dtype:
        """The only possible type."""
        assert isinstance(self.types, str)
        return TYPES[self.types]


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of a name; raises ``KeyError`` if there is none, ``ValueError`` if it is a link or a group."""
    item: h5py.HLObject = file
    for part in name.split("/"):
        if not isinstance(item, h5py.Group) or (link := item.get(part, getlink=True)) is None:
            raise KeyError(f"there is no {name}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name} is a link to something else")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{name} is not a dataset")
    return item


def read_header(file: h5py.File) -> Any:
    """The JSON of the header, as ``hdf5.write_header`` writes it; raises ``KeyError`` or ``ValueError`` without one."""
    check_datasets(file, {"header": Stored("string")}, {})
    return parse_json(dataset(file, "header")[()])


def members(file: h5py.File, name: str) -> list[str]:
    """The names in a group, to which no links lead; raises ``KeyError`` or ``ValueError`` if there is no such group."""
    item: h5py.HLObject = file
    for part in name.split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise KeyError(f"there is no group {name}")
        item = item[part]
    if not isinstance(item, h5py.Group):
        raise ValueError(f"{name} is not a group")
    return list(item)


def check_datasets(
    file: h5py.File, table: Mapping[str, Stored], sizes: dict[str, int], sources: Collection[str] = ()
) -> None:
    """Raise ``KeyError`` or ``ValueError`` for the first dataset that is not stored as the table says.

    Args:
        table: by the names of the datasets.
        sizes: known dimensions by name; those that are met are added.
        sources: files that virtual datasets may take their data from, as they name them.
    """
    for name, stored in table.items():
        try:
            data = dataset(file, name)
        except KeyError:
            if stored.needed:
                raise
            continue
        if problem := _problem(file, name, data, stored, sizes, sources):
            raise ValueError(f"{name} {problem}")


def _problem(
    file: h5py.File, name: str, data: h5py.Dataset, stored: Stored, sizes: dict[str, int], sources: Collection[str]
) -> str:
    """What is wrong with a dataset; empty if nothing is."""
    types = (stored.types,) if isinstance(stored.types, str) else stored.types
    if not any(_has_type(data, TYPES[kind]) for kind in types):
        return f"is stored as {data.dtype}, not as {' or '.join(types)}"
    if problem := _problem_of_shape(data.shape, stored.shape, sizes):
        return problem
    created = data.id.get_create_plist()
    layout = _LAYOUTS.get(created.get_layout(), "compact")
    if created.get_external_count():
        return "lies in another file"
    if layout == VIRTUAL and VIRTUAL in stored.layouts and sources:
        strange = [source for source in data.virtual_sources() if not _comes_from(source, name, sources)]
        return f"takes its data from {strange[0].file_name}" if strange else ""
    if layout == VIRTUAL or (layout not in stored.layouts and ANY not in stored.layouts):
        return f"is {layout}, not {' or '.join(stored.layouts)}"
    if layout == CONTIGUOUS and data.size and not _lies_within(file, data):
        return "lies outside the file"
    return _problem_of_chunks(data, CHUNKED in stored.layouts) if layout == CHUNKED else ""


def _problem_of_chunks(data: h5py.Dataset, packed: bool) -> str:
    """What is wrong with a chunked dataset: the memory that it takes must be in proportion to the file."""
    if (chunk := prod(data.chunks) * data.dtype.itemsize) > _LARGEST_CHUNK:
        return f"has chunks of {chunk:,} bytes, more than {_LARGEST_CHUNK:,}"
    if data.nbytes > data.id.get_storage_size() * (_MOST_PACKED if packed else 1) + _SMALL:
        return f"claims {data.nbytes:,} bytes, but the file holds {data.id.get_storage_size():,} for it"
    return ""


def _has_type(data: h5py.Dataset, dtype: np.dtype) -> bool:
    if dtype == STRING:
        string = h5py.check_string_dtype(data.dtype)
        return string is not None and string.encoding == "utf-8" and string.length is None
    return bool(data.dtype == dtype) and not data.dtype.hasobject


def _problem_of_shape(shape: Sequence[int] | None, names: tuple[str | int, ...], sizes: dict[str, int]) -> str:
    if shape is None or len(shape) != len(names):
        return f"has {'no' if shape is None else len(shape)} dimensions, not {len(names)}"
    for size, name in zip(shape, names, strict=True):
        if isinstance(name, int):
            expected = name
        else:
            letter, _, more = name.partition(" + ")
            expected = sizes.setdefault(letter, size - int(more or 0)) + int(more or 0)
        if size != expected or size < 0:
            return f"has the shape {tuple(shape)}, but {name} is {expected:,}"
    return ""


def _comes_from(source: h5py.VDSmap, name: str, sources: Collection[str]) -> bool:
    # HDF5 takes a % in a source's name for a pattern, so that it is written twice.
    return source.file_name.replace("%%", "%") in sources and source.dset_name.lstrip("/") == name


def _lies_within(file: h5py.File, data: h5py.Dataset) -> bool:
    offset = data.id.get_offset()
    return offset is not None and offset + data.nbytes <= os.path.getsize(Path(file.filename))
