"""From tokens to the characters that stand for them, whatever the tokenizer.

A character of UTF-8 may lie in several tokens. Alone, such a token is shown by its bytes, ``⟨e2 80⟩``, so that no two
look alike; in a text the tokens are joined again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate

MORE_TOKENS = 3  # before and after a token that may share a character with it: one has at most four bytes
_SHOWN_BYTES = re.compile("⟨((?:[89a-f][0-9a-f] ?)+)⟩")  # bytes below 80 are characters


def bytes_shown(data: bytes) -> str:
    """``data`` as text; bytes that are only a part of a character are shown as ``⟨e2 80⟩``."""
    return _shared_out([data], [0.0])[0]


def joined(pieces: Sequence[str], weights: Sequence[float] | None = None) -> list[str]:
    """The texts of consecutive tokens, such that together they are the text.

    Of a character that several tokens share, the one of the greatest weight has all and the others have nothing; of
    equal ones the last.

    Args:
        pieces: the text of each token by itself, as ``bytes_shown`` writes it.
        weights: of each token; without any all are equal.
    """
    texts = list(pieces)
    weights = [0.0] * len(texts) if weights is None else weights
    first = 0
    while first < len(texts):
        last = first
        while last < len(texts) and _SHOWN_BYTES.search(str(texts[last])):  # without a host, tokens are numbers
            last += 1
        if last > first + 1:
            texts[first:last] = _shared_out([_bytes_of(piece) for piece in texts[first:last]], weights[first:last])
        first = max(last, first + 1)
    return texts


def excerpt(pieces: Sequence[str], activations: Sequence[float], focus: int, inside: Sequence[bool]) -> list[str]:
    """The texts of the tokens of a context, joined; of a character of several tokens the strongest has the text.

    Args:
        pieces: of the tokens that ``inside`` marks.
        activations: of these but for what only completes characters.
        focus: the place of the context's own token among the activations.
        inside: whether there is a token, for each place; the first and the last ``MORE_TOKENS`` places only complete
            characters.
    """
    before, after = sum(inside[:MORE_TOKENS]), sum(inside[-MORE_TOKENS:])
    weights = [*[-1.0] * before, *activations, *[-1.0] * after]
    weights[before + focus] = math.inf
    whole = joined(pieces, weights)
    return whole[before : len(whole) - after]


def _bytes_of(piece: str) -> bytes:
    """What ``bytes_shown`` was given."""
    parts = _SHOWN_BYTES.split(piece)  # text and bytes by turns
    return b"".join(bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts))


def _shared_out(parts: Sequence[bytes], weights: Sequence[float]) -> list[str]:
    """The text of each part; a character of several parts goes to the heaviest of them, the last of equal ones."""
    data = b"".join(parts)
    owner = [number for number, part in enumerate(parts) for _ in part]
    texts = [""] * len(parts)
    at = 0
    while at < len(data):
        size = _size(data[at])
        among = owner[at : at + size]
        try:
            text = data[at : at + size].decode()
            holder = max(reversed(among), key=weights.__getitem__)
        except UnicodeDecodeError:
            size, holder = 1, owner[at]
            text = f"⟨{data[at]:02x}⟩"
            if texts[holder].endswith("⟩") and _SHOWN_BYTES.match(texts[holder][texts[holder].rindex("⟨") :]):
                texts[holder], text = texts[holder][:-1], f" {data[at]:02x}⟩"
        texts[holder] += text
        at += size
    return texts


def _size(first: int) -> int:
    """How many bytes a character has, by its first."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


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
