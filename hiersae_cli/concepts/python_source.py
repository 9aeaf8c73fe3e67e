"""Concepts of Python source, from the tokenizer of the standard library."""

from __future__ import annotations

import builtins
import keyword
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hiersae_cli.concepts.plain import plain_name
from hiersae_cli.concepts.structure import UNKNOWN, Array, Passage, Vocabulary

FAMILIES = ("token",)
_BUILTINS = frozenset(dir(builtins))
_LAYOUT = {"NEWLINE", "NL", "INDENT", "DEDENT", "ENDMARKER", "ENCODING"}  # these get labels as white space


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    stop: int


def label_python(passages: list[Passage], vocabulary: Vocabulary) -> list[Array]:
    """Labels of every character, (1, characters) for each passage; one family, ``token``.

    keyword → which one; literal → string, int, float or imaginary; operator → which one; name → definition, attribute,
    call, builtin or other; comment; space → indent, newline or blank. Text that cannot be tokenised, for example after
    a cut within a string, is unknown, and tokenising resumes on the next line.
    """
    return [_labels(passage.text, vocabulary)[None] for passage in passages]


def _labels(text: str, vocabulary: Vocabulary) -> Array:
    labels = np.full(len(text), UNKNOWN, np.int32)
    reached = np.zeros(len(text), bool)
    tokens = list(_tokenised(text, reached))
    for number, token in enumerate(tokens):
        before = tokens[number - 1] if number else None
        after = tokens[number + 1] if number + 1 < len(tokens) else None
        path = _path(token, before, after)
        if path:
            labels[token.start : token.stop] = vocabulary.number(0, *path)
    line_start = True
    for place, character in enumerate(text):
        if character in " \t\r\n\f" and labels[place] == UNKNOWN and reached[place]:
            kind = "newline" if character in "\r\n" else "indent" if line_start else "blank"
            labels[place] = vocabulary.number(0, "space", kind)
        line_start = character == "\n" or (line_start and character in " \t\f")
    return labels


def _tokenised(text: str, reached: Array) -> Iterator[_Token]:
    """The tokens of a text; sets ``reached``, in place, at every character up to which tokenising worked."""
    lines = _lines(text)
    starts = np.cumsum([0, *map(len, lines)])
    first = 0
    while first < len(lines):
        done = int(starts[first])
        try:
            for token in tokenize.generate_tokens(iter(lines[first:]).__next__):
                begin, end = (
                    min(int(starts[min(first + row - 1, len(lines))]) + column, len(text))
                    for row, column in (token.start, token.end)
                )
                reached[done:end] = True
                done = end
                yield _Token(tokenize.tok_name[token.type], token.string, begin, end)
            reached[done:] = True
            return
        except (tokenize.TokenError, SyntaxError) as error:
            message = str(error.args[0])
            place = error.args[1] if isinstance(error, tokenize.TokenError) else (error.lineno,)
            if "EOF" in message or "triple-quoted" in message:
                return  # everything before is tokenised, and a string or bracket stays open to the end
            first += max(int(place[0] or 1) - 1, 1)


def _lines(text: str) -> list[str]:
    """Lines as Python counts them; ``str.splitlines`` also splits at form feeds and similar characters."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _path(token: _Token, before: _Token | None, after: _Token | None) -> tuple[str, ...] | None:
    kind, text = token.kind, token.text
    if kind in _LAYOUT:
        return None
    if kind == "COMMENT":
        return ("comment",)
    if kind == "STRING" or kind.startswith(("FSTRING", "TSTRING")):
        return "literal", "string"
    if kind == "NUMBER":
        return "literal", _number(text)
    if kind == "OP":
        return "operator", plain_name(text)
    if kind != "NAME":
        return None
    if keyword.iskeyword(text):
        return "keyword", text
    if before and before.text in ("def", "class"):
        return "name", "definition"
    if before and before.text == ".":
        return "name", "attribute"
    if text in _BUILTINS:
        return "name", "builtin"
    return "name", "call" if after and after.text == "(" else "other"


def _number(text: str) -> str:
    text = text.casefold()
    if text.endswith("j"):
        return "imaginary"
    hexadecimal = text.startswith("0x")
    return "float" if not hexadecimal and any(sign in text for sign in ".e") else "int"
