"""``hiersae data get``: what is taken for a data set, what is refused, and what the folder says of itself."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from hiersae_cli.config.data import DataGetConfig
from hiersae_cli.errors import FileError, HierSAEError
from hiersae_cli.formats import datasets
from hiersae_cli.formats.datasets import KNOWN
from hiersae_cli.workflows.data import get
from tests.helpers import hiersae

PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 20
WIKI = b"<mediawiki xmlns=" + "naïve\r\n".encode() * 100


def test_the_beginning_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_bytes(PLAY)
    done = hiersae("data", "get", "shakespeare_char", "--from", "play.txt", cwd=tmp_path, fresh=True)
    assert done.returncode == 1
    assert f"{len(PLAY):,} bytes; shakespeare_char has 1,115,394" in done.stderr and "--prefix" in done.stderr
    assert not (tmp_path / "data" / "shakespeare_char").exists()

    done = hiersae("data", "get", "shakespeare_char", "--from", "play.txt", "--prefix", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    described = json.loads(done.stdout)
    assert described["title"] == f"shakespeare_char (first {len(PLAY):,} bytes)" and described["prefix"]
    assert described == json.loads((tmp_path / "data" / "shakespeare_char" / "data.json").read_text())
    assert described["inputs"] == {"play.txt": hashlib.sha256(PLAY).hexdigest()}
    assert (tmp_path / "data" / "shakespeare_char" / "text.txt").read_bytes() == PLAY


@pytest.mark.parametrize("form", ["plain", "gz", "zip"])
def test_every_byte_of_enwik8_is_a_character(form: str, tmp_path: Path) -> None:
    source = tmp_path / "wiki"
    if form == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("enwik8", WIKI)
    else:
        source.write_bytes(gzip.compress(WIKI) if form == "gz" else WIKI)
    assert hiersae("data", "get", "enwik8", "--from", source, "--prefix", cwd=tmp_path).returncode == 0
    data = datasets.read(tmp_path / "data" / "enwik8")
    text, test = ((data.text.parent / name).read_bytes().decode() for name in ("text.txt", "test.txt"))
    assert (text + test).encode("latin-1") == WIKI
    assert (data.training, data.validation, len(test)) == (len(WIKI) * 9 // 10, len(WIKI) // 20, len(WIKI) - len(text))
    assert len(text) == data.training + data.validation


def test_the_whole_ones_are_split_as_published() -> None:
    assert KNOWN["shakespeare_char"].parts(1_115_394) == (1_003_854, 111_540, 0)
    assert KNOWN["enwik8"].parts(10**8) == KNOWN["text8"].parts(10**8) == (90_000_000, 5_000_000, 5_000_000)


def test_another_file_of_the_same_size_is_refused(tmp_path: Path) -> None:
    size = KNOWN["shakespeare_char"].size
    (tmp_path / "other.txt").write_bytes((PLAY * (size // len(PLAY) + 1))[:size])
    done = hiersae("data", "get", "shakespeare_char", "--from", "other.txt", "--prefix", cwd=tmp_path)
    assert done.returncode == 1 and f"sha256 {KNOWN['shakespeare_char'].sha256}"[7:] in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Something else", "does not begin like shakespeare_char"),
        ("First Citizen: naïve".encode(), "ASCII"),
        (b"\x1f\x8bno gzip", "damaged"),
        (b"PK\x03\x04no zip", "damaged"),
    ],
)
def test_what_is_no_beginning_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    done = hiersae("data", "get", "shakespeare_char", "--from", "file", "--prefix", cwd=tmp_path)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_without_a_network_it_says_what_to_download_and_where_to_put_it(tmp_path: Path) -> None:
    # Nothing listens at port 9 of this machine.
    done = hiersae("data", "get", "text8", "--from", "http://127.0.0.1:9/text8.zip", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"Download {KNOWN['text8'].address} elsewhere" in done.stderr
    assert "hiersae data get text8 --from FILE" in done.stderr and "data/text8/" in done.stderr


def test_what_is_there_stays_unless_told(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_bytes(PLAY)
    get = ("data", "get", "shakespeare_char", "--from", "play.txt", "--prefix")
    assert hiersae(*get, cwd=tmp_path).returncode == 0
    assert "already exists" in hiersae(*get, cwd=tmp_path).stderr
    (tmp_path / "play.txt").write_bytes(PLAY[:600])
    assert hiersae(*get, "--overwrite", cwd=tmp_path).returncode == 0
    assert datasets.read(tmp_path / "data" / "shakespeare_char").title == "shakespeare_char (first 600 bytes)"


def test_a_changed_text_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_bytes(PLAY)
    hiersae("data", "get", "shakespeare_char", "--from", "play.txt", "--prefix", cwd=tmp_path)
    folder = tmp_path / "data" / "shakespeare_char"
    (folder / "text.txt").write_bytes(PLAY[1:])
    with pytest.raises(FileError, match=r"not the text that data\.json describes"):
        datasets.read(folder)


def test_a_name_that_nobody_knows() -> None:
    done = hiersae("data", "get", "enwik9")
    assert done.returncode == 2 and "shakespeare_char, enwik8, text8" in done.stderr


@pytest.mark.parametrize("form", ["plain", "gz", "zip"])
def test_unpacking_stops_at_the_known_size(form: str, tmp_path: Path) -> None:
    size, bomb = KNOWN["shakespeare_char"].size, PLAY + bytes(200 << 20)
    source = tmp_path / "play"
    if form == "plain":
        source.write_bytes(bomb)
    elif form == "gz":
        source.write_bytes(gzip.compress(bomb, 1))
    else:
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("play.txt", bomb)
    tracemalloc.start()
    with pytest.raises(FileError, match=f"more than {size:,} bytes"):
        get(DataGetConfig(name="shakespeare_char", source=str(source), data=str(tmp_path / "data")))
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    assert not (tmp_path / "data" / "shakespeare_char").exists()


@pytest.mark.parametrize("error", [http.client.BadStatusLine("x"), http.client.IncompleteRead(b""), ValueError("x")])
def test_an_answer_that_is_not_http_is_an_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("urllib.request.urlopen", broken)
    with pytest.raises(HierSAEError, match="cannot be downloaded"):
        get(DataGetConfig(name="text8", source="http://localhost/x", data=str(tmp_path)))


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"PK\x03\x04"])
def test_a_damaged_archive_is_an_error(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(start + b"damaged" * 99)
    with pytest.raises(FileError, match="damaged"):
        get(DataGetConfig(name="text8", source=str(tmp_path / "file"), data=str(tmp_path)))
