"""The user's own concepts: a file of labelled stretches of text.

A CSV file with a header, or a Parquet file, with the columns

- ``document``: the source, as the cache names it;
- ``start``, ``end``: its characters, counted from 0, ``end`` not included;
- ``label``: the concept with the concepts above it, ``parent/child``.

If stretches overlap, the shorter one counts. Text of a source outside all stretches belongs to no concept; the text of
sources that are not in the file is unknown.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hiersae_cli.concepts.structure import OUTSIDE, UNKNOWN, Array, Passage, Vocabulary
from hiersae_cli.errors import FileError, UsageError, install_hint
from hiersae_cli.reading import read_utf8, reading

COLUMNS = ("document", "start", "end", "label")
_HINT = f"It needs the columns {', '.join(COLUMNS)}; see docs/metrics.md."

Stretch = tuple[int, int, tuple[str, ...]]


class LabelsFile:
    """A labeller that reads a file; see ``read`` for errors."""

    families = ("label",)

    def __init__(self, path: str):
        self.path = path
        self.stretches = read(path)

    def __call__(self, passages: list[Passage], vocabulary: Vocabulary) -> list[Array]:
        """Labels of every character, (1, characters) for each passage.

        Raises ``FileError`` if the file names none of the passages' sources, or a passage has no known place in its
        source.
        """
        names = {passage.name for passage in passages}
        if not names & set(self.stretches):
            raise FileError(
                f"{self.path}: labels {_first_names(self.stretches)}; the cache's text is from {_first_names(names)}",
                "Name documents like the cache: 'hiersae cache' took these names from its command line.",
            )
        return [self._labels(passage, vocabulary)[None] for passage in passages]

    def _labels(self, passage: Passage, vocabulary: Vocabulary) -> Array:
        labels = np.full(len(passage.text), UNKNOWN, np.int32)
        if passage.name not in self.stretches:
            return labels
        if any(offset < 0 for _, offset in passage.anchors):
            raise FileError(
                f"{self.path}: the cache does not know where its documents begin in {passage.name}",
                "Its tokenizer gives no offsets: cache with a fast tokenizer.",
            )
        labels[:] = OUTSIDE
        stops = [place for place, _ in passage.anchors[1:]] + [len(passage.text)]
        for start, end, path in self.stretches[passage.name]:  # the shortest last, so that it wins
            number = vocabulary.number(0, *path)
            for (place, offset), stop in zip(passage.anchors, stops, strict=True):
                first, last = (place + max(at - offset, 0) for at in (start, end))
                labels[min(first, stop) : min(last, stop)] = number
        return labels


def read(path: str) -> dict[str, list[Stretch]]:
    """The labelled stretches of each document, the longest first.

    Raises ``UsageError`` if there is no such file or a package to read it is missing, ``FileError`` with the row if a
    row is wrong.
    """
    with reading(path, _HINT):
        return _read(path)


def _read(path: str) -> dict[str, list[Stretch]]:
    stretches_of: dict[str, list[Stretch]] = {}
    for where, row in _rows(path):
        document, label = row["document"], row["label"]
        start, end = (_offset(row[name], name, where) for name in ("start", "end"))
        if not isinstance(document, str) or not document:
            raise FileError(f"{where}: has no document", _HINT)
        if end <= start:
            raise FileError(f"{where}: ends at character {end:,}, but begins at {start:,}")
        steps = tuple(step.strip() for step in label.split("/")) if isinstance(label, str) else ("",)
        if not all(steps):
            raise FileError(f"{where}: the label {label!r} has an empty part", "Write parent/child, such as verb/past.")
        stretches_of.setdefault(document, []).append((start, end, steps))
    if not stretches_of:
        raise FileError(f"{path}: has no labels", _HINT)
    for stretch_list in stretches_of.values():
        stretch_list.sort(key=lambda stretch: stretch[0] - stretch[1])
    return stretches_of


def _rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its name for error messages."""
    if not Path(path).is_file():
        raise UsageError(f"--labels {path}: no such file", "Give a CSV or Parquet file of labels.")
    yield from _parquet_rows(path) if path.lower().endswith((".parquet", ".pq")) else _csv_rows(path)


def _csv_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        reader = csv.DictReader(io.StringIO(read_utf8(path, "utf-8-sig"), newline=""))
        _require_columns(path, reader.fieldnames or [])
        for row in reader:
            where = f"{path}: line {reader.line_num:,}"
            if None in row or None in row.values():
                raise FileError(f"{where}: the number of fields differs from the first line", _HINT)
            yield where, row
    except ValueError:
        raise FileError(f"{path}: not UTF-8 text", "Labels are CSV in UTF-8, or Parquet (.parquet).") from None
    except csv.Error as error:
        raise FileError(f"{path}: not a CSV file ({error})", _HINT) from None


def _parquet_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"--labels {path}: Parquet needs the package pyarrow",
            f"{install_hint('labels')} Or give the labels as CSV.",
        ) from None
    try:
        file = parquet.ParquetFile(path)
        _require_columns(path, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(columns=list(COLUMNS)):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number:,}", row
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError(f"{path}: not a readable Parquet file ({reason})", _HINT) from None


def _require_columns(path: str, names: Any) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise FileError(f"{path}: lacks the column {', '.join(missing)} (it has: {', '.join(names) or 'none'})", _HINT)


def _offset(value: Any, name: str, where: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number < 0 or (isinstance(value, float) and value != number):
        raise FileError(f"{where}: {name} is {value!r}, not a number of characters", "Count them from 0.")
    return number


def _first_names(names: Any) -> str:
    names = sorted(names)
    return ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
