"""Several caches of the same module, read as if they were one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations.layout import HELD_OUT, TRAIN
from hiersae_cli.formats.activations.reader import Activations, as_tensor, spans
from hiersae_cli.formats.places import same_place
from hiersae_cli.synth.truth import Truth

_NORMS = 1 << 20  # checked at once
_ROWS = 4096  # read at once


class ActivationSet:
    """One module's rows in several caches, read as if they were in one file.

    Rows are numbered through in the order of the caches; so are documents.

    Args:
        paths: the caches.
        module: path of the module; may be omitted if they hold a single one.
        drop_outliers: leave outlier rows out, even if the caches were made with ``--keep-outliers``.
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
        """Name and fingerprint of the model behind the activations."""
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
        """The source of each document, in order."""
        return [name for cache in self.caches for name in cache.document_names()]

    def rows_of(self, *splits: int) -> np.ndarray:
        """Which rows (N,) bool belong to one of ``splits``; dropped rows belong to none."""
        return np.concatenate([np.any([self._used(cache, split) for split in splits], axis=0) for cache in self.caches])

    def outliers(self) -> np.ndarray:
        """Which rows (N,) bool have a norm over 10 x the median of their cache, whether they are used or not."""
        return np.concatenate([cache.outliers(self.module) for cache in self.caches])

    def usable(self, split: int) -> np.ndarray:
        """``rows_of`` one split; raises ``FileError`` if it has no rows."""
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
            # The stored statistics cover outliers that are left out here. They are few, so they are subtracted.
            left_out = np.flatnonzero(stored & ~used)
            square -= np.square(cache.norms(self.module)[left_out].astype(np.float64)).sum()
            for start in range(0, len(left_out), _ROWS):
                total -= self.rows_at(first + left_out[start : start + _ROWS]).double().sum(0).numpy()
        return total / max(count, 1), float(square / max(count, 1))

    def _used(self, cache: Activations, split: int) -> np.ndarray:
        mask = cache.usable(self.module, split)
        return mask & ~cache.outliers(self.module) if self.drop_outliers else mask

    def check_finite(self) -> None:
        """Raise ``FileError`` if an activation is not a number: one would spoil all of training."""
        for cache in self.caches:
            bad, first = 0, 0
            for start in range(0, cache.rows, _NORMS):
                bad_rows = np.flatnonzero(~np.isfinite(cache.norms(self.module, start, start + _NORMS)))
                if len(bad_rows) and not bad:
                    first = start + int(bad_rows[0])
                bad += len(bad_rows)
            if bad:
                raise FileError(
                    f"{cache.path}: {bad:,} rows of {self.module} are not finite, the first at row {first:,}",
                    _not_finite_hint(cache.header["host"].get("dtype")),
                )

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fill ``out`` (n, d), of the storage type, with the rows from ``start`` on."""
        for number, first, block in spans(self.starts, start, out):
            self.caches[number].read_into(self.module, first, block)

    @property
    def truth(self) -> Truth | None:
        """The truth behind synthetic activations; None for others."""
        return self.caches[0].truth

    def true_features(self, row_R: np.ndarray) -> torch.Tensor:
        """Magnitudes (R, N) of the true features in held-out rows, numbered through all caches; see ``Activations``."""
        parts_R = np.searchsorted(self.starts, row_R, side="right") - 1
        out = torch.zeros(len(row_R), len(self.truth or ()))
        for number in np.unique(parts_R):
            places = np.flatnonzero(parts_R == number)
            out[places] = self.caches[number].true_features(row_R[places] - int(self.starts[number]))
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


def _choose_module(acts: Activations, module: str) -> str:
    if module and module not in acts.modules:
        same = [path for path in acts.modules if same_place(path, module)]  # a hook name of another tool
        if len(same) == 1:
            return same[0]
        raise UsageError(f"--module {module}: {acts.path} holds {', '.join(acts.modules)}")
    if not module and len(acts.modules) > 1:
        raise UsageError(f"{acts.path} holds several modules: {', '.join(acts.modules)}", "Choose one with --module.")
    return module or acts.modules[0]
