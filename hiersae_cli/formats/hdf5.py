"""What our HDF5 files have in common: their beginning, errors that a user can act on, and that none is half-written."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import replacing

_SURROGATE = re.compile("[\ud800-\udfff]")
_ATTRIBUTES = ("schema", "schema_version", "hiersae_version", "created")


def open_hdf5(path: Path, kind: str, hint: str) -> h5py.File:
    """A file opened for reading; raises ``UsageError`` where there is none, ``FileError`` where it is not HDF5.

    ``kind`` is what the file should be, in words; ``hint`` says how it is made.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file", hint)
    if path.is_dir():
        raise FileError(f"{path}: this is a folder; {kind} is a file", hint)
    if path.stat().st_size == 0:
        raise FileError(f"{path}: the file is empty", hint)
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if "truncated" in str(error):
            raise FileError(f"{path}: the file is truncated", hint) from None
        if "signature" in str(error):
            raise FileError(f"{path}: not an HDF5 file", hint) from None
        if error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise FileError(f"{path}: HDF5 cannot read it ({error})", hint) from None


def schema_of(path: Path) -> str:
    """The schema that an HDF5 file says it has; empty if it says none or cannot be opened."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs.get("schema", ""))
    except OSError:
        return ""


def write_header(file: h5py.File, header: dict[str, Any]) -> None:
    """Put what every file says of itself into a new one: the first fields as attributes, the others as JSON."""
    file.attrs.update({key: header[key] for key in _ATTRIBUTES})
    rest = {key: value for key, value in header.items() if key not in _ATTRIBUTES}
    # In ASCII: HDF5 holds no half of a surrogate pair, which Python has in names of files that are no UTF-8.
    file.create_dataset("header", data=json.dumps(rest))


def write_strings(group: h5py.Group, name: str, texts: list[str]) -> None:
    """A dataset of strings (n,), which may hold any character.

    HDF5 ends a string at NUL and holds no half of a surrogate pair. Where a text has one, all are stored as JSON writes
    them, and the attribute ``encoding`` says so.
    """
    escaped = any("\0" in text or _SURROGATE.search(text) for text in texts)
    data = group.create_dataset(
        name, data=[json.dumps(text) for text in texts] if escaped else texts, dtype=h5py.string_dtype()
    )
    if escaped:
        data.attrs["encoding"] = "json"


def read_strings(data: h5py.Dataset) -> list[str]:
    """What ``write_strings`` was given; raises ``ValueError`` where it is damaged."""
    texts = [text.decode() for text in data[...]]
    return [json.loads(text) for text in texts] if data.attrs.get("encoding") == "json" else texts


def attributes(file: h5py.File) -> dict[str, Any]:
    """The attributes of the root, as plain values where they are single ones."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()}


@contextmanager
def replacing_hdf5(path: str | Path) -> Iterator[Path]:
    """``replacing``, for files that HDF5 makes: it tells of a full disk in the text of many kinds of exception."""
    with replacing(path) as temporary:
        try:
            yield temporary
        except (OSError, RuntimeError) as error:
            if number := re.search(r"errno = (\d+)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
            raise


def remove_leftovers(*paths: Path) -> None:
    """Delete what a process killed while it made these files left behind: it can be as large as they are."""
    for path in paths:
        for file in path.absolute().parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            file.unlink(missing_ok=True)
