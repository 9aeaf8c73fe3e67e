"""The layout of a cache: names, types, and how datasets lie on the disk.

Legend of shapes: N rows (tokens), D documents, d width of a module.

Every dataset is contiguous and allocated when the file is made, so that its bytes lie at one known
offset: rows are written and read there directly, without HDF5's lock, and a killed process can never
leave HDF5's own structures half-written. Compressed caches are chunked instead, and are made from a
finished uncompressed one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from hiersae_cli.formats.stored import CHUNKED, CONTIGUOUS, TYPES, VIRTUAL, Stored

SCHEMA = "hiersae.activations"
SCHEMA_VERSION = 1
TRUTH_VERSION = 2  # of a file with a truth, which its fingerprint covers

# Values of /split: the use of a row.
TRAIN, HELD_OUT, DROPPED = 0, 1, 2

# A row whose norm exceeds this multiple of the median is an outlier: attention sinks reach 100 and more.
OUTLIER_FACTOR = 10.0


def outlier_limit(median_norm: float) -> float:
    """The largest norm of a row that is no outlier. A module that is mostly silent (median 0) has no outliers."""
    return OUTLIER_FACTOR * median_norm if median_norm > 0 else float("inf")


# Every dataset; MODULE is the name of each module. D is the number of documents. The truth is that of synthetic
# activations, in the order of the fingerprint: T true features, H held-out rows, Z firings in them.
DATASETS: dict[str, Stored] = {
    "header": Stored("string"),
    "rows_committed": Stored("int64", (), (CONTIGUOUS,)),
    "fingerprint": Stored("64 bytes", (), (CONTIGUOUS,)),
    "tokens": Stored("int32", ("N",), (CONTIGUOUS,)),
    "document": Stored("int32", ("N",), (CONTIGUOUS,)),
    "position": Stored("int32", ("N",), (CONTIGUOUS,)),
    "split": Stored("uint8", ("N",), (CONTIGUOUS,)),
    "documents/name": Stored("string", ("D",)),
    "documents/offset": Stored("int64", ("D",)),
    "documents/held_out": Stored("bool", ("D",)),
    "activations/MODULE": Stored(("float32", "float16", "uint16"), ("N", "d"), (CONTIGUOUS, CHUNKED, VIRTUAL)),
    "norms/MODULE": Stored("float32", ("N",), (CONTIGUOUS, VIRTUAL)),
    "statistics/MODULE/mean": Stored("float64", ("d",), (CONTIGUOUS,)),
    "statistics/MODULE/mean_square": Stored("float64", (), (CONTIGUOUS,)),
    "statistics/MODULE/median_norm": Stored("float64", (), (CONTIGUOUS,)),
    "statistics/MODULE/outliers": Stored("int64", (), (CONTIGUOUS,)),
    "truth/features": Stored("float32", ("T", "d")),
    "truth/bias": Stored("float32", ("d",)),
    "truth/parent": Stored("int64", ("T",)),
    "truth/probability": Stored("float32", ("T",)),
    "truth/firings/start": Stored("int64", ("H + 1",)),
    "truth/firings/feature": Stored("int32", ("Z",)),
    "truth/firings/magnitude": Stored("float32", ("Z",)),
}
MODULE = "MODULE"  # in the names above


def _types(names: Iterable[str], prefix: str = "") -> dict[str, np.dtype[Any]]:
    return {name: DATASETS[f"{prefix}{name}"].dtype for name in names}


ROW_COLUMNS = _types(("tokens", "document", "position", "split"))
ROW_BYTES = sum(kind.itemsize for kind in ROW_COLUMNS.values())
STATISTICS = _types(("mean_square", "median_norm", "outliers"), "statistics/MODULE/")
TRUTH = _types((name.removeprefix("truth/") for name in DATASETS if name.startswith("truth/")), "truth/")

# Read at once in shuffled order: large enough for a disk, small enough to mix well. Chunks of a compressed cache have
# this size too, so that nothing is decompressed only to be thrown away.
_BLOCK_BYTES = 256 << 10

# HDF5 has no bfloat16: its bits are stored as uint16, and the attribute "dtype" says so.
STORAGE: dict[str, np.dtype[Any]] = {
    "float32": TYPES["float32"],
    "float16": TYPES["float16"],
    "bfloat16": TYPES["uint16"],
}


def block_rows(row_bytes: int) -> int:
    """Rows of a block of shuffled reading, and of a chunk of a compressed cache."""
    return max(1, _BLOCK_BYTES // row_bytes)


def create_dataset(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """A contiguous dataset whose bytes are allocated now, but not filled."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(dtype)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, layout, links))


def pwrite(handle: int, data: Any, offset: int) -> None:
    """Write all of ``data`` at ``offset``: one system call writes at most 2 GB, and may write less."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def pread_into(handle: int, out: np.ndarray, offset: int) -> None:
    """Fill ``out``, which is contiguous, from ``offset``; raises ``EOFError`` if the file is too short."""
    view = out.reshape(-1).view(np.uint8).data
    while len(view):
        got = os.preadv(handle, [view], offset)
        if got == 0:
            raise EOFError
        view, offset = view[got:], offset + got
