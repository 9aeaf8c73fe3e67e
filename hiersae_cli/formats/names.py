"""The name of a latent without a label: the tokens that it fires at, with visible white space."""

from __future__ import annotations

from collections.abc import Iterable

_NAMED = 3  # tokens
_SIGNS = str.maketrans({"\n": "↵", "\t": "⇥"})


def name_of(tokens: Iterable[str | int]) -> str:
    """A name from a latent's own tokens, the most typical first: ``␣king ␣queen ↵``; "" if there are none."""
    names = dict.fromkeys(token_shown(token).translate(_SIGNS) for token in tokens)
    return " ".join(list(names)[:_NAMED])


def token_shown(token: str | int) -> str:
    """A token by itself, the spaces at its ends as ``␣``; one without a text as its number, ``[17]``."""
    if isinstance(token, int):
        return f"[{token}]"
    return token.replace(" ", "␣") if token.strip(" ") != token else token
