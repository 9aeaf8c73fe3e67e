"""What a latent is called where nobody has labelled it: the tokens that it fires at, with white space that is seen."""

from __future__ import annotations

from collections.abc import Iterable

_NAMED = 3  # tokens
_SIGNS = str.maketrans({"\n": "↵", "\t": "⇥"})


def name_of(tokens: Iterable[str | int]) -> str:
    """A name from a latent's own tokens, the most telling first: ``␣king ␣queen ↵``; "" where there are none."""
    shown = dict.fromkeys(token_shown(token).translate(_SIGNS) for token in tokens)
    return " ".join(list(shown)[:_NAMED])


def token_shown(token: str | int) -> str:
    """A token by itself, the spaces at its ends as ``␣``; one without a text as its number, ``[17]``."""
    if isinstance(token, int):
        return f"[{token}]"
    return token.replace(" ", "␣") if token.strip(" ") != token else token
