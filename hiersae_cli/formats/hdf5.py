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


def write_header(file: h5py.File, header: dict[str, Any]) -> None:
    """Put what every file says of itself into a new one: the first fields as attributes, the others as JSON."""
    file.attrs.update({key: header[key] for key in _ATTRIBUTES})
    rest = {key: value for key, value in header.items() if key not in _ATTRIBUTES}
    file.create_dataset("header", data=json.dumps(rest, ensure_ascii=False))


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
