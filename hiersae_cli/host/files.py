"""Files that hold texts: plain, JSON, JSON lines and Parquet, compressed or not. The name of a file tells its kind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.host.encodings import decoded
from hiersae_cli.reading import bounded

TEXT_FIELD = "text"  # the default field of the text
FROM_FOLDERS = (".txt", ".jsonl", ".ndjson", ".parquet")  # the files that are read from a folder, compressed or not
_SMALL, _MOST_PACKED = 256 << 20, 100  # bytes that any packed file may unpack to; and times its size
_LINES = (".jsonl", ".ndjson")
_WITH_FIELDS = (*_LINES, ".json", ".parquet")
_OTHERS = {
    ".zip": "Unpack it first: unzip FILE",
    ".tar": "Unpack it first: tar -xf FILE",
    ".tgz": "Unpack it first: tar -xf FILE",
    ".7z": "Unpack it first: 7z x FILE",
    ".arrow": "Write it as JSON lines or Parquet first.",
    ".feather": "Write it as JSON lines or Parquet first.",
    ".pdf": "Write it as plain text first: pdftotext FILE",
    ".docx": "Write it as plain text first: pandoc FILE -o NEW.txt",
    ".epub": "Write it as plain text first: pandoc FILE -o NEW.txt",
}


@dataclass(frozen=True)
class Document:
    """A text, the name of its source, and the number of characters before it in that source."""

    name: str
    text: str
    offset: int = 0


def from_folder(path: Path) -> bool:
    """Whether a file is read if the user names its folder."""
    return _form(path)[0] in FROM_FOLDERS and path.is_file()


def has_fields(path: str) -> bool:
    """Whether a file's texts are fields of records."""
    return _form(path)[0] in _WITH_FIELDS


def require_readable(path: str) -> None:
    """Raise ``UsageError`` if the name of a file has an ending that cannot be read."""
    form, _ = _form(path)
    if hint := _OTHERS.get(form):
        raise UsageError(f"{path}: {form} files are not read", hint.replace("FILE", path))


def read(path: str, text_field: str) -> Iterator[Document]:
    """The documents of a file; raises ``UsageError`` or ``FileError`` if it cannot be read."""
    form, packing = _form(path)
    if form == ".parquet":
        yield from _parquet(path, text_field)
        return
    try:
        with open(path, "rb") as opened, _OPEN[packing](bounded(opened, path)) as unpacked:
            file = bounded(unpacked, path, max(_SMALL, Path(path).stat().st_size * _MOST_PACKED) if packing else None)
            if form in _LINES:
                yield from _json_lines(file, path, text_field)
            elif form == ".json":
                yield from _json(file.read(), path, text_field)
            else:
                yield Document(path, decoded(file.read(), path))
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise FileError(f"{path}: damaged or not compressed as its name says ({error})", "Download it again.") from None
    except OSError as error:
        if packing and error.errno is None:  # bz2 and zstd report damage this way
            raise FileError(f"{path}: damaged or not compressed as its name says ({error})") from None
        raise


def field_of(row: Any, text_field: str, where: str) -> str:
    """The text of a record; raises ``FileError`` with the record's place if it has none."""
    if not isinstance(row, dict):
        raise FileError(f"{where}: not a JSON object but {_kind(row)}", "Every record must be one object.")
    value = row.get(text_field)
    if not isinstance(value, str):
        problem = f"is {_kind(value)}, not a text" if text_field in row else "is missing"
        present = ", ".join(map(str, row)) or "none"
        raise FileError(
            f"{where}: the field {text_field!r} {problem} (fields: {present})", "Name the field with --text-field."
        )
    return _whole(value, f"{where}: {{}} of {text_field!r}")


def _form(path: str | Path) -> tuple[str, str]:
    """The ending that says what a file holds, and the ending that says how it is compressed, in small letters."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    packing = suffixes.pop() if suffixes and suffixes[-1] in _OPEN else ""
    return (suffixes[-1] if suffixes else ""), packing


def _json_lines(file: BinaryIO, path: str, text_field: str) -> Iterator[Document]:
    before = 0
    for number, line in enumerate(file, start=1):
        where = f"{path}:{number}"
        text = decoded(line, where, before)
        before += len(line)
        if text.strip():
            yield Document(where, field_of(_parsed(text, where), text_field, where))


def _json(data: bytes, path: str, text_field: str) -> Iterator[Document]:
    """The records of a list, or a single record; JSON lines under this name are read as such."""
    text = decoded(data, path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise FileError(f"{path}: not JSON ({error})", "Give a list of objects or of texts.") from None
        yield from _json_lines(io.BytesIO(data), path, text_field)
        return
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not JSON ({error})", "Give a list of objects or of texts.") from None
    for number, row in enumerate(content if isinstance(content, list) else [content]):
        where = f"{path}[{number}]"
        if isinstance(row, str) and text_field == TEXT_FIELD:
            yield Document(where, _whole(row, f"{where}: {{}}"))
        else:
            yield Document(where, field_of(row, text_field, where))


def _parquet(path: str, text_field: str) -> Iterator[Document]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError(
            f"{path}: Parquet files need the package 'pyarrow'", "Install it: pip install pyarrow"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        columns = [text_field] if text_field in names else names
        rows = (row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist())
        for number, row in enumerate(rows):
            where = f"{path}#{number}"
            yield Document(where, field_of(row, text_field, where))
    except (ArrowException, OSError) as error:  # Arrow reports damage in both ways
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno), path) from None
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError(f"{path}: not a Parquet file ({said})", "Download it again.") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where}: not a JSON object ({error})", "Every line must be one object.") from None


def _whole(value: str, problem: str) -> str:
    """A text without half characters; raises ``FileError`` with the text ``problem`` if it has one."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        place = f"character {error.start:,}"
        raise FileError(
            f"{problem.format(place)} is half of a surrogate pair, which is not valid text",
            "Write the file again with whole characters, or without \\u escapes.",
        ) from None
    return value


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "a text",
    }
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def _open_zstd(file: BinaryIO) -> BinaryIO:
    """Uses Python 3.14's own module or PyArrow."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]

        opened: BinaryIO = zstd.open(file)
        return opened
    except ImportError:
        pass
    try:
        import pyarrow
    except ImportError:
        raise UsageError(
            ".zst files need the package 'pyarrow'", "Install it, or unpack the file: zstd -d FILE"
        ) from None
    return io.BufferedReader(pyarrow.input_stream(file, compression="zstd"))


# What unpacks a file, by the ending of its name.
_OPEN: dict[str, Callable[[BinaryIO], Any]] = {
    "": nullcontext,
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
