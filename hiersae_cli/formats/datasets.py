"""Data sets of characters: what is known of the published ones, and the folder ``data/NAME/`` of a checked one.

``text.txt`` holds the text that a host model is trained and validated on, validation last; ``test.txt`` the test part,
if there is one; ``data.json`` where they came from. Specified in ``docs/file-formats.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiersae_cli.config.data import DATASETS
from hiersae_cli.errors import FileError
from hiersae_cli.formats import atomic
from hiersae_cli.formats.fields import COUNT, Kind, require_fields
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.hashing import sha256_file

SCHEMA = "hiersae.data"
SCHEMA_VERSION = 1
DESCRIPTION, TEXT, TEST = "data.json", "text.txt", "test.txt"
_FIELDS: dict[str, Kind] = {
    "name": str,
    "title": str,
    "files": {TEXT: str},
    "parts": {"training": COUNT, "validation": COUNT},
}


@dataclass(frozen=True)
class Known:
    """A data set as its author publishes it.

    Attributes:
        address: of the published file.
        size: bytes.
        sha256: of these bytes, hexadecimal.
        begins: its first bytes.
        encoding: one in which each byte is one character.
        tested: whether a last part is kept for testing.
    """

    address: str
    size: int
    sha256: str
    begins: bytes
    encoding: str
    tested: bool

    def parts(self, size: int) -> tuple[int, int, int]:
        """How many of ``size`` characters are for training, validation and testing: 90 / 5 / 5 %, or 90 / 10 / 0 %."""
        training = size * 9 // 10
        validation = size // 20 if self.tested else size - training
        return training, validation, size - training - validation


KNOWN = dict(
    zip(
        DATASETS,
        (
            Known(
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                1_115_394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                b"First Citizen:",
                "ascii",
                tested=False,
            ),
            Known(
                "https://mattmahoney.net/dc/enwik8.zip",
                100_000_000,
                "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
                b"<mediawiki xmlns=",
                "latin-1",
                tested=True,
            ),
            Known(
                "https://mattmahoney.net/dc/text8.zip",
                100_000_000,
                "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
                b" anarchism originated",
                "ascii",
                tested=True,
            ),
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class Dataset:
    """A data set on this disk, checked.

    Attributes:
        name: of the whole.
        title: its name in outputs; for a prefix, with its length.
        text: path of the text for training and validation.
        sha256: of that file.
        training, validation: characters of its two parts.
    """

    name: str
    title: str
    text: Path
    sha256: str
    training: int
    validation: int


def title(name: str, size: int) -> str:
    """``enwik8``, or ``enwik8 (first 1,000 bytes)`` for a part of it."""
    return name if size == KNOWN[name].size else f"{name} (first {size:,} bytes)"


def read(folder: str | Path) -> Dataset:
    """The data set in ``data/NAME``; raises ``FileError`` if its files are not those that ``data.json`` says."""
    folder = Path(folder)
    described: dict[str, Any] = atomic.read_json(folder / DESCRIPTION)
    check_schema(folder / DESCRIPTION, described, SCHEMA, SCHEMA_VERSION)
    require_fields(folder / DESCRIPTION, described, _FIELDS, "Get it again: hiersae data get NAME --overwrite")
    text = folder / TEXT
    if not text.is_file() or sha256_file(text) != described["files"][TEXT]:
        raise FileError(
            f"{text}: not the text that {DESCRIPTION} describes",
            f"Get it again: hiersae data get {described['name']} --overwrite",
        )
    parts = described["parts"]
    return Dataset(
        described["name"], described["title"], text, described["files"][TEXT], parts["training"], parts["validation"]
    )
