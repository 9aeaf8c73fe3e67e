"""Reading caches: one file, or several of the same module as if they were one."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import torch

from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats.activations.layout import (
    HELD_OUT,
    ROW_COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    TRAIN,
    TRUTH_VERSION,
    outlier_limit,
    pread_into,
)
from hiersae_cli.formats.activations.truth import Firings, has_truth, read_firings, read_truth
from hiersae_cli.formats.hdf5 import attributes, open_hdf5, read_strings
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.synth.truth import Truth

_Content = TypeVar("_Content")
_NORMS = 1 << 20  # looked at at once
_ROWS = 4096  # read at once


class Activations:
    """A cache opened for reading.

    Legend of shapes: N rows (one per token), d width of a module.

    Attributes:
        path: the file.
        header: configuration, inputs, host and library versions, as the file carries them.
        modules: paths of the hooked modules, in the file's order.
        rows: N.
        fingerprint: sha256 of the logical content; "" while the file is unfinished.

    Raises:
        FileError: the file is missing, not a cache, damaged, or unfinished.
        VersionError: it is of a version that this release does not read.
    """

    def __init__(self, path: str | Path, *, allow_unfinished: bool = False):
        self.path = Path(path)
        self.file = open_hdf5(self.path, "an activation cache", "Make it with 'hiersae cache'.")
        try:
            check_schema(path, attributes(self.file), SCHEMA, SCHEMA_VERSION, TRUTH_VERSION)
            self.header: dict[str, Any] = json.loads(self.file["header"][()])
            self.rows = int(self.file["tokens"].shape[0])
            self.rows_committed = int(self.file["rows_committed"][()])
            self.fingerprint = self.file["fingerprint"][()].decode() if "fingerprint" in self.file else ""
            self.modules = list(self.file["activations"])
            self.documents = int(self.file["documents/name"].shape[0])
            self._offsets = {m: self.file[f"activations/{m}"].id.get_offset() for m in self.modules}
            self._require_lengths()
            self._parts = self._open_shards()
            if not allow_unfinished and (self.rows_committed < self.rows or not self.fingerprint):
                share = self.rows_committed / max(self.rows, 1)
                raise FileError(
                    f"{path}: unfinished: {self.rows_committed:,} of {self.rows:,} rows written ({share:.0%})",
                    "Run the same 'hiersae cache' command again to finish it.",
                )
        except HierSAEError:
            self.file.close()
            raise
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:  # what h5py raises on damaged bytes
            self.file.close()
            raise FileError(f"{path}: damaged: {error}", "Make it again with 'hiersae cache'.") from None
        self._starts = np.cumsum([0, *(part.rows for part in self._parts)])
        self._handle = os.open(self.path, os.O_RDONLY)

    def __enter__(self) -> Activations:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and, if it joins shards, theirs."""
        os.close(self._handle)
        self.file.close()
        for part in self._parts:
            part.close()

    def width(self, module: str) -> int:
        """d of a module."""
        return int(self.file[f"activations/{module}"].shape[1])

    def dtype(self, module: str) -> str:
        """``float32``, ``float16`` or ``bfloat16``."""
        return str(self.file[f"activations/{module}"].attrs["dtype"])

    def column(self, name: str) -> np.ndarray:
        """A column (N,) of what is known of each row: tokens, document, position or split."""
        return self.file[name][...]

    def norms(self, module: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The Euclidean norms of rows ``start`` to ``stop``, (stop - start,) float32."""
        return self.file[f"norms/{module}"][start:stop]

    def document_names(self) -> list[str]:
        """Where each document came from, in order."""
        return read_strings(self.file["documents/name"])

    def statistics(self, module: str) -> dict[str, Any]:
        """``mean`` (d,), ``mean_square`` of the training rows; ``median_norm``, ``outliers`` of all not dropped."""
        group = self.file[f"statistics/{module}"]
        return {name: data[()] for name, data in group.items()}

    def usable(self, module: str, split: int) -> np.ndarray:
        """Which rows (N,) bool belong to ``split`` and, if the cache drops outliers, are none."""
        mask = self.column("split") == split
        return mask & ~self.outliers(module) if self.header["config"].get("drop_outliers") else mask

    def outliers(self, module: str) -> np.ndarray:
        """Which rows (N,) bool have a norm over 10 x the median, as attention sinks have."""
        return self.norms(module) > outlier_limit(float(self.file[f"statistics/{module}/median_norm"][()]))

    @functools.cached_property
    def truth(self) -> Truth | None:
        """What the activations were drawn from; None unless they are synthetic. Raises ``FileError`` if damaged."""
        return self._checked(read_truth) if has_truth(self.file) else None

    def true_features(self, row_R: np.ndarray) -> torch.Tensor:
        """Magnitudes (R, N) of the true features in held-out rows, by the rows' numbers in the file.

        Raises ``FileError`` where the cache is not synthetic, ``ValueError`` for a row that is not held out.
        """
        if self.truth is None:
            raise FileError(f"{self.path}: holds no truth", "Make one that does with 'hiersae synth'.")
        held_out_H, firings = self._firings
        place_R = np.searchsorted(held_out_H, row_R).clip(max=max(len(held_out_H) - 1, 0))
        if len(row_R) and not (len(held_out_H) and np.array_equal(held_out_H[place_R], row_R)):
            raise ValueError(f"{self.path}: true features are kept for held-out rows alone")
        return firings.dense(place_R, len(self.truth))

    @functools.cached_property
    def _firings(self) -> tuple[np.ndarray, Firings]:
        """The numbers of the held-out rows (H,), and what fired in them."""
        held_out_H, firings = np.flatnonzero(self.column("split") == HELD_OUT), self._checked(read_firings)
        if len(firings.start) != len(held_out_H) + 1:
            raise self._damaged("true firings are not those of its held-out rows")
        return held_out_H, firings

    def _checked(self, read: Callable[[h5py.File], _Content]) -> _Content:
        try:
            return read(self.file)
        except (KeyError, ValueError, OSError, RuntimeError, IndexError) as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, what: str) -> FileError:
        return FileError(f"{self.path}: damaged: {what}", "Make it again with 'hiersae synth'.")

    def read(self, module: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows ``start`` to ``stop`` of a module, (stop - start, d), in the stored type."""
        raw = self.read_stored(module, start, self.rows if stop is None else stop)
        return as_tensor(raw, self.dtype(module))

    def read_stored(self, module: str, start: int, stop: int) -> np.ndarray:
        """The same as NumPy sees them on the disk: bfloat16 as uint16."""
        data = self.file[f"activations/{module}"]
        out = np.empty((stop - start, data.shape[1]), data.dtype)
        self.read_into(module, start, out)
        return out

    def read_into(self, module: str, start: int, out: np.ndarray) -> None:
        """Fill ``out`` (n, d), of the storage type, with the rows from ``start`` on. Safe from any thread."""
        if self._parts:
            for number, first, block in _spans(self._starts, start, out):
                self._parts[number].read_into(module, first, block)
            return
        offset = self._offsets[module]
        if offset is None:
            try:
                self.file[f"activations/{module}"].read_direct(out, np.s_[start : start + len(out)])
            except OSError as error:
                raise FileError(f"{self.path}: damaged: {error}", "Make it again with 'hiersae cache'.") from None
            return
        try:
            pread_into(self._handle, out, offset + start * out.shape[1] * out.itemsize)
        except EOFError:
            raise FileError(
                f"{self.path}: truncated: its data ends early", "Make it again with 'hiersae cache'."
            ) from None

    def _require_lengths(self) -> None:
        columns = [*ROW_COLUMNS, *(f"{group}/{m}" for group in ("activations", "norms") for m in self.modules)]
        for name in columns:
            if len(self.file[name]) != self.rows:
                raise ValueError(f"{name} has {len(self.file[name]):,} rows, tokens has {self.rows:,}")

    def _open_shards(self) -> list[Activations]:
        shards: list[Activations] = []
        # The inputs of a joined cache are its shards, in order, with their fingerprints.
        for name, fingerprint in zip(self.header.get("shards", ()), self.header["inputs"].values(), strict=False):
            try:
                shards.append(Activations(self.path.absolute().parent / name))
            except HierSAEError as error:
                raise FileError(
                    f"{self.path}: joins shards, and one is not readable: {error.message}",
                    "Put the shard back beside it, or make it again and join again.",
                ) from None
            if shards[-1].fingerprint != fingerprint:
                raise FileError(
                    f"{self.path}: {shards[-1].path} is not the shard that was joined",
                    "Put that shard back, or run 'hiersae join' again.",
                )
        return shards


class ActivationSet:
    """One module's rows in several caches, read as if they lay in one file.

    Rows are numbered through in the order of the caches; so are documents.

    Args:
        paths: the caches.
        module: path of the module; may be left out where they hold a single one.
        drop_outliers: leave outlier rows out, also where the caches were made with ``--keep-outliers``.
    """

    def __init__(self, paths: list[str], module: str = "", drop_outliers: bool = False):
        self.drop_outliers = drop_outliers
        self.caches = [Activations(path) for path in paths]
        first = self.caches[0]
        self.module = _choose_module(first, module)
        self.width = first.width(self.module)
        self.dtype = first.dtype(self.module)
        for cache in self.caches[1:]:
            self._check_like(first, cache)
        self.starts = np.cumsum([0, *(cache.rows for cache in self.caches)])
        self.rows = int(self.starts[-1])

    @property
    def host(self) -> dict[str, Any]:
        """Name and fingerprint of the model that the activations are of."""
        return self.caches[0].header["host"]

    def fingerprints(self) -> dict[str, str]:
        """Path and content fingerprint of every cache."""
        return {str(cache.path): cache.fingerprint for cache in self.caches}

    def column(self, name: str) -> np.ndarray:
        """tokens, position or split, (N,), or document numbered through all caches."""
        columns, first_document = [], 0
        for cache in self.caches:
            column = cache.column(name)
            columns.append(column + first_document if name == "document" else column)
            first_document += cache.documents
        return np.concatenate(columns)

    def document_names(self) -> list[str]:
        """Where each document came from, in order."""
        return [name for cache in self.caches for name in cache.document_names()]

    def rows_of(self, *splits: int) -> np.ndarray:
        """Which rows (N,) bool belong to one of ``splits``; rows that are dropped belong to none."""
        return np.concatenate([np.any([self._used(cache, split) for split in splits], axis=0) for cache in self.caches])

    def usable(self, split: int) -> np.ndarray:
        """``rows_of`` one split; raises ``FileError`` where there are none."""
        mask = self.rows_of(split)
        if not mask.any():
            kind = {TRAIN: "training", HELD_OUT: "held-out"}[split]
            raise FileError(
                f"{', '.join(str(c.path) for c in self.caches)}: no {kind} rows",
                "Cache more documents, or choose another --held-out share.",
            )
        return mask

    def moments(self) -> tuple[np.ndarray, float]:
        """Mean (d,) and mean squared norm of the training rows over all caches."""
        count, total, square = 0, np.zeros(self.width), 0.0
        for first, cache in zip(self.starts, self.caches, strict=False):
            stored, used = cache.usable(self.module, TRAIN), self._used(cache, TRAIN)
            part = cache.statistics(self.module)
            count += int(used.sum())
            total += stored.sum() * part["mean"]
            square += stored.sum() * part["mean_square"]
            # The stored statistics cover outliers that are left out here: few rows, which are subtracted.
            left_out = np.flatnonzero(stored & ~used)
            square -= np.square(cache.norms(self.module)[left_out].astype(np.float64)).sum()
            for start in range(0, len(left_out), _ROWS):
                total -= self.rows_at(first + left_out[start : start + _ROWS]).double().sum(0).numpy()
        return total / max(count, 1), float(square / max(count, 1))

    def _used(self, cache: Activations, split: int) -> np.ndarray:
        mask = cache.usable(self.module, split)
        return mask & ~cache.outliers(self.module) if self.drop_outliers else mask

    def check_finite(self) -> None:
        """Raise ``FileError`` where an activation is not a number: one would spoil all of training."""
        for cache in self.caches:
            bad, first = 0, 0
            for start in range(0, cache.rows, _NORMS):
                found = np.flatnonzero(~np.isfinite(cache.norms(self.module, start, start + _NORMS)))
                if len(found) and not bad:
                    first = start + int(found[0])
                bad += len(found)
            if bad:
                raise FileError(
                    f"{cache.path}: {bad:,} rows of {self.module} are not finite, the first at row {first:,}",
                    _not_finite_hint(cache.header["host"].get("dtype")),
                )

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fill ``out`` (n, d), of the storage type, with the rows from ``start`` on."""
        for number, first, block in _spans(self.starts, start, out):
            self.caches[number].read_into(self.module, first, block)

    @property
    def truth(self) -> Truth | None:
        """What all of the activations were drawn from; None unless they are synthetic."""
        return self.caches[0].truth

    def true_features(self, row_R: np.ndarray) -> torch.Tensor:
        """Magnitudes (R, N) of the true features in held-out rows, numbered through all caches; see ``Activations``."""
        parts_R = np.searchsorted(self.starts, row_R, side="right") - 1
        out = torch.zeros(len(row_R), len(self.truth or ()))
        for number in np.unique(parts_R):
            of_part = np.flatnonzero(parts_R == number)
            out[of_part] = self.caches[number].true_features(row_R[of_part] - int(self.starts[number]))
        return out

    def rows_at(self, row_U: np.ndarray) -> torch.Tensor:
        """The rows (U, d) of ascending numbers, in the stored type: one read for every run of neighbours."""
        raw = self.empty(len(row_U))
        at = 0
        for run in np.split(row_U, np.flatnonzero(np.diff(row_U) != 1) + 1):
            self.read_into(int(run[0]), raw[at : at + len(run)])
            at += len(run)
        return self.tensor(raw)

    def empty(self, rows: int) -> np.ndarray:
        """A buffer (rows, d) of the storage type, for ``read_into``."""
        return np.empty((rows, self.width), self.caches[0].file[f"activations/{self.module}"].dtype)

    def tensor(self, raw: np.ndarray) -> torch.Tensor:
        """A buffer as a tensor of the type it holds; shares its memory."""
        return as_tensor(raw, self.dtype)

    def close(self) -> None:
        """Close every cache."""
        for cache in self.caches:
            cache.close()

    def _check_like(self, first: Activations, cache: Activations) -> None:
        if self.module not in cache.modules:
            raise FileError(
                f"{cache.path}: holds no {self.module}, which {first.path} does", "Give caches of one module."
            )
        for what, of_first, of_cache in (
            ("width", first.width(self.module), cache.width(self.module)),
            ("dtype", first.dtype(self.module), cache.dtype(self.module)),
            ("host model", first.header["host"]["fingerprint"], cache.header["host"]["fingerprint"]),
            ("tokenizer", first.header["host"].get("tokenizer"), cache.header["host"].get("tokenizer")),
        ):
            if of_first != of_cache and None not in (of_first, of_cache):
                raise FileError(
                    f"{cache.path}: its {what} ({of_cache}) is not that of {first.path} ({of_first})",
                    "Give caches of one model and module.",
                )


def _not_finite_hint(host_dtype: str | None) -> str:
    if host_dtype == "float16":
        return "Cache again with --model-dtype float32: the host, which ran in float16, probably overflowed."
    return "The host's weights or this file are damaged: fetch the model again, then cache again."


def as_tensor(raw: np.ndarray, dtype: str) -> torch.Tensor:
    """Stored rows as a tensor of the type they hold; shares their memory."""
    return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16) if dtype == "bfloat16" else torch.from_numpy(raw)


def _spans(starts: np.ndarray, start: int, out: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Which part holds which rows: its number, the row to read there from, and the piece of ``out`` to fill."""
    while len(out):
        number = int(np.searchsorted(starts, start, side="right")) - 1
        count = min(len(out), int(starts[number + 1]) - start)
        yield number, start - int(starts[number]), out[:count]
        out, start = out[count:], start + count


def _choose_module(acts: Activations, wanted: str) -> str:
    if wanted and wanted not in acts.modules:
        raise UsageError(f"--module {wanted}: {acts.path} holds {', '.join(acts.modules)}")
    if not wanted and len(acts.modules) > 1:
        raise UsageError(f"{acts.path} holds several modules: {', '.join(acts.modules)}", "Choose one with --module.")
    return wanted or acts.modules[0]
