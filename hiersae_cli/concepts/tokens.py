"""From tokens to the characters that they show as, for any tokenizer.

Several tokens may share a UTF-8 character. On its own, such a token shows its bytes, ``⟨e2 80⟩``, so that no two look
the same; in a text the tokens are joined again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate

MORE_TOKENS = 3  # on each side of a token, that may share a character of at most four bytes with it
_SHOWN_BYTES = re.compile("⟨((?:[89a-f][0-9a-f] ?)+)⟩")  # bytes below 80 are whole characters


def bytes_shown(data: bytes) -> str:
    """``data`` as text; bytes that are only part of a character become ``⟨e2 80⟩``."""
    return _shared_out([data], [0.0])[0]


def is_part(piece: str) -> bool:
    """Whether a token's text, as ``bytes_shown`` writes it, has bytes that are only part of a character."""
    return bool(_SHOWN_BYTES.search(piece))


def joined(pieces: Sequence[str], weights: Sequence[float] | None = None) -> list[str]:
    """The texts of consecutive tokens that, joined, give the text.

    A character that several tokens share goes to the token with the largest weight, or to the last among equals.

    Args:
        pieces: the text of each token on its own, as ``bytes_shown`` writes it.
        weights: of each token; equal by default.
    """
    texts = list(pieces)
    if not is_part("".join(map(str, texts))):  # without a host, tokens are numbers
        return texts
    weights = [0.0] * len(texts) if weights is None else weights
    first = 0
    while first < len(texts):
        last = first
        while last < len(texts) and is_part(str(texts[last])):
            last += 1
        if last > first + 1:
            texts[first:last] = _shared_out([_bytes_of(piece) for piece in texts[first:last]], weights[first:last])
        first = max(last, first + 1)
    return texts


def excerpt(pieces: Sequence[str], before: int, activations: Sequence[float], focus: int) -> list[str]:
    """The texts of a context's tokens, joined; a character that tokens share goes to the strongest of them.

    Args:
        pieces: of the context's tokens, and of at most ``MORE_TOKENS`` before and after them in the text, which only
            complete characters.
        before: the number of pieces before the context.
        activations: of the context's tokens.
        focus: place, in ``activations``, of the token that the context was chosen for.
    """
    after = len(pieces) - before - len(activations)
    weights = [*[-1.0] * before, *activations, *[-1.0] * after]
    weights[before + focus] = math.inf
    return joined(pieces, weights)[before : before + len(activations)]


def _bytes_of(piece: str) -> bytes:
    """The bytes that ``bytes_shown`` turned into ``piece``."""
    parts = _SHOWN_BYTES.split(piece)  # text and bytes in turn
    return b"".join(bytes.fromhex(part) if odd % 2 else part.encode() for odd, part in enumerate(parts))


def _shared_out(parts: Sequence[bytes], weights: Sequence[float]) -> list[str]:
    """The text of each part; a character of several parts goes to the heaviest, or to the last among equals."""
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
    """The number of bytes of a character, from its first byte."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def places(pieces: Sequence[str]) -> list[int]:
    """For each token, the place in the joined text of the character whose label the token gets.

    It is the token's first character that is not white space, so that " the" has the label of the beginning of a word;
    for a token of only white space its first character; for a token that is part of a character, that character. The
    last token of a text may have no character: its place is then past the end.
    """
    starts = [0, *accumulate(map(len, pieces))]
    return [
        start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)
        for start, piece in zip(starts, pieces, strict=False)
    ]
