"""Writing a cache so that an interruption at any moment loses at most the work since the last commit."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats.activations.layout import (
    DROPPED,
    ROW_COLUMNS,
    STATISTICS,
    STORAGE,
    TRAIN,
    block_rows,
    create_dataset,
    outlier_limit,
    pwrite,
)
from hiersae_cli.formats.activations.reader import Activations, as_tensor
from hiersae_cli.formats.activations.truth import TrueFirings, truth_bytes, write_truth
from hiersae_cli.formats.atomic import reserve, sweep, sync
from hiersae_cli.formats.hdf5 import Room, replacing_hdf5, write_header, write_strings
from hiersae_cli.synth.truth import Truth

_BLOCK_BYTES = 8 << 20  # of rows read at once when the whole file is read


@dataclass(frozen=True)
class RowColumns:
    """The columns of the rows and the documents, known before the model runs; those of the rows have shape (N,)."""

    tokens: np.ndarray
    document: np.ndarray
    position: np.ndarray
    split: np.ndarray
    document_names: list[str]
    document_offsets: np.ndarray
    document_held_out: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def between(self, start: int, stop: int) -> RowColumns:
        """A contiguous part of the rows; the table of documents stays whole."""
        part = slice(start, stop)
        return RowColumns(
            self.tokens[part],
            self.document[part],
            self.position[part],
            self.split[part],
            self.document_names,
            self.document_offsets,
            self.document_held_out,
        )


def partial_path(path: str | Path) -> Path:
    """The file of an unfinished cache."""
    return Path(f"{path}.partial")


def refuse_if_written(partial: Path) -> None:
    """Raise ``HierSAEError`` if another process is writing the unfinished cache."""
    os.close(_open_locked(partial))


def remove_finished(path: str | Path) -> None:
    """Remove the unfinished cache next to the finished one that was made from it, after a kill between the two."""
    partial = partial_path(path)
    if not (partial.exists() and Path(path).exists()):
        return
    with suppress(HierSAEError):
        with Activations(partial, allow_unfinished=True) as unfinished, Activations(path) as finished:
            same = unfinished.fingerprint == finished.fingerprint
        if same:
            refuse_if_written(partial)
            partial.unlink()


def _open_locked(partial: Path) -> int:
    """The handle of an unfinished cache, which no other process can open this way until it is closed."""
    handle = os.open(partial, os.O_RDWR)
    # A POSIX lock: it does not conflict with the lock that HDF5 takes on the same file.
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(handle)
        raise HierSAEError(f"{partial}: another process is writing it", "Wait for it, or stop it.") from None
    except OSError:
        pass  # a file system without locks
    return handle


class ActivationsWriter:
    """An unfinished cache at ``<path>.partial``, open for writing rows in order."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.partial = partial_path(path)
        with Activations(self.partial, allow_unfinished=True) as acts:
            self.header, self.rows, self.rows_committed = acts.header, acts.rows, acts.rows_committed
            self.modules = {module: acts.width(module) for module in acts.modules}
            self._offsets: dict[str, int] = {}
            acts.file.visititems(self._note_offset)
        self._handle = _open_locked(self.partial)

    @classmethod
    def create(
        cls, path: str | Path, header: dict[str, Any], rows: RowColumns, modules: dict[str, int], dtype: str
    ) -> ActivationsWriter:
        """Make ``<path>.partial`` at its full size, complete except for the activations.

        The space is reserved now, so that a full disk shows here and not hours later.
        """
        count = len(rows)
        sweep(path)
        with replacing_hdf5(partial_path(path)) as temporary:
            with h5py.File(temporary, "w") as file:
                write_header(file, header)
                create_dataset(file, "rows_committed", (), np.dtype("<i8"))
                create_dataset(file, "fingerprint", (), np.dtype("S64"))
                file["rows_committed"][()] = 0
                file["fingerprint"][()] = b""
                for name, kind in ROW_COLUMNS.items():
                    create_dataset(file, name, (count,), kind)
                documents = file.create_group("documents")
                write_strings(documents, "name", rows.document_names)
                documents.create_dataset("offset", data=rows.document_offsets.astype("<i8"))
                documents.create_dataset("held_out", data=rows.document_held_out.astype(bool))
                for module, width in modules.items():
                    data = create_dataset(file, f"activations/{module}", (count, width), STORAGE[dtype])
                    data.attrs["dtype"] = dtype
                    create_dataset(file, f"norms/{module}", (count,), np.dtype("<f4"))
                    create_dataset(file, f"statistics/{module}/mean", (width,), np.dtype("<f8"))
                    for name, kind in STATISTICS.items():
                        create_dataset(file, f"statistics/{module}/{name}", (), kind)
                Room(file, path).reserve()  # so far, nothing large has been written
                for name in ROW_COLUMNS:
                    file[name][...] = getattr(rows, name)
            reserve(temporary, temporary.stat().st_size, path)
        return cls(path)

    def write(self, module: str, start: int, activations: np.ndarray, norms: np.ndarray) -> None:
        """Put rows (n, d), in the storage type, and their norms (n,) at row ``start``."""
        width = self.modules[module]
        offset = self._offsets[f"activations/{module}"] + start * width * activations.itemsize
        pwrite(self._handle, np.ascontiguousarray(activations), offset)
        pwrite(self._handle, norms.astype("<f4"), self._offsets[f"norms/{module}"] + 4 * start)

    def commit(self, rows: int) -> None:
        """Declare the first ``rows`` rows written; they are on the disk before the count says so."""
        os.fsync(self._handle)
        pwrite(self._handle, np.array(rows, "<i8"), self._offsets["rows_committed"])
        os.fsync(self._handle)
        self.rows_committed = rows

    def finish(self, compression: str = "none", truth: tuple[Truth, TrueFirings] | None = None) -> None:
        """Add the truth, if there is one, the statistics and the fingerprint; give the file its name.

        The truth is written by HDF5: a process that is killed at that moment leaves a file that cannot be resumed.
        """
        if truth:
            with h5py.File(self.partial, "r+", locking=False) as file:
                write_truth(file, *truth)
        for name, value in summarise(self.partial).items():
            pwrite(self._handle, value, self._offsets[name])
        os.fsync(self._handle)
        self.close()
        if compression == "none":
            os.replace(self.partial, self.path)
            sync(self.path.absolute().parent)
        else:
            _compress(self.partial, self.path, compression)
            self.partial.unlink()

    def close(self) -> None:
        """Close the file; rows that were not committed will be written again."""
        os.close(self._handle)

    def _note_offset(self, name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            self._offsets[name] = item.id.get_offset()


def join_shards(path: str | Path, shards: list[Activations], header: dict[str, Any]) -> None:
    """Write a cache whose activations are virtual: they stay in ``shards``, which are in row order."""
    first = shards[0]
    folder = Path(path).absolute().parent
    names = [os.path.relpath(shard.path, folder) for shard in shards]
    rows = sum(shard.rows for shard in shards)
    with replacing_hdf5(path) as temporary:
        with h5py.File(temporary, "w") as file:
            write_header(file, {**header, "shards": names})
            Room(file, path, 1 << 20).reserve(rows * sum(kind.itemsize for kind in ROW_COLUMNS.values()))
            file.create_dataset("rows_committed", data=np.int64(rows))
            for name in ROW_COLUMNS:
                file.create_dataset(name, data=np.concatenate([shard.column(name) for shard in shards]))
            first.file.copy("documents", file)
            for module in first.modules:
                for group in ("activations", "norms"):
                    _virtual(file, f"{group}/{module}", shards, names, rows)
                file[f"activations/{module}"].attrs["dtype"] = first.dtype(module)
                create_dataset(file, f"statistics/{module}/mean", (first.width(module),), np.dtype("<f8"))
                for name, kind in STATISTICS.items():
                    create_dataset(file, f"statistics/{module}/{name}", (), kind)
            create_dataset(file, "fingerprint", (), np.dtype("S64"))[()] = b""
        # Read in the folder of the final name, in which the shards' relative names are valid.
        summary = summarise(temporary)
        with h5py.File(temporary, "r+") as file:
            for name, value in summary.items():
                file[name][...] = value


def _virtual(file: h5py.File, name: str, shards: list[Activations], paths: list[str], rows: int) -> None:
    source = shards[0].file[name]
    layout = h5py.VirtualLayout(shape=(rows, *source.shape[1:]), dtype=source.dtype)
    start = 0
    for shard, path in zip(shards, paths, strict=True):
        # HDF5 takes a % in a source's name for a pattern.
        part = h5py.VirtualSource(path.replace("%", "%%"), name, shape=(shard.rows, *source.shape[1:]))
        layout[start : start + shard.rows] = part
        start += shard.rows
    file.create_virtual_dataset(name, layout)


def summarise(path: Path) -> dict[str, np.ndarray]:
    """Statistics and fingerprint of a whole file: over the training rows, but norms over all rows.

    The fingerprint is the sha256 of the columns of rows, then of every module's name and rows, as stored, and then of
    the truth: a plain, a compressed and a joined cache of the same activations have the same.
    """
    summary: dict[str, np.ndarray] = {}
    with Activations(path, allow_unfinished=True) as acts:
        digest = hashlib.sha256()
        for name, kind in ROW_COLUMNS.items():
            digest.update(np.ascontiguousarray(acts.column(name), kind).data)
        split = acts.column("split")
        for module in acts.modules:
            digest.update(module.encode())
            norms = acts.norms(module).astype(np.float64)
            used_norms = norms[split != DROPPED]
            median = float(np.median(used_norms)) if len(used_norms) else 0.0
            limit = outlier_limit(median)
            in_training = split == TRAIN
            if acts.header["config"].get("drop_outliers"):
                in_training &= norms <= limit
            count = max(int(in_training.sum()), 1)
            total = torch.zeros(acts.width(module), dtype=torch.float64)
            block = max(1, _BLOCK_BYTES // (4 * acts.width(module)))
            for start in range(0, acts.rows, block):
                part = torch.from_numpy(in_training[start : start + block])
                raw = acts.read_stored(module, start, start + len(part))
                digest.update(raw.data)
                x = as_tensor(raw, acts.dtype(module))
                total += (x if part.all() else x[part]).double().sum(0)  # twice as fast as a sum of another type
            summary[f"statistics/{module}/mean"] = (total / count).numpy()
            summary[f"statistics/{module}/mean_square"] = np.array(np.square(norms[in_training]).sum() / count, "<f8")
            summary[f"statistics/{module}/median_norm"] = np.array(median, "<f8")
            summary[f"statistics/{module}/outliers"] = np.array((used_norms > limit).sum(), "<i8")
        digest.update(truth_bytes(acts.file))
    summary["fingerprint"] = np.array(digest.hexdigest().encode(), "S64")
    return summary


def _compress(source: Path, target: Path, compression: str) -> None:
    # Without a cache of chunks, each is on the disk before the next one is made.
    with (
        replacing_hdf5(target) as temporary,
        h5py.File(source, "r") as old,
        h5py.File(temporary, "w", rdcc_nbytes=0) as new,
    ):
        room = Room(new, target)
        room.reserve(old.id.get_filesize() - sum(data.id.get_storage_size() for data in old["activations"].values()))
        new.attrs.update(old.attrs)
        for name in old:
            if name != "activations":
                old.copy(name, new)
        for module, data in old["activations"].items():
            rows = max(1, min(len(data), block_rows(data.dtype.itemsize * data.shape[1])))
            packed = new.create_dataset(
                f"activations/{module}",
                shape=data.shape,
                dtype=data.dtype,
                chunks=(rows, data.shape[1]),
                compression=compression,
                shuffle=True,
            )
            packed.attrs.update(data.attrs)
            for start in range(0, len(data), rows):
                room.reserve(rows * data.dtype.itemsize * data.shape[1])
                packed[start : start + rows] = data[start : start + rows]
