"""What our HDF5 files have in common: the header, errors that a user can act on, and atomic writing."""

from __future__ import annotations

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
from hiersae_cli.formats.atomic import replacing, reserve
from hiersae_cli.reading import parse_json, require_regular

_SURROGATE = re.compile("[\ud800-\udfff]")
_LEAST_ROOM = 1 << 13  # bytes; about what the smallest of our files needs
_ATTRIBUTES = ("schema", "schema_version", "hiersae_version", "created")


def open_hdf5(path: Path, kind: str, hint: str) -> h5py.File:
    """Open a file for reading; raises ``UsageError`` if there is none, ``FileError`` if it is not HDF5.

    ``kind`` says what the file should be; ``hint`` says how to make it.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file", hint)
    if path.is_dir():
        raise FileError(f"{path}: this is a folder; {kind} is a file", hint)
    require_regular(path, hint)
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
    """Write the header of a new file: the common fields as attributes, the others as JSON."""
    file.attrs.update({key: header[key] for key in _ATTRIBUTES})
    others = {key: value for key, value in header.items() if key not in _ATTRIBUTES}
    # In ASCII: HDF5 cannot hold half of a surrogate pair, which Python uses for names of files that are not UTF-8.
    file.create_dataset("header", data=json.dumps(others))


def write_strings(group: h5py.Group, name: str, texts: list[str]) -> None:
    """A dataset of strings (n,), which may hold any character.

    HDF5 ends a string at NUL and cannot hold half of a surrogate pair. If a text has one of these, all texts are stored
    in JSON's notation, and the attribute ``encoding`` says so.
    """
    escaped = any("\0" in text or _SURROGATE.search(text) for text in texts)
    data = group.create_dataset(
        name, data=[json.dumps(text) for text in texts] if escaped else texts, dtype=h5py.string_dtype()
    )
    if escaped:
        data.attrs["encoding"] = "json"


def read_strings(data: h5py.Dataset) -> list[str]:
    """What ``write_strings`` was given; raises ``ValueError`` if it is damaged."""
    texts = [text.decode() for text in data[...]]
    return [str(parse_json(text)) for text in texts] if data.attrs.get("encoding") == "json" else texts


def attributes(file: h5py.File) -> dict[str, Any]:
    """The attributes of the root, as plain values."""
    plain = (np.generic, np.ndarray)
    return {key: value.tolist() if isinstance(value, plain) else value for key, value in file.attrs.items()}


@contextmanager
def replacing_hdf5(path: str | Path) -> Iterator[Path]:
    """``replacing`` for HDF5 files: HDF5 reports a full disk only in the text of various exceptions.

    The first of them has the reason; closing the file then fails in other words, which it prints. A disk that is full
    already is refused before HDF5 writes. What ``Room`` reserved and nothing used is cut off in the end.
    """
    with replacing(path) as temporary:
        temporary.touch()
        reserve(temporary, _LEAST_ROOM, path)
        try:
            yield temporary
            h5py.File(temporary, "r+").close()  # HDF5 cuts a file that is longer than its content when it closes it
        except (OSError, RuntimeError) as error:
            reason: BaseException | None = error
            while reason is not None:
                if number := re.search(r"errno = (\d+)", str(reason)):
                    raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
                reason = reason.__context__
            raise


class Room:
    """Room on the disk for an HDF5 file in the making.

    HDF5 holds data back, and crashes when the process ends if it could not write them in the end. So it must not meet
    a full disk.

    Args:
        file: open for writing.
        name: the file's later name, for messages.
        held_back: bytes that HDF5 may hold in its caches.
    """

    def __init__(self, file: h5py.File, name: str | Path, held_back: int = 1 << 16):
        self._file, self._name, self._held_back, self._reserved = file, name, held_back, 0

    def reserve(self, more: int = 0) -> None:
        """Reserve what the file has now and ``more`` bytes; raises ``OSError`` if there is no room."""
        end = self._file.id.get_filesize() + more + self._held_back
        if end > self._reserved:
            reserve(Path(self._file.filename), end, self._name, self._reserved)
            self._reserved = end
