"""Concepts that the form of words, numbers and punctuation decides, without data files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from hiersae_cli.concepts.function_words import CALENDAR, FUNCTION, NUMBER
from hiersae_cli.concepts.structure import Passage

FAMILIES = ("piece", "number", "mark", "capital", "class")

_WORDS = re.compile(r"[^\W\d_]+")
_NUMBERS = re.compile(r"\d+(?:,\d{3})*(?P<point>\.\d+)?(?P<ordinal>(?:st|nd|rd|th)\b)?")
_YEAR = re.compile(r"1\d{3}|20\d\d")
# At most a few signs and blanks after a sentence, so that long rows of them are not searched again and again.
_CLOSING = r"(?:&quot;|[\"'”’)\]]){0,4}"
_SENTENCE_END = re.compile(rf"[.!?]{_CLOSING}\s")
_END_OF_SENTENCE = re.compile(
    rf"(?<!\b[A-Z])[.!?](?={_CLOSING}(?:\s{{1,4}}(?:&quot;|[^\w\s]){{0,4}}[A-Z]|[ \t]{{0,4}}(?:\n|\Z)))"
)
_QUOTES = re.compile(r"&quot;|[\"“”«»]")
_SIGNS = {
    **dict.fromkeys("([{", ("bracket", "open")),
    **dict.fromkeys(")]}", ("bracket", "close")),
    ",": ("pause", "comma"), ";": ("pause", "semicolon"), ":": ("pause", "colon"),
    "-": ("dash", "hyphen"), "–": ("dash", "dash"), "—": ("dash", "dash"),
}  # fmt: skip
_SIGN = re.compile(f"[{re.escape(''.join(_SIGNS))}]")
_ENDS = {".": "period", "?": "question", "!": "exclamation"}
_ENTITY = re.compile(r"&#?\w{2,8};")

_CODE = ("&", "<", "'", "’")  # what follows is not a word: the name of an entity or tag, the end of "it's"

# Paths of concepts, with the stretches of text that they label; a later one counts.
Stretches = Iterator[tuple[int, int, tuple[str, ...]]]


def stretches(passage: Passage) -> list[Stretches]:
    """Of each family, the labelled stretches of a passage; text outside them belongs to no concept of the family.

    - ``piece``, of tokens in words: initial → the whole word or a part; continuation → middle or last.
    - ``number``: numeral → year, decimal, ordinal, small (below 100), large, code (next to a letter); word → cardinal,
      ordinal.
    - ``mark``, punctuation by its role: bracket or quote → open, close; sentence end → period, question, exclamation;
      pause → comma, semicolon, colon; dash → hyphen, dash.
    - ``capital``, words with a capital: first of a sentence or line; all, in all letters; name → single, first or later
      one of several.
    - ``class``: function → article, pronoun, preposition, conjunction, auxiliary, adverb → the word; calendar → month,
      weekday → the word.
    """
    words = [match.span() for match in _WORDS.finditer(passage.text)]
    return [
        _pieces(passage, words),
        _numbers(passage.text, words),
        _marks(passage.text),
        _capitals(passage.text, words),
        _classes(passage.text, words),
    ]


def _pieces(passage: Passage, words: list[tuple[int, int]]) -> Stretches:
    if not words:
        return
    place_N = np.unique(np.array(passage.tokens, np.int64))
    start_W, end_W = np.array(words, np.int64).T
    word_N = np.searchsorted(start_W, place_N, "right") - 1
    inside_N = (word_N >= 0) & (place_N < end_W[word_N])
    place_N, word_N = place_N[inside_N], word_N[inside_N]
    last_N = np.diff(word_N, append=-1) != 0
    initial_N = place_N == start_W[word_N]
    for place, end, initial, last in zip(
        place_N.tolist(), end_W[word_N].tolist(), initial_N.tolist(), last_N.tolist(), strict=True
    ):
        if initial:
            yield place, end, ("initial", "whole" if last else "part")
        else:
            yield place, end, ("continuation", "last" if last else "middle")


def _numbers(text: str, words: list[tuple[int, int]]) -> Stretches:
    for match in _NUMBERS.finditer(text):
        start, end = match.span()
        yield start, end, ("numeral", _numeral(match, text[start - 1 : start] + text[end : end + 1]))
    for start, end in words:
        kind = NUMBER.get(text[start:end].lower())
        if kind:
            yield start, end, ("word", kind)


def _numeral(match: re.Match[str], around: str) -> str:
    digits = match.group()
    if match["ordinal"]:
        return "ordinal"
    if any(character.isalpha() or character == "_" for character in around):
        return "code"
    if match["point"]:
        return "decimal"
    return "small" if len(digits) <= 2 else "year" if _YEAR.fullmatch(digits) else "large"


def _marks(text: str) -> Stretches:
    entity_ends = {match.end() - 1 for match in _ENTITY.finditer(text)}  # such a semicolon is no pause
    for match in _SIGN.finditer(text):
        if match.start() not in entity_ends:
            yield *match.span(), _SIGNS[match.group()]
    for match in _END_OF_SENTENCE.finditer(text):
        yield match.start(), match.end(), ("sentence end", _ENDS[match.group()])
    for match in _QUOTES.finditer(text):
        start, end = match.span()
        before, after = text[start - 1 : start], text[end : end + 1]
        opens = (not before or before in " \n\t([{=>") and bool(after.strip())
        yield start, end, ("quote", "open" if opens else "close")


def _capitals(text: str, words: list[tuple[int, int]]) -> Stretches:
    names: list[tuple[int, int]] = []
    before = 0
    for start, end in words:
        gap, word = text[before:start], text[start:end]
        initial = text[before - 1 : before].isupper() and not text[before - 2 : before - 1].isalpha()  # "J. Smith"
        if word[0].isupper() and text[start - 1 : start] not in _CODE:
            if len(word) > 1 and word.isupper():
                yield start, end, ("all",)
            elif before == 0 or "\n" in gap or (_SENTENCE_END.search(gap) and not initial):
                yield start, end, ("first",)
            else:
                names.append((start, end))
        before = end
    apart = [text[a[1] : b[0]] not in (" ", ". ") for a, b in pairwise(names)]
    for (start, end), first, last in zip(names, [True, *apart], [*apart, True], strict=False):
        yield start, end, ("name", "single" if first and last else "first" if first else "later")


def _classes(text: str, words: list[tuple[int, int]]) -> Stretches:
    for start, end in words:
        word = text[start:end]
        small = word.lower()
        if small in CALENDAR and word == small.capitalize():
            yield start, end, ("calendar", CALENDAR[small], small)
        elif small in FUNCTION and word in (small, small.capitalize()) and text[start - 1 : start] not in _CODE:
            yield start, end, ("function", FUNCTION[small], small)
