"""The sources of text: files, folders, globs, JSON lines, data sets, standard input, or Python's documentation.

Text is only decoded from UTF-8, without a byte-order mark. Line ends are not translated and nothing is trimmed, so an
offset into a document counts the characters of the file.
"""

from __future__ import annotations

import glob
import hashlib
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from hiersae_cli.errors import FileError, HierSAEError, UsageError, install_hint
from hiersae_cli.hashing import sha256_file
from hiersae_cli.host.encodings import decoded
from hiersae_cli.host.files import (
    FROM_FOLDERS,
    TEXT_FIELD,
    Document,
    field_of,
    from_folder,
    has_fields,
    read,
    require_readable,
)
from hiersae_cli.reading import require_regular

__all__ = ["Document", "documents", "fingerprints"]

STANDARD_INPUT = "-"
EMBEDDED = "pydoc_data.topics"
_DATASET = "hf:"


def documents(texts: list[str], text_field: str) -> Iterator[Document]:
    """The documents of ``texts`` one by one, in order; documents of only white space are left out.

    A text is one of:

    - a file: one document, named by its path;
    - a ``.jsonl`` or ``.ndjson`` file: a document per line, named ``file:line``;
    - a ``.json`` file: a list of objects or texts, named ``file[place]``;
    - a ``.parquet`` file: a document per row, named ``file#row``;
    - any of these compressed: ``.gz``, ``.bz2``, ``.xz``, ``.zst``;
    - a folder: its ``*.txt``, ``*.jsonl``, ``*.ndjson`` and ``*.parquet`` at any depth, sorted;
    - a glob: its files, sorted;
    - ``-``: standard input;
    - ``hf:NAME[:CONFIG][@SPLIT]``: a document per row, named ``hf:…#row``; the default split is ``train``.

    Without any text, Python's reference documentation is used, a document per topic. ``text_field`` names the field of
    the text in files of records and data sets.

    Raises ``UsageError`` at once if a text does not exist or ``text_field`` has no effect, and ``FileError`` while
    reading if a text is not UTF-8, a record lacks that field, or there is only white space.
    """
    sources = _sources(texts)
    for source in sources:
        require_readable(source)
    if text_field != TEXT_FIELD and not any(source.startswith(_DATASET) or has_fields(source) for source in sources):
        raise UsageError(
            f"--text-field {text_field}: none of these texts has fields ({', '.join(sources[:3])})",
            "Leave it out, or give .jsonl, .ndjson, .json or .parquet files.",
        )
    return _filled(sources, text_field)


def fingerprints(texts: list[str]) -> dict[str, str]:
    """The sha256 (hexadecimal) of every file in ``texts``, by the names that ``documents`` gives them.

    Python's documentation has the hash of its joined texts, under ``pydoc_data.topics``. Standard input and data sets
    are unknown before they are read, so theirs is the empty string.
    """
    return {source: _fingerprint(source) for source in _sources(texts)}


def _fingerprint(source: str) -> str:
    if source == EMBEDDED:
        return hashlib.sha256("".join(document.text for document in _embedded()).encode()).hexdigest()
    return "" if _is_stream(source) else sha256_file(source)


def _is_stream(source: str) -> bool:
    return source == STANDARD_INPUT or source.startswith(_DATASET)


def _sources(texts: list[str]) -> list[str]:
    """Files, ``-`` and ``hf:`` names, with folders and globs replaced by their files."""
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
        files = [str(file) for file in sorted(path.rglob("*")) if from_folder(file)]
        if not files:
            raise UsageError(
                f"{text}: no {', '.join(FROM_FOLDERS)} file in this folder", f"Name other files with a glob: '{text}/*'"
            )
        return files
    if path.exists():
        require_regular(path, "Give a text, or - for standard input.", pipes=True)
        return [text]
    if glob.has_magic(text):
        files = [file for file in sorted(glob.glob(text, recursive=True)) if Path(file).is_file()]
        if not files:
            raise UsageError(f"{text}: no file matches", "Check the pattern; ** matches any folders.")
        return files
    raise UsageError(f"{text}: no such file or folder", "Check the path; a data set is written hf:NAME.")


def _filled(sources: list[str], text_field: str) -> Iterator[Document]:
    empty = True
    for source in sources:
        for document in _documents_of(source, text_field):
            if document.text.strip():
                empty = False
                yield document
    if empty:
        raise FileError(f"{', '.join(sources)}: there is no text", "Give a text that is not empty.")


def _documents_of(source: str, text_field: str) -> Iterable[Document]:
    if source == EMBEDDED:
        return _embedded()
    if source.startswith(_DATASET):
        return _dataset(source, text_field)
    if source == STANDARD_INPUT:
        return [Document(source, decoded(sys.stdin.buffer.read(), "standard input"))]
    return read(source, text_field)


def _embedded() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield Document(f"{EMBEDDED}:{name}", topics[name])


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
    # The library and its dependencies (network, file systems, parsers) have no common exception.
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
        yield Document(where, field_of(row, text_field, where))


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
