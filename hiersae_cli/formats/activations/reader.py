"""Reading a cache."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import torch

from hiersae_cli.concepts.tokens import MORE_TOKENS
from hiersae_cli.errors import FileError, HierSAEError
from hiersae_cli.formats.activations.contexts import RowText, words_around
from hiersae_cli.formats.activations.layout import (
    DATASETS,
    HELD_OUT,
    MODULE,
    SCHEMA,
    SCHEMA_VERSION,
    STATISTICS,
    STORAGE,
    TRUTH_VERSION,
    outlier_limit,
    pread_into,
)
from hiersae_cli.formats.activations.truth import TrueFirings, has_truth, read_firings, read_truth
from hiersae_cli.formats.fields import COMMON, COUNT, HOST, SIZE, require_fields
from hiersae_cli.formats.hdf5 import attributes, open_hdf5, read_strings
from hiersae_cli.formats.hub import local_path
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.recorded_host import load_recorded_tokenizer
from hiersae_cli.formats.stored import check_datasets, members, read_header
from hiersae_cli.host.tokenizer import texts_of
from hiersae_cli.reading import reading
from hiersae_cli.synth.truth import Truth

_HINT = "Make it again with 'hiersae cache'."
_SYNTH_HINT = "Make it again with 'hiersae synth'."
_HEADER: dict[str, Any] = {
    **COMMON,
    "host": HOST,
    "sample?": {"tokens": [int], "text": str},
    "text?": {"sha256": str},
    "content?": {"dtype": str, "modules": {str: SIZE}},
    "batch?": SIZE,
    "first_row?": COUNT,
    "total_rows?": COUNT,
    "shards?": [str],
}

_Content = TypeVar("_Content")


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
        VersionError: this release does not read its version.
    """

    def __init__(self, path: str | Path, *, allow_unfinished: bool = False, _joined_by: tuple[Path, ...] = ()):
        self.path = Path(path)
        self._parts: list[Activations] = []
        self.file = open_hdf5(self.path, "an activation cache", _HINT)
        self._joined_by = (*_joined_by, self.path.resolve())
        try:
            with reading(path, _HINT):
                self._read()
            if not allow_unfinished and (self.rows_committed < self.rows or not self.fingerprint):
                share = self.rows_committed / max(self.rows, 1)
                raise FileError(
                    f"{path}: unfinished: {self.rows_committed:,} of {self.rows:,} rows written ({share:.0%})",
                    "Run the same 'hiersae cache' command again to finish it.",
                )
            self._starts = np.cumsum([0, *(part.rows for part in self._parts)])
            self._handle = os.open(self.path, os.O_RDONLY)
        except BaseException:
            self._close_hdf5()
            raise
        self._texts: dict[str, Callable[[np.ndarray], list[str]]] = {}

    def __repr__(self) -> str:
        modules = ", ".join(f"{module} ({self._widths[module]:,})" for module in self.modules)
        return f"Activations({self.path.name}: {self.rows:,} rows of {self.documents:,} documents, {modules})"

    def __enter__(self) -> Activations:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and, if it joins shards, theirs."""
        os.close(self._handle)
        self._close_hdf5()

    def _close_hdf5(self) -> None:
        self.file.close()
        for part in self._parts:
            part.close()

    def _read(self) -> None:
        """Read all but the rows, and check that every dataset is stored as it must be."""
        check_schema(self.path, attributes(self.file), SCHEMA, SCHEMA_VERSION, TRUTH_VERSION)
        self.header: dict[str, Any] = read_header(self.file)
        require_fields(self.path, self.header, _HEADER, _HINT)
        shards: list[str] = self.header.get("shards", [])
        self.modules = members(self.file, "activations")
        if not self.modules:
            raise ValueError("it holds no module")
        sizes: dict[str, int] = {}
        self._widths: dict[str, int] = {}
        outside_modules = {name: stored for name, stored in DATASETS.items() if MODULE not in name}
        truth = {name: stored for name, stored in outside_modules.items() if name.startswith("truth/")}
        check_datasets(self.file, {name: outside_modules[name] for name in outside_modules if name not in truth}, sizes)
        self.rows, self.documents = sizes["N"], sizes["D"]
        for module in self.modules:
            of_module = {name.replace(MODULE, module): DATASETS[name] for name in DATASETS if MODULE in name}
            sizes.pop("d", None)
            check_datasets(self.file, of_module, sizes, shards)
            self._widths[module] = sizes["d"]
            if (stored := self.file[f"activations/{module}"].dtype) != STORAGE.get(self.dtype(module)):
                raise ValueError(f"{module} is said to be {self.dtype(module)}, but stored as {stored}")
        if has_truth(self.file):
            check_datasets(self.file, truth, sizes)
        self._offsets = {module: self.file[f"activations/{module}"].id.get_offset() for module in self.modules}
        self.rows_committed = int(self.file["rows_committed"][()])
        if not 0 <= self.rows_committed <= self.rows:
            raise ValueError(f"{self.rows_committed:,} of {self.rows:,} rows are committed")
        self.fingerprint = self.file["fingerprint"][()].decode("ascii")
        self._open_shards(shards)

    def width(self, module: str) -> int:
        """d of a module."""
        return self._widths[module]

    def dtype(self, module: str) -> str:
        """``float32``, ``float16`` or ``bfloat16``."""
        return str(self.file[f"activations/{module}"].attrs["dtype"])

    def column(self, name: str) -> np.ndarray:
        """A column (N,) of the rows: tokens, document, position or split."""
        return self.file[name][...]

    def text(self, row: int, around: int = 16, model: str | Path = "") -> RowText:
        """The text of a row's token and of up to ``around`` tokens before and after it in its window.

        Args:
            model: the host model: a folder, a GGUF file or a hub id. Only its tokenizer is loaded. Without it, the name
                that the cache recorded.

        Raises ``IndexError`` if there is no such row, ``FileError`` if the tokenizer is not that of the cache or the
        cache is synthetic, ``UsageError`` if there is no such model.
        """
        row, name = range(self.rows)[row], str(model)
        if name not in self._texts:
            self._texts[name] = texts_of(load_recorded_tokenizer(self.path, self.header, name))
        first = max(0, row - around - MORE_TOKENS)
        part = slice(first, row + around + MORE_TOKENS + 1)
        with reading(self.path, _HINT):
            tokens, document, position = (self.file[column][part] for column in ("tokens", "document", "position"))
            document_name = self._document_names[document[row - first]]
        words, place = words_around(row - first, around, self._texts[name], tokens, document, position)
        return RowText(
            "".join(words[:place]),
            words[place],
            "".join(words[place + 1 :]),
            document_name,
            int(position[row - first]),
        )

    def norms(self, module: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The Euclidean norms of rows ``start`` to ``stop``, (stop - start,) float32."""
        return self.file[f"norms/{module}"][start:stop]

    def document_names(self) -> list[str]:
        """The source of each document, in order."""
        return list(self._document_names)

    @functools.cached_property
    def _document_names(self) -> list[str]:
        with reading(self.path, _HINT):
            return read_strings(self.file["documents/name"])

    def statistics(self, module: str) -> dict[str, Any]:
        """``mean`` (d,), ``mean_square`` of the training rows; ``median_norm``, ``outliers`` of rows not dropped."""
        return {name: self.file[f"statistics/{module}/{name}"][()] for name in ("mean", *STATISTICS)}

    def usable(self, module: str, split: int) -> np.ndarray:
        """Which rows (N,) bool belong to ``split``; no outliers, if the cache drops them."""
        mask = self.column("split") == split
        return mask & ~self.outliers(module) if self.header["config"].get("drop_outliers") else mask

    def outliers(self, module: str) -> np.ndarray:
        """Which rows (N,) bool have a norm over 10 x the median, as attention sinks do."""
        return self.norms(module) > outlier_limit(float(self.file[f"statistics/{module}/median_norm"][()]))

    @functools.cached_property
    def truth(self) -> Truth | None:
        """The truth behind synthetic activations; None for others. Raises ``FileError`` if it is damaged."""
        return self._read_truth(read_truth) if has_truth(self.file) else None

    def true_features(self, row_R: np.ndarray) -> torch.Tensor:
        """Magnitudes (R, N) of the true features in held-out rows, by the rows' numbers in the file.

        Raises ``FileError`` if the cache is not synthetic, ``ValueError`` for a row that is not held out.
        """
        if self.truth is None:
            raise FileError(f"{self.path}: holds no truth", "Make one that does with 'hiersae synth'.")
        held_out_H, firings = self._firings
        place_R = np.searchsorted(held_out_H, row_R).clip(max=max(len(held_out_H) - 1, 0))
        if len(row_R) and not (len(held_out_H) and np.array_equal(held_out_H[place_R], row_R)):
            raise ValueError(f"{self.path}: true features are kept only for held-out rows")
        return firings.dense(place_R, len(self.truth))

    @functools.cached_property
    def _firings(self) -> tuple[np.ndarray, TrueFirings]:
        """The numbers of the held-out rows (H,), and the true firings in them."""
        held_out_H, firings = np.flatnonzero(self.column("split") == HELD_OUT), self._read_truth(read_firings)
        if len(firings.start) != len(held_out_H) + 1:
            raise FileError(f"{self.path}: damaged: true firings do not fit its held-out rows", _SYNTH_HINT)
        return held_out_H, firings

    def _read_truth(self, read: Callable[[h5py.File], _Content]) -> _Content:
        with reading(self.path, _SYNTH_HINT):
            return read(self.file)

    def read(self, module: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows ``start`` to ``stop`` of a module, (stop - start, d), in the stored type."""
        raw = self.read_stored(module, start, self.rows if stop is None else stop)
        return as_tensor(raw, self.dtype(module))

    def read_stored(self, module: str, start: int, stop: int) -> np.ndarray:
        """The same as a NumPy array of the stored type: bfloat16 as uint16."""
        data = self.file[f"activations/{module}"]
        out = np.empty((stop - start, data.shape[1]), data.dtype)
        self.read_into(module, start, out)
        return out

    def read_into(self, module: str, start: int, out: np.ndarray) -> None:
        """Fill ``out`` (n, d), of the storage type, with the rows from ``start`` on. Safe from any thread."""
        if self._parts:
            for number, first, block in spans(self._starts, start, out):
                self._parts[number].read_into(module, first, block)
            return
        offset = self._offsets[module]
        if offset is None:
            with reading(self.path, _HINT):
                self.file[f"activations/{module}"].read_direct(out, np.s_[start : start + len(out)])
            return
        try:
            pread_into(self._handle, out, offset + start * out.shape[1] * out.itemsize)
        except EOFError:
            raise FileError(f"{self.path}: truncated: its data ends early", _HINT) from None

    def _open_shards(self, shards: list[str]) -> None:
        # The inputs of a joined cache are its shards, in order, with their fingerprints.
        for name, fingerprint in zip(shards, self.header["inputs"].values(), strict=bool(shards)):
            path = self.path.absolute().parent / name
            if path.resolve() in self._joined_by:
                raise ValueError("it joins itself")
            try:
                self._parts.append(Activations(path, _joined_by=self._joined_by))
            except HierSAEError as error:
                raise FileError(
                    f"{self.path}: joins shards, and one is not readable: {error.message}",
                    "Put the shard back next to it, or make it again and join again.",
                ) from None
            if self._parts[-1].fingerprint != fingerprint:
                raise FileError(
                    f"{self.path}: {self._parts[-1].path} is not the shard that was joined",
                    "Put that shard back, or run 'hiersae join' again.",
                )
        if shards and sum(part.rows for part in self._parts) != self.rows:
            raise ValueError("its shards do not have as many rows")


def load_acts(path: str | Path) -> Activations:
    """Open an activation cache for reading, as ``Activations(path)`` does, which says what it raises.

    The path may be a name on the hub, such as ``hf://datasets/OWNER/NAME/acts.h5``.
    """
    return Activations(local_path(path))


def as_tensor(raw: np.ndarray, dtype: str) -> torch.Tensor:
    """Stored rows as a tensor of the type they hold; shares their memory."""
    return torch.from_numpy(raw.view(np.int16)).view(torch.bfloat16) if dtype == "bfloat16" else torch.from_numpy(raw)


def spans(starts: np.ndarray, start: int, out: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """The parts that hold the rows: number, first row within the part, and the piece of ``out`` to fill."""
    while len(out):
        number = int(np.searchsorted(starts, start, side="right")) - 1
        count = min(len(out), int(starts[number + 1]) - start)
        yield number, start - int(starts[number]), out[:count]
        out, start = out[count:], start + count
