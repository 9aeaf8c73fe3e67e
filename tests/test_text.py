"""Sources of text: what each gives, under which names, and what is said where one is wrong."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.host.text import Document, documents, fingerprints

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def read(*texts: object, field: str = "text") -> list[Document]:
    return list(documents([str(text) for text in texts], field))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS.filter(lambda text: not text.startswith("\ufeff")))
def test_a_file_is_one_document_exactly_as_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.name"
    path.write_bytes(text.encode())
    assert read(path) == [Document(str(path), text, 0)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1))
def test_json_lines_keep_every_text(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
    assert read(path) == [Document(f"{path}:{n}", text) for n, text in enumerate(texts, start=1)]


def test_line_ends_are_kept_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\xe2\x80\xa8")
    assert [document.text for document in read(path)] == ["one\r\ntwo\r\u2028"]


def test_json_lines_skip_blank_lines_and_read_another_field(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"body": "a"}\n\n{"body": "  "}\r\n{"body": "b"}')
    assert read(path, field="body") == [Document(f"{path}:1", "a"), Document(f"{path}:4", "b")]


def test_a_folder_gives_its_texts_sorted_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("x")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "c.txt").write_text("c")
    (tmp_path / "d.md").write_text("not taken")
    assert [document.text for document in read(tmp_path)] == ["a", "x", "c"]


def test_a_glob_gives_its_files_sorted(tmp_path: Path) -> None:
    for name in ("2.md", "1.md", "3.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder.md").mkdir()
    assert [document.text for document in read(tmp_path / "*.md")] == ["1.md", "2.md"]


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a[1].txt"
    path.write_text("here")
    assert read(path) == [Document(str(path), "here")]


def test_standard_input_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\r\n".encode())))
    assert read("-") == [Document("-", "é\r\n")]


def test_nothing_means_the_documentation_of_python() -> None:
    found = read()
    assert found[0].name == "pydoc_data.topics:" + min(d.name.partition(":")[2] for d in found)
    assert [document.name for document in found] == sorted(document.name for document in found)
    assert sum(len(document.text) for document in found) > 100_000
    together = "".join(document.text for document in found).encode()
    assert fingerprints([]) == {"pydoc_data.topics": hashlib.sha256(together).hexdigest()}


def test_fingerprints_are_by_file_and_empty_for_streams(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc")
    assert fingerprints([str(tmp_path), "-", "hf:some/name"]) == {
        str(path): hashlib.sha256(b"abc").hexdigest(),
        "-": "",
        "hf:some/name": "",
    }


def test_documents_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "first"}\nthis line is wrong\n')
    stream = documents([str(path)], "text")
    assert next(stream).text == "first"
    with pytest.raises(FileError, match=r"rows\.jsonl:2: not a JSON object"):
        next(stream)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ("[1]", "but a list"),
        ("null", "but null"),
        ('{"body": "a", "title": "b"}', "'text' is missing (fields: body, title)"),
        ('{"text": 3}', "'text' is a number, not a text (fields: text)"),
        ('{"text": null}', "'text' is null"),
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(FileError) as caught:
        read(path)
    assert caught.value.message.startswith(f"{path}:2: ") and message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("a.txt", b"caf\xe9", "byte 3 (0xe9)"),
        ("a.txt", b"\xef\xbb\xbfcaf\xe9", "byte 6 (0xe9)"),
        ("a.txt", b"\x1f\x8b\x08", "byte 1 (0x8b)"),
        ("a.jsonl", b'{"text": "good"}\n{"text": "caf\xe9"}\n', "byte 30 (0xe9)"),
    ],
)
def test_bytes_that_are_no_text_are_named(tmp_path: Path, name: str, data: bytes, place: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FileError) as caught:
        read(path)
    assert name in caught.value.message and place in caught.value.message
    assert ("unpack" if data.startswith(b"\x1f") else "iconv") in caught.value.hint


def records(path: Path, name: str) -> Path:
    """Two records of the fields ``body`` and ``n``, as the end of the name says."""
    rows = [{"body": "one é", "n": 1}, {"body": "two", "n": 2}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    stem = name.lower()
    if ".parquet" in stem:
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path / name)
        return path / name
    data = json.dumps(rows).encode() if ".json" in stem and ".jsonl" not in stem else lines
    if stem.endswith(".zst"):
        pyarrow = pytest.importorskip("pyarrow")
        with pyarrow.output_stream(str(path / name), compression="zstd") as file:
            file.write(data)
        return path / name
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    (path / name).write_bytes(pack.get(Path(stem).suffix, bytes)(data))
    return path / name


NAMES = ["a.jsonl", "a.JSONL", "a.ndjson", "a.json", "a.Json", "a.parquet", "a.jsonl.gz", "a.jsonl.XZ", "a.ndjson.bz2"]


@pytest.mark.parametrize("name", [*NAMES, "a.jsonl.zst", "a.json.gz"])
def test_records_are_read_whatever_the_file(tmp_path: Path, name: str) -> None:
    path = records(tmp_path, name)
    assert [document.text for document in read(path, field="body")] == ["one é", "two"]
    with pytest.raises(FileError, match=r"the field 'text' is missing \(fields: body, n\)"):
        read(path)


def test_json_of_texts_of_one_object_and_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, texts in (
        ('["a", "b"]', ["a", "b"]),
        ('{"text": "a"}', ["a"]),
        ('{"text": "a"}\n{"text": "b"}', ["a", "b"]),
    ):
        path.write_text(content)
        assert [document.text for document in read(path)] == texts
    for content, problem in (("[1]", "not a JSON object but a number"), ("{", "not JSON"), ("[" * 10**5, "not JSON")):
        path.write_text(content)
        with pytest.raises(FileError, match=problem):
            read(path)


def test_plain_text_may_be_compressed_and_a_folder_may_hold_all(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "b.TXT").write_text("plain")
    (tmp_path / "c.ndjson").write_text('{"text": "line"}\n')
    assert [document.text for document in read(tmp_path)] == ["packed", "plain", "line"]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.xz", "a.txt.bz2", "a.txt.zst", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"plain text\n" * 10)
    with pytest.raises(FileError, match=re.escape(name)):
        read(tmp_path / name)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"text" * 100)[:-9])
        with pytest.raises(FileError, match="damaged"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.TGZ", "a.pdf", "a.arrow"])
def test_files_of_other_kinds_are_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("anything")
    with pytest.raises(UsageError, match="files are not read") as caught:
        documents([str(tmp_path / name)], "text")
    assert caught.value.hint


def test_a_field_of_texts_that_have_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UsageError, match="--text-field body: none of these texts has fields"):
        documents([str(tmp_path / "a.txt")], "body")


ENGLISH = "Plain words, and then a line.\n" * 40
WIDE = [f"utf-{size}-{side}" for size in (16, 32) for side in ("le", "be")]


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("text", [ENGLISH, "Привет, мир. " * 40, "שלום עולם\n" * 40, "你好 世界。\n" * 40, "hi there"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_wide_encodings_are_named(tmp_path: Path, encoding: str, mark: str, text: str, name: str) -> None:
    text = json.dumps({"text": text}, ensure_ascii=False) if name.endswith(".jsonl") else text
    (tmp_path / name).write_bytes((mark + text).encode(encoding))
    with pytest.raises(FileError) as caught:
        read(tmp_path / name)
    assert f"iconv -f {encoding.replace('-le', 'LE').replace('-be', 'BE').upper()} -t UTF-8" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "encoding"), [("“quoted” café".encode("cp1252"), "CP1252"), ("café déjà".encode("latin1"), "LATIN1")]
)
def test_encodings_of_one_byte_are_named(tmp_path: Path, data: bytes, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(FileError) as caught:
        read(tmp_path / "a.txt")
    assert f"iconv -f {encoding} -t UTF-8" in caught.value.hint


def test_bytes_of_no_text_are_refused_and_a_few_control_characters_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(32)) * 100)
    with pytest.raises(FileError, match="are control characters"):
        read(tmp_path / "a.txt")
    text = "records\x00of words\x00and \x1b[31mcolours\x07\n"
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path / "a.txt")[0].text == text


@pytest.mark.parametrize("text", ["absent.txt", "absent/*.txt", "."])
def test_what_does_not_exist_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        documents([text], "text")
    assert caught.value.message.startswith(f"{text}: ") and caught.value.hint


def test_standard_input_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="given twice"):
        documents(["-", "-"], "text")


def test_nothing_but_white_space_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(FileError, match="there is no text"):
        read(tmp_path)


def test_a_data_set_in_a_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "three"}\n')
    name = f"hf:{tmp_path}"
    assert read(name) == [Document(f"{name}#0", "one"), Document(f"{name}#1", "two")]
    assert read(f"{name}@test") == [Document(f"{name}@test#0", "three")]
    with pytest.raises(FileError, match=r"#0: the field 'body' is missing \(fields: text\)"):
        read(name, field="body")
    with pytest.raises(UsageError, match=r"@nowhere: cannot be loaded"):
        read(f"{name}@nowhere")


def test_data_sets_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError) as caught:
        read("hf:any")
    assert "pip install -c constraints.txt -e '.[hf]'" in caught.value.hint
