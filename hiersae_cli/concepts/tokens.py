"""From tokens to the characters that stand for them, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

_INCOMPLETE = "\ufffd"  # what decoding makes of bytes that are only a part of a character
_LONGEST = 8  # tokens of one character at most: UTF-8 has four bytes


def whole_pieces(tokens: Sequence[int], pieces: Sequence[str], decode: Callable[[list[int]], str]) -> list[str]:
    """The text of each token, such that together they are the text: of a character that several tokens share, the last
    has all and those before it nothing.

    Args:
        tokens: their numbers.
        pieces: the text of each by itself.
        decode: the text of several together.
    """
    found = list(pieces)
    first = 0
    while first < len(tokens):
        if _INCOMPLETE not in pieces[first]:
            first += 1
            continue
        for last in range(first + 1, min(first + _LONGEST, len(tokens)) + 1):
            text = decode(list(tokens[first:last]))
            if not text.endswith(_INCOMPLETE):
                found[first:last] = [""] * (last - first - 1) + [text]
                first = last
                break
        else:
            first += 1
    return found


def places(pieces: Sequence[str]) -> list[int]:
    """Where in the joined text the character stands whose label a token has.

    It is the token's first character that is no white space, so that " the" is labelled as the beginning of a word; of
    a token of white space alone its first one; of a token that is only a part of a character that character. A text's
    last token may have none: its place is then past the end.
    """
    starts = [0, *accumulate(map(len, pieces))]
    return [
        start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)
        for start, piece in zip(starts, pieces, strict=False)
    ]
