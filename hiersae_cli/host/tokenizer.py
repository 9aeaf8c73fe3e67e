"""The host's tokenizer: the text of each token, and a fingerprint that tells tokenizers apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from hiersae_cli.concepts.tokens import bytes_shown

_INCOMPLETE = "\ufffd"  # decoding returns it for bytes that are only part of a character
# Words, numbers, white space, marks, several scripts, a program: tokenizers with equal vocabularies may split these
# differently.
_PROBE = (
    "The quick brown foxes can't jump over 13,107 lazy dogs; didn't they?  Yes!\n\n\tdef f(x_1: int) -> str:\n"
    '        return f"{x_1:>8}" # naïve café, Übergröße, Привет мир, 你好世界, עברית, 🙂👍🏽\r\nhttps://a.b/c?d=e&f=0x1F'
)
_PROBED_TOKENS = 2048  # of the vocabulary


def fingerprint(tokenizer: Any) -> str:
    """The sha256 of the vocabulary, and of how a fixed text and the texts of tokens are split and joined.

    It depends on what the tokenizer does: a file saved again by another version has the same fingerprint.
    """
    size = len(tokenizer)
    probes = [_PROBE, *(decoded(tokenizer, [token]) for token in range(0, size, -(-size // _PROBED_TOKENS)))]
    cut = tokenizer(probes, add_special_tokens=False, verbose=False)["input_ids"]
    behaviour = [sorted(tokenizer.get_vocab().items()), cut, decoded(tokenizer, cut[0])]
    return hashlib.sha256(json.dumps(behaviour).encode()).hexdigest()


def decoded(tokenizer: Any, tokens: list[int]) -> str:
    """The text of several tokens, without clean-up."""
    return str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))


def token_text(tokenizer: Any, token: int) -> str:
    """The text of a single token, including the space before a word; for part of a character, its bytes."""
    text = decoded(tokenizer, [token])
    piece = tokenizer.convert_ids_to_tokens(token)
    if _INCOMPLETE in text and piece != text:
        data = _bytes_of(piece)
        # These are the right bytes if they decode to the tokenizer's text.
        return bytes_shown(data) if data.decode("utf-8", "replace") == text else f"⟨{piece}⟩"
    # SentencePiece drops the space of a text's first word, and a single token is always first.
    return f" {text}" if str(piece).startswith("▁") and not text.startswith(" ") else text


def texts_of(tokenizer: Any) -> Callable[[np.ndarray], list[str]]:
    """A function from token ids to the text of each single token; it looks up each token once."""
    known = dict[int, str]()

    def texts(tokens: np.ndarray) -> list[str]:
        for token in tokens.tolist():
            if token not in known:
                known[token] = token_text(tokenizer, token)
        return [known[token] for token in tokens.tolist()]

    return texts


def _bytes_of(piece: Any) -> bytes:
    """The bytes of a piece of a vocabulary, written as bytes, as ``<0xE2>`` or in GPT-2's alphabet of bytes."""
    if isinstance(piece, bytes):
        return piece
    if match := re.fullmatch("<0x([0-9A-F]{2})>", piece):
        return bytes.fromhex(match[1])
    return bytes(_BYTES[character] for character in piece if character in _BYTES)


def _byte_alphabet() -> dict[str, int]:
    """The bytes by the characters that byte-level vocabularies write for them.

    Source: ``bytes_to_unicode`` of GPT-2 (Radford et al., 2019): visible characters are written as themselves, the
    other bytes as the characters from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()
