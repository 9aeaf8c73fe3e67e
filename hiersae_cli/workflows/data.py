"""``hiersae data get``: a published data set, or the beginning of one -> checked texts in ``data/NAME/``."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from hiersae_cli.config.data import DataGetConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats import atomic, datasets
from hiersae_cli.formats.datasets import DESCRIPTION, KNOWN, SCHEMA, SCHEMA_VERSION, TEST, TEXT, Known
from hiersae_cli.formats.provenance import header

_ADDRESSES = ("https://", "http://")
_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 20
_PACKED_EXTRA = 1 << 20  # bytes that an archive may have more than its content
_DAMAGED = (  # what the readers of archives raise
    *(OSError, EOFError, zlib.error, lzma.LZMAError, struct.error, zipfile.BadZipFile),
    *(RuntimeError, ValueError, LookupError, ArithmeticError),
)


def get(config: DataGetConfig, console: Console | None = None) -> dict[str, Any]:
    """Fetch a data set, check it, and write its parts as texts; returns the content of ``data.json``.

    It must have the known size and sha256. With ``config.prefix``, fewer bytes are accepted if they begin as it does:
    no digest is known for them. Raises ``UsageError`` if there is no such file, ``FileError`` if it is another one or
    the folder exists, ``HierSAEError`` if it cannot be downloaded.
    """
    console = console or Console.silent()
    known, folder = KNOWN[config.name], Path(config.data) / config.name
    atomic.finish_replacing(folder / DESCRIPTION)
    atomic.sweep_inside(folder)
    if (folder / DESCRIPTION).exists() and not config.overwrite:
        raise FileError(f"{folder}: already exists", "Give --overwrite to replace it.")
    source = config.source or known.address
    data = _unpack(_fetch(source, config.name, folder, console), source, known.size)
    _check(data, known, source, config)
    title = datasets.title(config.name, len(data))
    training, validation, test = known.parts(len(data))
    # Every byte is a character, which UTF-8 writes as one byte or two.
    texts = {TEXT: data[: training + validation]} | ({TEST: data[training + validation :]} if test else {})
    written = {name: part.decode(known.encoding).encode() for name, part in texts.items()}
    digest = hashlib.sha256(data).hexdigest()
    description = {
        **header(SCHEMA, SCHEMA_VERSION, config, {source: digest}),
        "name": config.name,
        "title": title,
        "prefix": len(data) < known.size,
        "bytes": len(data),
        "sha256": digest,
        "parts": {"training": training, "validation": validation, "test": test},
        "files": {name: hashlib.sha256(part).hexdigest() for name, part in written.items()},
    }
    contents = {folder / name: part for name, part in written.items()}
    # The description comes last: without it, the folder holds no data set.
    atomic.replace_all(contents | {folder / DESCRIPTION: atomic.json_text(description).encode()})
    console.say(
        f"{folder}: {title}, {training:,} characters to train on, {validation:,} to validate on"
        + (f", {test:,} to test on" if test else "")
    )
    return description


def require(name: str, data: Path, console: Console) -> datasets.Dataset:
    """The data set ``name`` in the folder ``data``; a published file that was put there is checked and prepared.

    Raises ``FileError``, with the command to run, if there is none or only a part of it.
    """
    folder = data / name
    atomic.finish_replacing(folder / DESCRIPTION)
    if (folder / DESCRIPTION).exists():
        return datasets.read(folder)
    command = f"hiersae data get {name} --data {data}"
    files = [file for file in sorted(folder.glob("*")) if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise FileError(
            f"{folder}: {name} is missing",
            f"Get it:  {command}\n"
            f"Without a network, download {KNOWN[name].address} elsewhere, and:  {command} --from FILE\n"
            f"With only its beginning:  {command} --from FILE --prefix",
        )
    try:
        get(DataGetConfig(name=name, source=str(files[0]), data=str(data)), console)
    except FileError as error:
        raise FileError(error.message, f"If it is the beginning:  {command} --from {files[0]} --prefix") from None
    return datasets.read(folder)


def _fetch(source: str, name: str, folder: Path, console: Console) -> bytes:
    """The bytes of a file or an address; not many more than the data set has, whatever comes."""
    limit = KNOWN[name].size + _PACKED_EXTRA
    if not source.startswith(_ADDRESSES):
        if not Path(source).is_file():
            raise UsageError(f"--from {source}: no such file", "Give a file, or an address that begins with https://.")
        with open(source, "rb") as file:
            return file.read(limit)
    import http.client
    import urllib.request  # here, because finding that a data set is missing should be quick

    received = io.BytesIO()
    try:
        with urllib.request.urlopen(source, timeout=_TIMEOUT) as answer:
            total = int(answer.headers.get("Content-Length") or KNOWN[name].size)
            with console.progress("download", total, "bytes") as progress:
                while block := answer.read(min(_BLOCK, limit - received.tell())):
                    received.write(block)
                    progress.advance(len(block))
    except (OSError, http.client.HTTPException, ValueError) as error:  # also for answers that are not HTTP
        raise HierSAEError(
            f"{source}: cannot be downloaded ({getattr(error, 'reason', None) or error})",
            f"Download {KNOWN[name].address} elsewhere, copy it here, and give the file:\n"
            f"hiersae data get {name} --from FILE\nIt is unpacked, checked and put into {folder}/.",
        ) from None
    return received.getvalue()


def _unpack(data: bytes, source: str, size: int) -> bytes:
    """The content of an archive, or ``data`` itself; at most one byte more than ``size``."""
    try:
        if data.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(data)) as unpacked:
                return unpacked.read(size + 1)
        if data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
                if len(members) != 1:
                    raise FileError(f"{source}: holds {len(members)} files, one was expected", "Give the file itself.")
                with archive.open(members[0]) as unpacked:
                    return unpacked.read(size + 1)
    except _DAMAGED as error:
        raise FileError(f"{source}: damaged ({error})", "Download it again.") from None
    return data[: size + 1]


def _check(data: bytes, known: Known, source: str, config: DataGetConfig) -> None:
    if not data.startswith(known.begins):
        raise FileError(f"{source}: does not begin like {config.name}", f"It is published at {known.address}")
    if len(data) < known.size and config.prefix:
        if known.encoding == "ascii" and not data.isascii():
            raise FileError(f"{source}: has characters outside ASCII, unlike {config.name}", "Give its beginning.")
        return
    if len(data) != known.size:
        hint = f"The whole file is published at {known.address}"
        if len(data) < known.size:
            hint = f"Give --prefix to use these bytes as a smaller data set, which all outputs name so. {hint}"
        length = f"{len(data):,}" if len(data) < known.size else f"more than {known.size:,}"
        raise FileError(f"{source}: {length} bytes; {config.name} has {known.size:,}", hint)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != known.sha256:
        raise FileError(
            f"{source}: not {config.name}: its sha256 is {sha256}, that of {config.name} {known.sha256}",
            f"It is published at {known.address}",
        )
