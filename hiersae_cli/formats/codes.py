"""Sparse codes of a cache's rows (``codes.h5``): specified in ``docs/file-formats.md``, written and read here.

Legend of shapes: N rows, F latents of all levels, n their firings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.sparse import csr_matrix

from hiersae_cli.errors import FileError
from hiersae_cli.formats.described import Described, of_levels, run_line
from hiersae_cli.formats.fields import COMMON, COUNT, HOST, RUN, SIZE, require_fields
from hiersae_cli.formats.hdf5 import Room, attributes, open_hdf5, replacing_hdf5, write_header
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.stored import CHUNKED, Stored, check_datasets, read_header
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.reading import reading

SCHEMA = "hiersae.codes"
SCHEMA_VERSION = 1

_HINT = "Make it with 'hiersae encode'."
DATASETS: dict[str, Stored] = {
    "header": Stored("string"),
    "indptr": Stored("int64", ("N + 1",), (CHUNKED,)),
    "indices": Stored("int32", ("n",), (CHUNKED,)),
    "values": Stored("float32", ("n",), (CHUNKED,)),
}
_COLUMNS = {name: DATASETS[name].dtype for name in ("indptr", "indices", "values")}
_HEADER: dict[str, Any] = {**COMMON, "run": RUN, "host": HOST}
_ATTRIBUTES: dict[str, Any] = {"rows": COUNT, "latents": SIZE, "widths": [SIZE]}
_VERIFIED_ROWS = 1 << 16  # at once
_HELD_BACK = 4 << 20  # bytes: HDF5 keeps up to 1 MB of each column, and allocates a chunk at a time
_CHUNK = 1 << 16  # numbers: whole chunks of any column fit HDF5's cache, so that appending touches the disk once


class CodesWriter:
    """A new file of codes, appended to in the order of rows; see ``writing_codes``."""

    def __init__(
        self, file: h5py.File, path: str | Path, header: dict[str, Any], widths: tuple[int, ...], compression: str
    ):
        self.latents, self.rows, self.firings = sum(widths), 0, 0
        self._room = Room(file, path, _HELD_BACK)
        self._room.reserve()
        write_header(file, header)
        file.attrs.update({"latents": self.latents, "widths": np.array(widths, "<i8")})
        packed = {} if compression == "none" else {"compression": compression, "shuffle": True}
        self._columns = {
            name: file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(_CHUNK,), **packed)
            for name, kind in _COLUMNS.items()
        }
        self._append("indptr", np.zeros(1))

    def add(self, firings: Firings) -> None:
        """Append the firings of the next rows."""
        self._room.reserve(sum(kind.itemsize for kind in _COLUMNS.values()) * max(firings.rows, len(firings.place_n)))
        ends = np.searchsorted(firings.row_n, np.arange(1, firings.rows + 1))
        self._append("indptr", self.firings + ends)
        self._append("indices", firings.latent_n)
        self._append("values", firings.value_n)
        self.rows += firings.rows
        self.firings += len(firings.place_n)

    def _append(self, name: str, part: np.ndarray) -> None:
        column = self._columns[name]
        column.resize(len(column) + len(part), axis=0)
        column[len(column) - len(part) :] = part


@contextmanager
def writing_codes(
    path: str | Path, header: dict[str, Any], widths: tuple[int, ...], compression: str = "none"
) -> Iterator[CodesWriter]:
    """Write a file of codes; it gets its name when the block ends, and is removed if the block fails.

    Args:
        path: the file, which is replaced.
        header: the common fields of every file, and more.
        widths: latents of each level.
        compression: ``none``, ``lzf`` or ``gzip``.
    """
    with replacing_hdf5(path) as temporary, h5py.File(temporary, "w") as file:
        writer = CodesWriter(file, path, header, widths, compression)
        yield writer
        file.attrs["rows"] = writer.rows


class Codes:
    """The sparse codes of a cache's rows, opened for reading; only the rows that are asked for are read.

    Attributes:
        path: the file.
        header: configuration, inputs, run and host, as the file carries them.
        rows: N; they are the rows of the caches, numbered through all of them.
        latents: F, numbered through all levels from the coarsest.
        widths: latents of each level.
        firings: n.

    Raises:
        UsageError: there is no such file.
        FileError: it holds no codes, or is damaged.
        VersionError: this release does not read its version.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.file = open_hdf5(self.path, "codes", _HINT)
        try:
            with reading(path, _HINT):
                self._read_sizes()
        except BaseException:
            self.file.close()
            raise

    def __repr__(self) -> str:
        return f"Codes({self.path.name}: {self.rows:,} rows of {self.latents:,} latents, {self.firings:,} firings)"

    def __enter__(self) -> Codes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def read(self, start: int = 0, stop: int | None = None) -> csr_matrix:
        """The codes of rows ``start`` to ``stop``, (stop - start, F) float32, numbered as a Python slice does.

        Activations are in the units of the cache. Raises ``FileError`` if they are damaged.
        """
        start, stop, _ = slice(start, stop).indices(self.rows)
        stop = max(start, stop)
        with reading(self.path, _HINT):
            edges = self.file["indptr"][start : stop + 1]
            first, last = int(edges[0]), int(edges[-1])
            if not 0 <= first <= last <= self.firings or (np.diff(edges) < 0).any():
                raise ValueError("indptr does not ascend")
            indices, values = self.file["indices"][first:last], self.file["values"][first:last]
        edges -= first
        ascends = np.diff(indices) > 0
        begins = edges[(edges > 0) & (edges < len(indices))]
        ascends[begins - 1] = True  # the next row starts over
        if len(indices) and not (ascends.all() and indices.min() >= 0 and indices.max() < self.latents):
            raise self._damaged(f"indices of rows {start:,} to {stop:,} are not ascending latents")
        if not (values > 0).all() or not np.isfinite(values).all():
            raise self._damaged(f"values of rows {start:,} to {stop:,} are not all finite and above 0")
        return csr_matrix((values, indices, edges), (stop - start, self.latents))

    def _read_sizes(self) -> None:
        """Read all but the firings, and check that every dataset is stored as it must be."""
        fields = attributes(self.file)
        check_schema(self.path, fields, SCHEMA, SCHEMA_VERSION)
        require_fields(self.path, fields, _ATTRIBUTES, _HINT)
        self.header: dict[str, Any] = read_header(self.file)
        require_fields(self.path, self.header, _HEADER, _HINT)
        self.rows: int = fields["rows"]
        self.latents: int = fields["latents"]
        self.widths = tuple(fields["widths"])
        sizes: dict[str, int] = {}
        check_datasets(self.file, DATASETS, sizes)
        self.firings = sizes["n"]
        if sizes["N"] != self.rows:
            raise ValueError("its columns do not fit together")
        indptr = self.file["indptr"]
        if indptr[0] != 0 or indptr[-1] != self.firings or sum(self.widths) != self.latents:
            raise ValueError("its sizes do not fit together")

    def _damaged(self, what: str) -> FileError:
        return FileError(f"{self.path}: damaged: {what}", _HINT)


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of codes; raises ``FileError`` if they are damaged."""
    with Codes(path) as codes:
        header = {**attributes(codes.file), **codes.header}
        details = {
            "rows": codes.rows,
            "latents": codes.latents,
            "widths": list(codes.widths),
            "firings": codes.firings,
            "l0": codes.firings / codes.rows if codes.rows else None,
            "run": codes.header["run"],
            "host": codes.header["host"],
        }
        for start in range(0, codes.rows if verify else 0, _VERIFIED_ROWS):
            codes.read(start, start + _VERIFIED_ROWS)
    lines = [
        ("rows", f"{codes.rows:,}"),
        ("latents", of_levels(list(codes.widths))),
        ("firings", f"{codes.firings:,}" + (f", L0 {details['l0']:.4g}" if codes.rows else "")),
        run_line(details["run"]),
    ]
    verified = "latents ascend in every row, and activations are finite and above 0" if verify else ""
    return Described("codes", header, details, lines, verified=verified)
