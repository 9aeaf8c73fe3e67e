"""Concepts of texts: labellers, the user's own labels, and from tokens to characters."""

from __future__ import annotations

import csv
import inspect
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersae_cli.concepts import LABELLERS, OUTSIDE, UNKNOWN, Concepts, LabelsFile, Passage, Vocabulary, choose
from hiersae_cli.concepts.tokens import bytes_shown, joined, places
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations.contexts import TextAround, words_around

PLAY = """First Citizen:
Speak to me, good sir.
The end is near.

ROMEO:
But soft, the sun is up!
"""


def labelled(text: str, labeller: str = "text", tokens: Sequence[int] = ()) -> dict[str, list[str]]:
    """By family, the name of every character's concept; "-" for none and "?" for unknown."""
    label, families = LABELLERS[labeller]
    vocabulary = Vocabulary(families)
    (labels,) = label([Passage("a", text, tokens=tokens)], vocabulary)
    assert labels.shape == (len(families), len(text))
    special = {OUTSIDE: "-", UNKNOWN: "?"}
    names = ["/".join(path) for path in vocabulary.paths]
    return {
        family: [special[label] if label < 0 else names[label] for label in row.tolist()]
        for family, row in zip(families, labels, strict=True)
    }


def of(text: str, piece: str, names: list[str]) -> set[str]:
    """The labels of the characters of a piece of the text that occurs once."""
    assert text.count(piece) == 1
    return set(names[text.index(piece) : text.index(piece) + len(piece)])


def test_characters() -> None:
    names = labelled("aB 7é.\n+\t中/")["character"]
    assert names == [
        "letter/a", "letter/b", "space/blank", "digit/7", "letter/é", "punctuation/.", "space/newline", "symbol/+",
        "space/tab", "letter/中", "punctuation/slash",
    ]  # fmt: skip


def test_words() -> None:
    text = "the the the the I saw The end"
    names = labelled(text)["word"]
    assert names[0] == "lower/start/frequent" and names[1] == "lower/middle/frequent"
    assert names[2] == "lower/end/frequent" and names[3] == "-"
    assert of(text, "I", names) == {"upper/single/rare"}
    assert of(text, "saw", names) == {"lower/start/rare", "lower/middle/rare", "lower/end/rare"}
    assert of(text, "T", names) == {"upper/start/frequent"}


def test_frequent_words_are_half_of_all() -> None:
    names = labelled("a a a b b c d e f g")["word"]  # ten words: a and b are five
    assert names[0].endswith("frequent") and names[6].endswith("frequent") and names[10].endswith("rare")


def test_lines_of_plays_and_of_other_texts() -> None:
    names = labelled(PLAY)["line"]
    assert of(PLAY, "First Citizen:\n", names) == {"speaker/First Citizen"}
    assert of(PLAY, "Speak to me, good sir.\n", names) == {"speech/first"}
    assert of(PLAY, "The end is near.\n", names) == {"speech/later"}
    assert names[PLAY.index("\n\n") + 1] == "blank"
    assert of(PLAY, "ROMEO:", names) == {"speaker/ROMEO"}
    assert set(labelled("No play.\n\nJust lines.\n")["line"]) == {"text", "blank"}


def test_markup_of_wikis() -> None:
    text = (
        "== History ==\nThe '''bold''' and ''slanted'' [[king]] of [[France|the French]], [[Image:a.png]] and "
        "[http://a.org page] {{cite book|x}} &quot; <ref name='a'> &lt;nowiki&gt; <!-- no --> plain\n"
    )
    names = labelled(text)["markup"]
    assert of(text, "== History ==", names) == {"heading/2"}
    assert of(text, "'''bold'''", names) == {"emphasis/bold"}
    assert of(text, "''slanted''", names) == {"emphasis/italic"}
    assert of(text, "[[king]]", names) == {"link/simple"}
    assert of(text, "[[France|the French]]", names) == {"link/piped"}
    assert of(text, "[[Image:a.png]]", names) == {"link/namespace"}
    assert of(text, "[http://a.org page]", names) == {"link/external"}
    assert of(text, "{{cite book|x}}", names) == {"template/cite"}
    assert of(text, "&quot;", names) == {"entity/quot"}
    assert of(text, "<ref name='a'>", names) == {"tag/ref"}
    assert of(text, "&lt;nowiki&gt;", names) == {"tag/nowiki"}
    assert of(text, "<!-- no -->", names) == {"tag/comment"}
    assert of(text, " plain", names) == {"plain"}


def test_addresses_and_lists_of_wikis() -> None:
    text = "see http://a.org/b or www.c.net\n* one\n## two\n: three * four\n"
    names = labelled(text)["markup"]
    for piece, name in {
        "http://a.org/b": "address/http",
        "www.c.net": "address/www",
        "*": "list/bullet",
        "##": "list/number",
        ": t": "list/indent",
        "three * four": "plain",
    }.items():
        assert names[text.index(piece)] == name, piece


def test_pieces_of_words() -> None:
    text = " whole unbreakable, a1"
    names = labelled(text, tokens=[1, 7, 9, 14, 18, 20, 21])["piece"]
    assert names[1] == names[20] == "initial/whole" and names[7] == "initial/part"
    assert names[9] == "continuation/middle" and names[14] == "continuation/last"
    assert names[18] == names[21] == "-"


def test_numbers() -> None:
    text = "In 1999 he paid 1,250 or 3.50 for 12 of the 21st, x86 and 0451; seven, fifth"
    names = labelled(text)["number"]
    for piece, name in {
        "1999": "numeral/year",
        "1,250": "numeral/large",
        "3.50": "numeral/decimal",
        "12": "numeral/small",
        "21st": "numeral/ordinal",
        "86": "numeral/code",
        "0451": "numeral/large",
        "seven": "word/cardinal",
        "fifth": "word/ordinal",
        "x": "-",
    }.items():
        assert names[text.index(piece)] == name, piece


def test_punctuation_by_its_role() -> None:
    text = 'A. Smith said (of 3.5): "No!" &quot;Why&quot;, it-self\nEnd.'
    names = labelled(text)["mark"]
    ends = [place for place, name in enumerate(names) if name.startswith("sentence end")]
    assert [text[place] for place in ends] == ["!", "."] and ends[-1] == len(text) - 1
    assert names[text.index("(")] == "bracket/open" and names[text.index(")")] == "bracket/close"
    assert names[text.index(":")] == "pause/colon" and names[text.index(",")] == "pause/comma"
    assert [names[place] for place, character in enumerate(text) if character == '"'] == ["quote/open", "quote/close"]
    assert names[text.index("&quot;W")] == "quote/open" and names[text.index("&quot;,") + 5] == "quote/close"
    assert names[text.index("-")] == "dash/hyphen" and ";" not in text.replace("&quot;", "")


def test_capitals() -> None:
    text = "The man from New York met J. Brown. He is in NATO\nand Rome's\nThen"
    names = labelled(text)["capital"]
    for piece, name in {
        "The": "first", "man": "-", "New": "name/first", "York": "name/later", "J.": "name/first",
        "Brown": "name/later", "He": "first", "NATO": "all", "and": "-", "Rome": "name/single", "s\n": "-",
        "Then": "first",
    }.items():  # fmt: skip
        assert names[text.index(piece)] == name, piece


def test_classes_of_words() -> None:
    text = "The end of May, which may be Monday; a march &may;"
    names = labelled(text)["class"]
    for piece, name in {
        "The": "function/article/the", "end": "-", "of": "function/preposition/of", "May": "calendar/month/may",
        "which": "function/pronoun/which", "may be": "function/auxiliary/may", "Monday": "calendar/weekday/monday",
        "march": "-", "may;": "-",
    }.items():  # fmt: skip
        assert names[text.index(piece)] == name, piece


@pytest.mark.parametrize("text", ["", "\n", " ", "a", "'''", "[[", "<", "\ufffd\x00", "x" * 5000 + "'" * 500])
@pytest.mark.parametrize("labeller", LABELLERS)
def test_any_text_has_labels(text: str, labeller: str) -> None:
    labelled(text, labeller)


def test_python_source() -> None:
    text = 'class Old(dict):  # why\n    def run(self):\n        return self.size + len("é") * 2.5 + 0x1e\n'
    names = labelled(text, "python")["token"]
    for piece, name in {
        "class": "keyword/class",
        "Old": "name/definition",
        "dict": "name/builtin",
        "# why": "comment",
        "run": "name/definition",
        "return": "keyword/return",
        "size": "name/attribute",
        "len": "name/builtin",
        '"é"': "literal/string",
        "2.5": "literal/float",
        "0x1e": "literal/int",
        "*": "operator/*",
        "        ": "space/indent",
    }.items():
        assert of(text, piece, names) == {name}, piece
    assert "?" not in names and names[-1] == "space/newline" and names[5] == "space/blank"


def test_python_source_that_is_cut_or_broken() -> None:
    """What cannot be tokenised is unknown, and only that."""
    text = "    x = 1\n  y = 2\nfor $ in '\nz = 3\nw = '''never\nends"
    names = labelled(text, "python")["token"]
    assert of(text, "1", names) == of(text, "2", names) == of(text, "3", names) == {"literal/int"}
    assert of(text, "never\nends", names) == {"?"}
    source = inspect.getsource(tokenize)
    for start in (0, 777, 5_001):
        names = labelled(source[start : start + 4000], "python")["token"]
        assert names.count("?") < 0.7 * len(names)
    whole = labelled(source, "python")["token"]
    assert {character for character, name in zip(source, whole, strict=True) if name == "?"} <= {"\\"}  # at lines' ends


def concepts(labels: list[list[int]], parents: list[int], families: list[int]) -> Concepts:
    return Concepts(
        [f"f{number}" for number in range(len(labels))],
        [str(number) for number in range(len(parents))],
        np.array(families),
        np.array(parents),
        np.array(labels),
    )


def test_members_of_a_concept_are_those_of_all_below_it() -> None:
    found = concepts([[0, 1, 2, OUTSIDE, UNKNOWN], [3, UNKNOWN, 3, 3, OUTSIDE]], [-1, 0, 1, -1], [0, 0, 0, 1])
    assert found.level_C.tolist() == [0, 1, 2, 0]
    assert found.members().T.astype(int).tolist() == [
        [1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
    ]
    assert found.counts().tolist() == [3, 2, 1, 3]
    assert found.known().T.astype(int).tolist() == [[1, 1, 1, 1, 0]] * 3 + [[1, 0, 1, 1, 1]]


def test_only_some_concepts() -> None:
    found = concepts([[0, 1, 2, 3, OUTSIDE, UNKNOWN]], [-1, 0, 1, -1], [0] * 4).only(np.array([0, 1]))
    assert found.labels_GN.tolist() == [[0, 1, 1, OUTSIDE, OUTSIDE, UNKNOWN]]
    assert found.parent_C.tolist() == [-1, 0]


def test_concepts_are_chosen_that_can_be_measured() -> None:
    # 0: 300 rows, of which 1 has 200 and 2 all but ten; 3: 30 rows; 4: the rest; 5 below 3.
    counts = {0: 10, 1: 200, 2: 90, 3: 20, 4: 680, 5: 10}
    labels = np.repeat(list(counts), list(counts.values()))
    parents = [-1, 0, 0, -1, -1, 3]
    found = concepts([labels.tolist()], parents, [0] * 6)
    assert choose(found, found).tolist() == [0, 1, 2, 4]
    assert choose(found, found, most=2).tolist() == [0, 4]  # the most frequent first, and a child never without parent
    few = found.rows(slice(0, 215))  # held out: nothing against 0, five rows of 2
    assert choose(found, few).tolist() == []
    same = concepts([[0] * 10 + [1] * 190 + [2] * 800], [-1, 0, -1], [0] * 3)
    assert choose(same, same).tolist() == [0, 2]  # 1 is 0 by another name
    chain = concepts([[0] * 10 + [1] * 90 + [2] * 100 + [3] * 800], [-1, 0, 1, -1], [0] * 4)
    kept = choose(chain, chain)
    assert kept.tolist() == [0, 2, 3]  # and the child of 1 is the child of 0
    assert chain.only(kept).parent_C.tolist() == [-1, 0, -1]


def test_families_are_taken_in_turn() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 2000)
    found = concepts([labels.tolist(), (10 + labels % 2).tolist()], [-1] * 12, [0] * 10 + [1] * 2)
    kept = choose(found, found, most=5)
    assert (kept >= 10).sum() == 2 and len(kept) == 5


def test_places_of_tokens() -> None:
    assert places(["The", " cat", "  ", "\n\n", "", "s"]) == [0, 4, 7, 9, 11, 11]


def test_characters_of_several_tokens() -> None:
    """As byte-level tokenizers have them: the last token of a character has its text, or the heaviest."""
    pieces = [bytes_shown(bytes([byte])) for byte in "né中x".encode()]
    assert pieces == ["n", "⟨c3⟩", "⟨a9⟩", "⟨e4⟩", "⟨b8⟩", "⟨ad⟩", "x"]
    assert joined(pieces, [0, 2, 1, 1, 3, 1, 9]) == ["n", "é", "", "", "中", "", "x"]
    found = joined(pieces)
    assert found == ["n", "", "é", "", "", "中", "x"]
    assert [("".join(found) + "x")[place] for place in places(found)] == ["n", "é", "é", "中", "中", "中", "x"]
    assert joined(["⟨e4⟩", "n"]) == ["⟨e4⟩", "n"]
    assert joined(["⟨b8 ad⟩e", "⟨f0 9f⟩", "⟨91 8d⟩⟨c3⟩", "⟨a9⟩"]) == ["⟨b8 ad⟩e", "", "👍", "é"]
    assert joined(["\ufffd", "⟨a⟩ ⟨41⟩", "⟨"]) == ["\ufffd", "⟨a⟩ ⟨41⟩", "⟨"]


def test_a_context_is_completed_from_the_windows_beside_its_own() -> None:
    pieces = [bytes_shown(bytes([byte])) for byte in "a中b中é".encode()]  # tokens: 1 + 3 + 1 + 3 + 2
    token_R, document_R = np.arange(len(pieces)), np.array([0] * 8 + [1, 1])

    def texts(tokens: np.ndarray) -> list[str]:
        return [pieces[token] for token in tokens]

    text = TextAround(np.array([3, 6, 8]), 1, texts, token_R, document_R)
    # Windows end after tokens 2 and 6.
    assert text.excerpt(0, [1.0, 0.0], 0) == ["中", "b"]
    assert text.excerpt(1, [0.0, 1.0], 1) == ["", "中"]
    assert text.excerpt(2, [1.0, 0.0], 0) == ["é", ""]  # nothing from the document before
    assert TextAround(np.array([2]), 0, texts, token_R, document_R).excerpt(0, [1.0], 0) == ["中"]

    position_R = np.array([0, 1, 2, 0, 1, 2, 3, 0, 0, 1])
    assert words_around(4, 5, texts, token_R, document_R, position_R) == (["中", "b", "", "中"], 1)
    assert words_around(2, 5, texts, token_R, document_R, position_R) == (["a", "", "中"], 2)
    assert words_around(8, 1, texts, token_R, document_R, position_R) == (["é", ""], 0)


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=8))
def test_any_bytes_are_shown_and_joined(parts: list[bytes]) -> None:
    """What is text is shown as it is, whatever the tokens; every token's own bytes can be told from another's."""
    pieces = [bytes_shown(part) for part in parts]
    assert "".join(joined(pieces)).replace("⟩⟨", " ") == bytes_shown(b"".join(parts)).replace("⟩⟨", " ")
    assert len(joined(pieces)) == len(parts)
    assert len(set(pieces)) == len(set(parts))


ROWS = [
    ("a.txt", 0, 6, "noun phrase"),
    ("a.txt", 4, 6, "noun phrase / noun"),
    ("a.txt", 10, 12, "verb"),
    ("other.txt", 0, 3, "verb"),
]


def write_csv(path: Path, rows: list[Any] = ROWS, columns: str = "document,start,end,label") -> Path:
    with path.open("w", newline="") as file:
        file.write(columns + "\n")
        csv.writer(file).writerows(rows)
    return path


def write_parquet(path: Path) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(("document", "start", "end", "label"), map(list, zip(*ROWS, strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_of_ones_own(kind: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv") if kind == "csv" else write_parquet(tmp_path / "l.parquet")
    vocabulary = Vocabulary(LabelsFile.families)
    # Of the source, the first passage has the characters from 2 to 9 and then those from 10 on.
    passages = [Passage("a.txt", "x" * 10, [(0, 2), (7, 10)]), Passage("b.txt", "xx")]
    first, second = LabelsFile(str(path))(passages, vocabulary)
    names = ["/".join(path) for path in vocabulary.paths]
    assert [names[label] if label >= 0 else label for label in first[0].tolist()] == (
        ["noun phrase"] * 2 + ["noun phrase/noun"] * 2 + [OUTSIDE] * 3 + ["verb"] * 2 + [OUTSIDE]
    )
    assert (second == UNKNOWN).all()
    with pytest.raises(FileError, match=r"labels a\.txt, other\.txt; the cache's text is from b\.txt"):
        LabelsFile(str(path))(passages[1:], vocabulary)
    with pytest.raises(FileError, match="does not know where its documents begin"):
        LabelsFile(str(path))([Passage("a.txt", "xx", [(0, -1)])], vocabulary)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a.txt", "x", 3, "a"), "line 3: start is 'x'"),
        (("a.txt", -1, 3, "a"), "line 3: start is '-1'"),
        (("a.txt", 3, 3, "a"), "line 3: ends at character 3"),
        (("a.txt", 0, 3, "a//b"), "line 3: the label 'a//b' has an empty part"),
        (("a.txt", 0, 3, ""), "line 3: the label '' has an empty part"),
        (("", 0, 3, "a"), "line 3: has no document"),
        (("a.txt", 0, 3), "line 3: the number of fields differs"),
        (("a.txt", 0, 3, "a", "b"), "line 3: the number of fields differs"),
    ],
)
def test_errors_of_labels_name_file_and_row(row: Any, message: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "l.csv", [ROWS[0], row])
    with pytest.raises(FileError) as error:
        LabelsFile(str(path))
    assert f"{path}: {message}" in error.value.message


def test_errors_of_label_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no such file"):
        LabelsFile(str(tmp_path / "none.csv"))
    with pytest.raises(FileError, match=r"lacks the column end, label \(it has: document, start\)"):
        LabelsFile(str(write_csv(tmp_path / "c.csv", [], "document,start")))
    with pytest.raises(FileError, match="has no labels"):
        LabelsFile(str(write_csv(tmp_path / "e.csv", [])))
    for name, message in (("b.csv", "not UTF-8 text"), ("b.parquet", "not a readable Parquet file")):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00document")
        with pytest.raises(FileError, match=message):
            LabelsFile(str(tmp_path / name))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match="needs the package pyarrow"):
        LabelsFile(str(tmp_path / "b.parquet"))
