"""Where text comes from: files, folders, globs, JSON lines, data sets, standard input, or Python's own documentation.

Text is taken exactly as it stands: it is decoded from UTF-8, without a byte-order mark, and nothing else. Line ends are
not translated and nothing is trimmed, so an offset into a document counts the characters of the file.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError, HierSAEError, UsageError, install_hint
from hiersae_cli.formats.provenance import sha256_file

STANDARD_INPUT = "-"
EMBEDDED = "pydoc_data.topics"
_DATASET = "hf:"
_SUFFIXES = (".txt", ".jsonl")  # what is taken from a folder


@dataclass(frozen=True)
class Document:
    """A text, the name of its source, and how many characters of that source come before it."""

    name: str
    text: str
    offset: int = 0


def documents(texts: list[str], text_field: str) -> Iterator[Document]:
    """The documents of ``texts`` one by one, in the order given; documents of nothing but white space are left out.

    Each of ``texts`` is a file (one document, named by its path), a ``.jsonl`` file (a document a line, named
    ``file:line``), a folder (its ``*.txt`` and ``*.jsonl`` at any depth, sorted), a glob (its files, sorted), ``-``
    for standard input, or ``hf:NAME[:CONFIG][@SPLIT]`` (a document a row, named ``hf:…#row``; the split is ``train``
    unless given). Without any, Python's reference documentation is used, a document a topic. ``text_field`` names the
    field of the text in JSON lines and data sets.

    Raises at once a ``UsageError`` where a name stands for nothing, and while reading a ``FileError`` where a text is
    not UTF-8, a line is not an object with that field, or nothing was found but white space.
    """
    return _filled(_sources(texts), text_field)


def fingerprints(texts: list[str]) -> dict[str, str]:
    """The sha256 (hexadecimal) of every file that ``texts`` stand for, by the names that ``documents`` gives them.

    The embedded documentation has the hash of its texts, put together, under ``pydoc_data.topics``. Standard input and
    data sets cannot be known before they are read, so theirs is the empty string.
    """
    return {source: _fingerprint(source) for source in _sources(texts)}


def _fingerprint(source: str) -> str:
    if source == EMBEDDED:
        return hashlib.sha256("".join(document.text for document in _embedded()).encode()).hexdigest()
    return "" if _is_stream(source) else sha256_file(source)


def _is_stream(source: str) -> bool:
    return source == STANDARD_INPUT or source.startswith(_DATASET)


def _sources(texts: list[str]) -> list[str]:
    """Files, ``-`` and ``hf:`` names, with folders and globs put out in full."""
    if not texts:
        return [EMBEDDED]
    if texts.count(STANDARD_INPUT) > 1:
        raise UsageError("- is given twice: standard input can be read only once")
    return [source for text in texts for source in _expanded(text)]


def _expanded(text: str) -> list[str]:
    path = Path(text)
    if _is_stream(text):
        return [text]
    if path.is_dir():
        found = [str(file) for file in sorted(path.rglob("*")) if file.suffix in _SUFFIXES and file.is_file()]
        if not found:
            raise UsageError(
                f"{text}: no .txt or .jsonl file in this folder", f"Name other files by a glob: '{text}/*'"
            )
        return found
    if path.exists():
        return [text]
    if glob.has_magic(text):
        found = [file for file in sorted(glob.glob(text, recursive=True)) if Path(file).is_file()]
        if not found:
            raise UsageError(f"{text}: no file matches", "Check the pattern; ** stands for any folders.")
        return found
    raise UsageError(f"{text}: no such file or folder", "Check the path; a data set is written hf:NAME.")


def _filled(sources: list[str], text_field: str) -> Iterator[Document]:
    empty = True
    for source in sources:
        for document in _read(source, text_field):
            if document.text.strip():
                empty = False
                yield document
    if empty:
        raise FileError(f"{', '.join(sources)}: there is no text", "Give a text with something in it.")


def _read(source: str, text_field: str) -> Iterable[Document]:
    if source == EMBEDDED:
        return _embedded()
    if source.startswith(_DATASET):
        return _dataset(source, text_field)
    if source == STANDARD_INPUT:
        return [Document(source, _decoded(sys.stdin.buffer.read(), "standard input"))]
    if Path(source).suffix == ".jsonl":
        return _json_lines(source, text_field)
    return [Document(source, _decoded(Path(source).read_bytes(), source))]


def _embedded() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield Document(f"{EMBEDDED}:{name}", topics[name])


def _decoded(data: bytes, where: str, before: int = 0) -> str:
    """``data`` as text; ``before`` is the number of bytes of the file that come ahead of it."""
    start = len(codecs.BOM_UTF8) if before == 0 and data.startswith(codecs.BOM_UTF8) else 0
    try:
        return str(memoryview(data)[start:], "utf-8")
    except UnicodeDecodeError as error:
        place = start + error.start
        hint = (
            "It is compressed: unpack it first, with gunzip -k."
            if data.startswith(b"\x1f\x8b")
            else "Convert it first, for example: iconv -f LATIN1 -t UTF-8 OLD > NEW"
        )
        raise FileError(f"{where}: byte {before + place:,} (0x{data[place]:02x}) is not UTF-8 text", hint) from None


def _json_lines(path: str, text_field: str) -> Iterator[Document]:
    before = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            text = _decoded(line, where, before)
            before += len(line)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise FileError(f"{where}: not a JSON object ({error})", "Every line must be one object.") from None
            yield Document(where, _field(row, text_field, where))


def _field(row: Any, text_field: str, where: str) -> str:
    if not isinstance(row, dict):
        raise FileError(f"{where}: not a JSON object but {_json_kind(row)}", "Every line must be one object.")
    value = row.get(text_field)
    if not isinstance(value, str):
        problem = f"is {_json_kind(value)}, not a text" if text_field in row else "is missing"
        present = ", ".join(map(str, row)) or "none"
        raise FileError(
            f"{where}: the field {text_field!r} {problem} (fields: {present})", "Name the field with --text-field."
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FileError(
            f"{where}: character {error.start:,} of {text_field!r} is half of a surrogate pair, which is no text",
            "Write the file again with whole characters, or without \\u escapes.",
        ) from None
    return value


def _json_kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "a text",
    }
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def _dataset(source: str, text_field: str) -> Iterator[Document]:
    try:
        import datasets
    except ImportError:
        raise UsageError(
            f"{source}: data sets need the package 'datasets', which is not installed", install_hint("hf")
        ) from None

    name, split = source.removeprefix(_DATASET), "train"
    if "@" in name:
        name, _, split = name.rpartition("@")
    name, _, configuration = name.partition(":")
    if not name or not split:
        raise UsageError(f"{source}: write hf:NAME, hf:NAME:CONFIG, hf:NAME@SPLIT or hf:NAME:CONFIG@SPLIT")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    # The library and what lies below it (network, file systems, parsers) have no common exception of their own.
    try:
        rows = iter(datasets.load_dataset(name, configuration or None, split=split, streaming=True))
    except Exception as error:
        raise UsageError(
            f"{source}: cannot be loaded ({_reason(error)})", "Check the name, the split and the network."
        ) from error
    for number in count():
        try:
            row = next(rows, None)
        except Exception as error:
            raise HierSAEError(
                f"{source}: reading failed at row {number:,} ({_reason(error)})", "Run the same command again."
            ) from error
        if row is None:
            return
        where = f"{source}#{number}"
        yield Document(where, _field(row, text_field, where))


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
