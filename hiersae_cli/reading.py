"""Reading files safely: whatever is wrong with a file becomes an error that names it and says what to do."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError

MOST_DEPTH = 64  # of lists and objects in each other; our own files have fewer than ten
_MOST_DIGITS = 20  # of a whole number: 64 bits
_LONGEST_REASON = 200  # characters
_BLOCK = 1 << 20  # bytes
_MOST_UNPACKED = 1 << 30  # bytes of a packed text

_CONTAINERS = (dict, list)
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def reading(path: str | Path, hint: str) -> Iterator[None]:
    """Turn what libraries raise at damaged content into ``FileError``, which names ``path`` and gives ``hint``.

    Our own errors pass unchanged. So do errors of the operating system, such as a missing permission.
    """
    # Importing it takes time, and most commands that read no tensors have not done so.
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        if error.errno:
            raise OSError(error.errno, os.strerror(error.errno), str(error.filename or path)) from error
        raise FileError(f"{path}: damaged: {reason(error)}", hint) from error
    except (
        AttributeError,
        ArithmeticError,
        AssertionError,
        EOFError,
        LookupError,
        MemoryError,
        RuntimeError,
        SafetensorError,
        StopIteration,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        raise FileError(f"{path}: damaged: {reason(error)}", hint) from error


def reason(error: BaseException) -> str:
    """What a library says of damaged content, in one line of printable characters."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    text = str(error).strip()
    if isinstance(error, KeyError) and error.args and " " not in str(error.args[0]):
        text = f"{text} is missing"
    lines = [line.strip() for line in text.splitlines()] or [type(error).__name__]
    # PyTorch's first line says that tensors are missing or do not fit, and its second line which.
    line = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    return "".join(c if c.isprintable() else "?" for c in line)[:_LONGEST_REASON]


def require_regular(path: str | Path, hint: str = "Give an ordinary file.", *, pipes: bool = False) -> None:
    """Raise ``FileError`` for a device, a socket or a pipe: reading one may never end.

    With ``pipes`` those of the shell's ``<(command)`` pass. Folders and missing files pass too, since every reader has
    its own words for these.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # the name itself may be impossible
        return
    of_shell = pipes and stat.S_ISFIFO(mode) and str(path).startswith(("/dev/fd/", "/proc/"))
    if (kind := _KINDS.get(stat.S_IFMT(mode))) and not of_shell:
        raise FileError(f"{path}: this is {kind}, but a file was expected", hint)


def read_utf8(path: str | Path, encoding: str = "utf-8") -> str:
    """The text of an ordinary file, unpacked if its name ends in ``.gz``.

    Raises ``FileError`` for a pipe or a device, ``OSError`` if it cannot be read, and ``ValueError`` if it is not UTF-8
    or holds NUL: no text of ours does, and a small file can claim any number of them.
    """
    require_regular(path)
    blocks = []
    with open(path, "rb") as opened:
        whole = bounded(opened, path)
        packed = str(path).lower().endswith(".gz")
        file = bounded(gzip.GzipFile(fileobj=whole), path, _MOST_UNPACKED) if packed else whole
        while block := file.read(_BLOCK):
            if b"\0" in block:
                raise ValueError("it holds NUL, as no text does")
            blocks.append(block)
    return b"".join(blocks).decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def bounded(file: Any, path: str | Path, most: int | None = None) -> io.BufferedReader:
    """A file that raises ``FileError`` where a small file on the disk would fill the memory, or take hours.

    That is a block of nothing but NUL, as in files with holes, and more than ``most`` bytes.
    """
    return io.BufferedReader(_Bounded(file, path, most), _BLOCK)


class _Bounded(io.RawIOBase):
    def __init__(self, file: Any, path: str | Path, most: int | None):
        self._file, self._path, self._most, self._done = file, path, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._file.read(len(buffer))
        self._done += len(block)
        if len(block) >= _BLOCK and not block.strip(b"\0"):
            raise FileError(
                f"{self._path}: nothing but NUL from byte {self._done - len(block):,} on",
                "Copy it again.",
            )
        if self._most is not None and self._done > self._most:
            raise FileError(f"{self._path}: unpacks to more than {self._most:,} bytes", "Unpack it first.")
        buffer[: len(block)] = block
        return len(block)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_BLOCK), b""))


def parse_json(text: str | bytes) -> Any:
    """The content of JSON, read strictly.

    Raises ``ValueError`` for text that is not JSON, fields twice in an object, not-a-number, infinities, whole numbers
    beyond 64 bits, and more than ``MOST_DEPTH`` lists and objects in each other; ``RecursionError`` for thousands of
    these.
    """
    data = json.loads(
        text, parse_constant=_refuse_constant, parse_int=_whole_number, object_pairs_hook=_with_unique_names
    )
    level = [data] if type(data) in _CONTAINERS else []
    for _ in range(MOST_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) in _CONTAINERS
        ]
    if level:
        raise ValueError("nested too deeply")
    return data


def _with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return data


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(text):,} digits")
    return int(text)
