"""Concepts of plain text: characters, words, lines of plays, wiki markup."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from hiersae_cli.concepts import surface
from hiersae_cli.concepts.structure import OUTSIDE, Array, Passage, Vocabulary

FAMILIES = ("character", "word", "line", "markup", *surface.FAMILIES)
_CHARACTER, _WORD, _LINE, _MARKUP, _SURFACE = range(5)

_WORDS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_FREQUENT = 0.5  # share of all words in the text that are frequent words
_SPEAKER = re.compile(r"[^\W\d_a-z][^\n:.!?]{0,39}:\s*")
_PLAY = 0.01  # in a play, at least this share of lines names a speaker
_SPACES = {" ": "blank", "\n": "newline", "\t": "tab", "\r": "return"}
_CLASSES = {"L": "letter", "N": "digit", "P": "punctuation", "S": "symbol", "Z": "space", "C": "space"}


def label_text(passages: list[Passage], vocabulary: Vocabulary) -> list[Array]:
    """Labels of every character, (families, characters) for each passage.

    - ``character``: letter, digit, space, punctuation or symbol → which one; letters without their case.
    - ``word``, only within words: upper or lower → place in the word (start, middle, end, single) → frequent or rare.
      Frequent words are the most common ones that together make up half of all words in the passages.
    - ``line``: in plays speaker → which one, speech → first line or later, blank; in other texts text, blank.
    - ``markup``: list, emphasis, heading, template, address, link, entity, tag → which kind; plain. If markup is
      nested, the later kind in this list counts.
    - the families of ``surface.stretches``.
    """
    frequent = _frequent_words(passages)
    play = _is_play(passages)
    labels_of_passages = []
    for passage in passages:
        labels = np.full((len(FAMILIES), len(passage.text)), OUTSIDE, np.int32)
        labels[_CHARACTER] = _characters(passage.text, vocabulary)
        labels[_WORD] = _words(passage.text, frequent, vocabulary)
        labels[_LINE] = _lines(passage.text, play, vocabulary)
        labels[_MARKUP] = _markup(passage.text, vocabulary)
        for family, stretches in enumerate(surface.stretches(passage), _SURFACE):
            for start, end, path in stretches:
                labels[family, start:end] = vocabulary.number(family, *path)
        labels_of_passages.append(labels)
    return labels_of_passages


def plain_name(text: str) -> str:
    """A text as a step of a path, in which slashes separate steps."""
    return text.replace("/", "slash")


def _characters(text: str, vocabulary: Vocabulary) -> Array:
    codes, place = np.unique(_code_points(text), return_inverse=True)
    numbers = [vocabulary.number(_CHARACTER, *_character(chr(code))) for code in codes]
    return np.array(numbers, np.int32)[place] if len(codes) else np.zeros(0, np.int32)


def _character(character: str) -> tuple[str, str]:
    kind = "space" if character.isspace() else _CLASSES.get(unicodedata.category(character)[0], "symbol")
    if kind == "space":
        return kind, _SPACES.get(character, "other")
    return kind, plain_name(character.casefold())


def _words(text: str, frequent: set[str], vocabulary: Vocabulary) -> Array:
    labels = np.full(len(text), OUTSIDE, np.int32)
    upper = np.array([character.isupper() for character in text], bool)
    numbers = {
        (case, where, rank): vocabulary.number(_WORD, case, where, rank)
        for case in ("lower", "upper")
        for where in ("start", "middle", "end", "single")
        for rank in ("frequent", "rare")
    }
    for match in _WORDS.finditer(text):
        first, last = match.span()
        rank = "frequent" if match.group().casefold() in frequent else "rare"
        part = labels[first:last]
        for case in ("lower", "upper"):
            cased = upper[first:last] == (case == "upper")
            part[cased] = numbers[case, "middle", rank]
            if last - first == 1:
                part[cased] = numbers[case, "single", rank]
            else:
                part[:1][cased[:1]] = numbers[case, "start", rank]
                part[-1:][cased[-1:]] = numbers[case, "end", rank]
    return labels


def _frequent_words(passages: list[Passage]) -> set[str]:
    counts = Counter(match.group().casefold() for passage in passages for match in _WORDS.finditer(passage.text))
    remaining, frequent = _FREQUENT * counts.total(), set()
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if remaining <= 0:
            break
        frequent.add(word)
        remaining -= count
    return frequent


def _is_play(passages: list[Passage]) -> bool:
    filled = speakers = 0
    for passage in passages:
        lines = [line for line in passage.text.split("\n") if line.strip()]
        filled += len(lines)
        speakers += sum(bool(_SPEAKER.fullmatch(line)) for line in lines)
    return speakers > _PLAY * filled


def _lines(text: str, play: bool, vocabulary: Vocabulary) -> Array:
    labels = np.full(len(text), OUTSIDE, np.int32)
    start, speech = 0, "later"  # a passage may begin in the middle of a speech
    for line in text.splitlines(keepends=True):
        if not line.strip():
            path: tuple[str, ...] = ("blank",)
        elif play and _SPEAKER.fullmatch(line):
            path, speech = ("speaker", plain_name(line.strip().rstrip(":"))), "first"
        elif play:
            path, speech = ("speech", speech), "later"
        else:
            path = ("text",)
        labels[start : start + len(line)] = vocabulary.number(_LINE, *path)
        start += len(line)
    return labels


def _markup(text: str, vocabulary: Vocabulary) -> Array:
    labels = np.full(len(text), vocabulary.number(_MARKUP, "plain"), np.int32)
    for pattern, kind, name in _PATTERNS:
        for match in pattern.finditer(text):
            first, last = match.span()
            labels[first:last] = vocabulary.number(_MARKUP, kind, plain_name(name(match)))
    return labels


def _link(match: Any) -> str:
    inside = match.group()
    if not inside.startswith("[["):
        return "external"
    return "namespace" if ":" in inside else "piped" if "|" in inside else "simple"


def _first_word(match: Any) -> str:
    words = re.findall(r"\w+", match.group())
    return words[0].casefold() if words else "other"


_LIST_KINDS = {"*": "bullet", "#": "number", ":": "indent", ";": "term"}
_PATTERNS: list[tuple[re.Pattern[str], str, Callable[[Any], str]]] = [
    (re.compile(r"^[*#:;]+", re.MULTILINE), "list", lambda match: _LIST_KINDS[match.group()[-1]]),
    (
        re.compile(r"'{2,5}[^'\n]+(?:'[^'\n]+)*'{2,5}"),
        "emphasis",
        lambda match: "bold" if match.group().startswith("'''") else "italic",
    ),
    (re.compile(r"^(={2,6})[^=\n][^\n]*\1[ \t]*$", re.MULTILINE), "heading", lambda match: str(len(match.group(1)))),
    (re.compile(r"\{\{[^{}]*\}\}"), "template", _first_word),
    (re.compile(r"\b(https?|ftp|www)(?=://|\.)[^\s<>|\]]+"), "address", lambda match: match.group(1)),
    (re.compile(r"\[\[[^\[\]\n]*\]\]|\[(?:https?|ftp)://[^\]\n]*\]"), "link", _link),
    (re.compile(r"&#?\w{2,8};"), "entity", _first_word),
    (re.compile(r"<!--.{0,4000}?-->|&lt;!--.{0,4000}?--&gt;", re.DOTALL), "tag", lambda match: "comment"),
    (
        re.compile(r"</?([A-Za-z][\w:-]*)[^<>]{0,500}>|&lt;/?([A-Za-z][\w:-]*)[^<>\n]{0,200}?&gt;"),
        "tag",
        lambda match: (match.group(1) or match.group(2)).casefold(),
    ),
]


def _code_points(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
