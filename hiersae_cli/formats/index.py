"""The index of firings behind the dashboard (``dashboard.h5``): specified in ``docs/file-formats.md``.

Legend of shapes: R rows indexed, F latents of a dictionary, n firings of a dictionary in these rows.

It holds every firing twice, by row and by latent, so that a page needs only look-ups in a few sorted lists: nothing
grows with F x F. An unfinished index is a folder of files that are only appended to, ``dashboard.h5.partial``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import DROPPED
from hiersae_cli.formats.activations.layout import create_dataset
from hiersae_cli.formats.atomic import naming_full_disk, read_json, reserve, write_json
from hiersae_cli.formats.described import Described
from hiersae_cli.formats.fields import COUNT, require_fields
from hiersae_cli.formats.hdf5 import Room, attributes, read_strings, replacing_hdf5, write_header, write_strings
from hiersae_cli.formats.index_layout import (
    BASELINE,
    DATASETS,
    HEADER,
    RUN,
    TABLES,
    check_dictionary,
    check_range,
    check_starts,
)
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.stored import check_datasets, read_header
from hiersae_cli.formats.tensors import opened_tensors, read_tensors, save_tensors
from hiersae_cli.levels import Levels
from hiersae_cli.locking import exclusive
from hiersae_cli.metrics.fates import VERDICTS
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.own_tokens import own_tokens, table
from hiersae_cli.reading import reading, require_regular

SCHEMA = "hiersae.index"
SCHEMA_VERSION = 2
HEADER_FILE = "header.json"  # of an unfinished index

_COLUMNS = {name: DATASETS[f"rows/{name}"].dtype for name in ("cache_row", "token", "document", "position", "split")}
_APPENDED = {"count": np.dtype("<i4"), "latent": DATASETS["DICT/latent"].dtype, "value": DATASETS["DICT/value"].dtype}
_MADE_FROM: dict[str, Any] = {RUN: dict, BASELINE: (dict, None), "host": (dict, None)}
_HELD_BACK = 1 << 20  # bytes that HDF5 may keep back: texts and notes, as all columns are contiguous
_TRANSPOSED = 1 << 21  # firings sorted at once: about 50 MB
_HINT = "Build it again: hiersae dashboard with --rebuild."
_REBUILD_HINT = "Start again with --rebuild."

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FiringLists:
    """All firings of a dictionary.

    Attributes:
        start_R, latent_n: in row r, ``latent_n[start_R[r] : start_R[r + 1]]`` fire, ascending.
        start_F, row_n, value_n: latent f fires in ``row_n[start_F[f] : start_F[f + 1]]``, ascending, with these
            activations.
    """

    start_R: Array
    latent_n: Array
    start_F: Array
    row_n: Array
    value_n: Array

    @property
    def rows(self) -> int:
        """R."""
        return len(self.start_R) - 1

    @property
    def latents(self) -> int:
        """F."""
        return len(self.start_F) - 1

    @property
    def fired_F(self) -> Array:
        """The number of rows in which each latent fires."""
        return np.diff(self.start_F)

    def of(self, latent: int) -> tuple[Array, Array]:
        """Rows in which a latent fires, ascending, and its activations there."""
        inside = slice(int(self.start_F[latent]), int(self.start_F[latent + 1]))
        return np.asarray(self.row_n[inside]), np.asarray(self.value_n[inside])

    def rows_of(self, latent: int) -> Array:
        """Rows in which a latent fires, ascending."""
        return np.asarray(self.row_n[int(self.start_F[latent]) : int(self.start_F[latent + 1])])

    def at(self, row_m: Array) -> tuple[Array, Array]:
        """The firings in some rows: the place of each firing's row in ``row_m``, ascending, and its latent."""
        first_m = self.start_R[row_m]
        count_m = self.start_R[row_m + 1] - first_m
        before_m = np.cumsum(count_m) - count_m
        place = np.repeat(first_m - before_m, count_m) + np.arange(int(count_m.sum()))
        return np.repeat(np.arange(len(row_m)), count_m), np.asarray(self.latent_n[place])

    def own_tokens(self, token_R: Array, counted_R: Array) -> tuple[Array, Array]:
        """The tokens (F, T) that each latent typically fires at, with the share of its activation at each.

        See ``metrics.own_tokens``. ``counted_R`` marks the rows in which firings were counted.
        """
        share_V = np.bincount(token_R[counted_R]) / max(int(counted_R.sum()), 1)
        tokens_FT, shares_FT = table(self.latents)
        for latent in np.flatnonzero(self.fired_F).tolist():
            row_n, value_n = self.of(latent)
            tokens, shares = own_tokens(token_R[row_n], value_n, share_V)
            tokens_FT[latent, : len(tokens)], shares_FT[latent, : len(tokens)] = tokens, shares
        return tokens_FT, shares_FT


class IndexFile:
    """An index opened for reading; its lists stay on the disk, and only the parts that are used are read.

    Attributes:
        path: the file.
        header: configuration, inputs and descriptions of run, baseline and host.
        columns: of the rows: ``cache_row`` (their numbers in the caches), ``token``, ``document`` (a place in
            ``documents``), ``position``, ``split``.
        documents: names.
        lists: firings by dictionary, ``run`` and perhaps ``baseline``.
        tables: figures of latents, by ``DICTIONARY/NAME``.
        token_texts: text of tokens by id; empty if no host model was given.

    Raises:
        FileError: it is missing, not an index, or damaged.
        VersionError: this release does not read its version.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.exists():
            raise FileError(f"{path}: no such file", "Build it with 'hiersae dashboard'.")
        require_regular(path)
        with reading(path, _HINT), h5py.File(self.path, "r", locking=False) as file:
            self._read(file)

    def check(self) -> None:
        """Raise ``FileError`` for a number that is out of its range. This reads the whole file."""
        with reading(self.path, _HINT):
            check_range("rows/split", self.columns["split"], 0, DROPPED + 1)
            check_range("rows/document", self.columns["document"], 0, len(self.documents))
            for name, lists in self.lists.items():
                for part in _parts(len(lists.latent_n)):
                    check_range(f"{name}/latent", lists.latent_n[part], 0, lists.latents)
                    check_range(f"{name}/row", lists.row_n[part], 0, lists.rows)
                    if not (lists.value_n[part] > 0).all() or not np.isfinite(lists.value_n[part]).all():
                        raise ValueError(f"{name}/value holds a number that is not finite and above 0")

    def _read(self, file: h5py.File) -> None:
        """Read all but the firings, and check that every dataset is stored as it must be."""
        check_schema(self.path, attributes(file), SCHEMA, 1, SCHEMA_VERSION)
        self.header: dict[str, Any] = read_header(file)
        require_fields(self.path, self.header, HEADER, _HINT)
        sizes: dict[str, int] = {}
        names = [name for name in (RUN, BASELINE) if name in file]
        check_datasets(file, {name: stored for name, stored in DATASETS.items() if not name.startswith("DICT/")}, sizes)
        latents = {name: check_dictionary(file, name, sizes) for name in names}
        self.columns = {name: _mapped(self.path, file[f"rows/{name}"], kind) for name, kind in _COLUMNS.items()}
        self.documents = read_strings(file["documents"])
        texts = read_strings(file["vocabulary/text"])
        self.token_texts: dict[int, str] = dict(zip(file["vocabulary/id"][...].tolist(), texts, strict=True))
        self.lists = {name: _lists(self.path, file, name) for name in names}
        self.tables = {
            f"{name}/{table}": _mapped(self.path, file[f"{name}/tables/{table}"], stored.dtype)
            for name in names
            for table, stored in TABLES[name].items()
            if f"{name}/tables/{table}" in file
        }
        for name, lists in self.lists.items():
            check_starts(lists.start_R, len(lists.latent_n))
            check_starts(lists.start_F, len(lists.latent_n))
            if self.header[name] is None:
                raise ValueError(f"it does not say what {name} is")
        levels = Levels.of(self.header[RUN]["widths"])
        if latents.get(RUN) != levels.latents:
            raise ValueError(f"it has not the {levels.latents:,} latents of its run")
        if (latent := levels.misplaced(self.tables["run/parent"].tolist())) is not None:
            raise ValueError(f"the parent of latent {latent} is not one level up")
        if BASELINE in names:
            check_range("baseline/tables/part", self.tables["baseline/part"], -1, levels.latents)
            check_range("baseline/tables/verdict", self.tables["baseline/verdict"], 0, len(VERDICTS))

    @cached_property
    def rows(self) -> int:
        """Rows in which firings were counted: all but dropped ones."""
        return int((self.columns["split"] != DROPPED).sum())


class IndexWriter:
    """An index in the making: append firings of the next rows, commit now and then, finish.

    Args:
        path: of the finished index.
        header: of the file; the unfinished folder of another header is refused.
        latents: of each dictionary.
        sums: sums over the rows, by name; committed ones take their place.

    Attributes:
        rows_committed: rows whose firings are on the disk.

    Raises:
        FileError: the unfinished index there has other inputs, or another program is writing it.
    """

    def __init__(self, path: str | Path, header: dict[str, Any], latents: Mapping[str, int], sums: Mapping[str, Array]):
        self.path = Path(path)
        self.folder = partial_folder(path)
        self.header, self.latents = header, dict(latents)
        self.rows_committed = 0
        self.sums = {name: np.array(value) for name, value in sums.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open = ExitStack()
        self._open.enter_context(exclusive(self.folder, wait=False))
        self._state = self.folder / "state.safetensors"
        lengths: dict[str, int] = {}
        if self._state.exists():
            self.rows_committed, lengths = self._load()
        else:
            write_json(self.folder / HEADER_FILE, header)
        self._files = {
            f"{name}.{column}": self._open.enter_context(self._appending(f"{name}.{column}", lengths))
            for name in self.latents
            for column in _APPENDED
        }

    def append(self, name: str, firings: Firings) -> None:
        """Append the firings of a dictionary in the next rows."""
        counts = np.bincount(firings.row_n, minlength=firings.rows)
        for column, values in (("count", counts), ("latent", firings.latent_n), ("value", firings.value_n)):
            with naming_full_disk(self.path):
                self._files[f"{name}.{column}"].write(np.ascontiguousarray(values, _APPENDED[column]).data)

    def commit(self, rows: int) -> None:
        """Declare the first ``rows`` rows done, with the current ``sums``; all are on the disk first."""
        with naming_full_disk(self.path):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
        lengths = {name: str(file.tell()) for name, file in self._files.items()}
        save_tensors(self._state, self.sums, {"rows": str(rows), **lengths})
        self.rows_committed = rows

    def close(self) -> None:
        """Close the files; rows that were not committed will be done again."""
        self._open.close()

    def finish(
        self,
        columns: Mapping[str, Array],
        documents: list[str],
        tables: Callable[[dict[str, FiringLists]], tuple[dict[str, Array], dict[int, str]]],
    ) -> None:
        """Write the index and remove the folder that it was made from.

        ``tables`` gives, from all firings, the tables by ``DICTIONARY/NAME`` and the texts of tokens by id.
        """
        for appended in self._files.values():
            appended.close()
        rows = len(columns["token"])
        with replacing_hdf5(self.path) as temporary:
            with h5py.File(temporary, "w") as file:
                write_header(file, self.header)
                room = Room(file, self.path, _HELD_BACK)
                room.reserve(rows * sum(np.dtype(kind).itemsize for kind in _COLUMNS.values()) + _text_bytes(documents))
                for name, kind in _COLUMNS.items():
                    create_dataset(file, f"rows/{name}", (rows,), kind)[...] = columns[name]
                write_strings(file, "documents", documents)
                for name in self.latents:
                    self._create_lists(file, name, rows, room)
            reserve(temporary, temporary.stat().st_size, self.path)  # a mapping of a full disk ends the process
            with h5py.File(temporary, "r") as file:
                firings = {name: _lists(temporary, file, name, "r+") for name in self.latents}
            for name, lists in firings.items():
                self._transpose(name, lists)
            of_latents, texts = tables(firings)
            with h5py.File(temporary, "r+") as file:
                tables_bytes = sum(np.asarray(values).nbytes for values in of_latents.values())
                Room(file, self.path, _HELD_BACK).reserve(tables_bytes + _text_bytes(list(texts.values())))
                for path, values in of_latents.items():
                    dictionary, _, name = path.partition("/")
                    values = np.asarray(values)
                    create_dataset(file, f"{dictionary}/tables/{name}", values.shape, values.dtype)[...] = values
                file.create_dataset("vocabulary/id", data=np.array(sorted(texts), "<i4"))
                write_strings(file, "vocabulary/text", [texts[token] for token in sorted(texts)])
        shutil.rmtree(self.folder)
        self.close()

    def _create_lists(self, file: h5py.File, name: str, rows: int, room: Room) -> None:
        count_R = np.fromfile(self.folder / f"{name}.count", _APPENDED["count"])
        latent_n = (
            np.memmap(self.folder / f"{name}.latent", _APPENDED["latent"]) if count_R.any() else np.zeros(0, "<i4")
        )
        start_R, start_F = np.zeros(rows + 1, "<i8"), np.zeros(self.latents[name] + 1, "<i8")
        np.cumsum(count_R, out=start_R[1:])
        for part in _parts(len(latent_n)):
            start_F[1:] += np.bincount(latent_n[part], minlength=self.latents[name])
        start_F[1:] = np.cumsum(start_F[1:])
        room.reserve(start_R.nbytes + start_F.nbytes + len(latent_n) * (4 + 4 + _APPENDED["value"].itemsize))
        create_dataset(file, f"{name}/start_R", start_R.shape, start_R.dtype)[...] = start_R
        create_dataset(file, f"{name}/start_F", start_F.shape, start_F.dtype)[...] = start_F
        latents = create_dataset(file, f"{name}/latent", (len(latent_n),), _APPENDED["latent"])
        for part in _parts(len(latent_n)):
            latents[part] = latent_n[part]
        create_dataset(file, f"{name}/row", (len(latent_n),), np.dtype("<i4"))
        create_dataset(file, f"{name}/value", (len(latent_n),), _APPENDED["value"])

    def _transpose(self, name: str, lists: FiringLists) -> None:
        """Put the firings, which are in row order, into the lists of latents: part by part, each sorted by latent."""
        if not len(lists.latent_n):
            return
        value_n = np.memmap(self.folder / f"{name}.value", _APPENDED["value"])
        filled_F = np.array(lists.start_F[:-1])
        for part in _parts(len(value_n)):
            latent = np.asarray(lists.latent_n[part])
            row = np.searchsorted(lists.start_R, np.arange(part.start, part.stop), side="right") - 1
            order = np.argsort(latent, kind="stable")
            count_F = np.bincount(latent, minlength=lists.latents)
            before_F = np.cumsum(count_F) - count_F
            place = np.repeat(filled_F - before_F, count_F) + np.arange(len(order))
            lists.row_n[place] = row[order]
            lists.value_n[place] = value_n[part][order]
            filled_F += count_F
        for written in (lists.row_n, lists.value_n):
            if isinstance(written, np.memmap):  # without firings it is an empty array
                written.flush()

    def _appending(self, name: str, lengths: Mapping[str, int]) -> BinaryIO:
        path = self.folder / name
        path.touch()
        os.truncate(path, lengths.get(name, 0))
        return open(path, "ab")

    def _load(self) -> tuple[int, dict[str, int]]:
        if not is_partial_of(self.path, self.header["made_of"]):
            raise FileError(
                f"{self.folder}: was started with other inputs or flags",
                "Give the same ones to resume, or --rebuild to start again.",
            )
        with opened_tensors(self._state, _REBUILD_HINT) as file:
            numbers = {key: int(value) for key, value in (file.metadata() or {}).items()}
            rows = numbers.pop("rows")
        loaded = {name: values.numpy() for name, values in read_tensors(self._state, _REBUILD_HINT).items()}
        if {name: value.shape for name, value in loaded.items()} != {n: v.shape for n, v in self.sums.items()}:
            raise FileError(f"{self._state}: damaged: its sums have other shapes", _REBUILD_HINT)
        self.sums = {name: np.array(value) for name, value in loaded.items()}
        self.header = read_json(self.folder / HEADER_FILE)
        return rows, numbers


def partial_folder(path: str | Path) -> Path:
    """The folder of an unfinished index."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


def is_partial_of(path: str | Path, made_of: dict[str, Any]) -> bool:
    """Whether there is an unfinished index of these inputs."""
    file = partial_folder(path) / HEADER_FILE
    return file.exists() and read_json(file).get("made_of") == made_of


def remove_finished(path: str | Path, made_of: dict[str, Any]) -> None:
    """Remove the unfinished index next to the finished one of the same inputs, after a kill between the two."""
    folder = partial_folder(path)
    if folder.exists() and is_partial_of(path, made_of):
        with suppress(FileError), exclusive(folder, wait=False):
            shutil.rmtree(folder)


def rows_committed(folder: str | Path) -> int:
    """The number of rows that are done in an unfinished index, by its folder."""
    state = Path(folder) / "state.safetensors"
    if not state.exists():
        return 0
    with opened_tensors(state, _REBUILD_HINT) as file:
        return int((file.metadata() or {})["rows"])


def _lists(path: Path, file: h5py.File, name: str, mode: str = "r") -> FiringLists:
    mapped = {
        column: _mapped(path, file[f"{name}/{column}"], DATASETS[f"DICT/{column}"].dtype, mode)
        for column in ("latent", "row", "value")
    }
    start_R, start_F = (file[f"{name}/{column}"][...] for column in ("start_R", "start_F"))
    return FiringLists(start_R, mapped["latent"], start_F, mapped["row"], mapped["value"])


def _mapped(path: Path, data: h5py.Dataset, dtype: np.dtype[Any], mode: str = "r") -> Array:
    """A dataset as an array whose bytes are read when they are used, from any thread.

    The type is that of the format and never the file's: bytes of another type could be taken for addresses.
    """
    offset = data.id.get_offset()
    if offset is None or not data.size:
        return np.zeros(data.shape, dtype)
    mapped = np.memmap(path, dtype, mode, offset, data.shape)  # type: ignore[call-overload]
    return np.asarray(mapped) if mode == "r" else mapped  # access to a plain array is several times faster


def _text_bytes(texts: list[str]) -> int:
    """The most bytes that texts may take in the file."""
    return sum(6 * len(text) + 64 for text in texts)  # 6: escaped


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _TRANSPOSED):
        yield slice(start, min(start + _TRANSPOSED, count))


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of an index, or of the folder of an unfinished one.

    Raises ``FileError`` if it is damaged. Verified, every firing is looked at.
    """
    if path.is_dir():
        header = read_json(path / HEADER_FILE)
        check_schema(path / HEADER_FILE, header, SCHEMA, 1, SCHEMA_VERSION)
        require_fields(path / HEADER_FILE, header, {"made_of": {"rows": COUNT}, **_MADE_FROM}, _REBUILD_HINT)
        done, total = rows_committed(path), header["made_of"]["rows"]
        details = {"rows": total, "rows_committed": done, **_made_from(header)}
        unfinished = f"{done:,} of {total:,} rows are indexed"
        return Described("index", header, details, [], unfinished, "hiersae dashboard")
    index = IndexFile(path)
    with h5py.File(path, "r", locking=False) as file:
        header = {**attributes(file), **index.header}
    if verify:
        index.check()
    firings = {name: len(lists.latent_n) for name, lists in index.lists.items()}
    details = {"rows": index.rows, "documents": len(index.documents), "firings": firings, **_made_from(header)}
    lines = [("rows", f"{index.rows:,} of {len(index.documents):,} documents")]
    for name, count in firings.items():
        lines.append((name, f"{header[name]['name']}: {count:,} firings of {index.lists[name].latents:,} latents"))
    lines.append(("tokens", "as text" if index.token_texts else "as numbers: built without --model"))
    verified = "documents, rows and latents are in range, and activations are finite and above 0" if verify else ""
    return Described("index", header, details, lines, verified=verified)


def _made_from(header: dict[str, Any]) -> dict[str, Any]:
    return {name: header[name] for name in _MADE_FROM}
