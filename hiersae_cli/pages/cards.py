"""The contexts of the map's cards, in files of a few features each; the browser loads those that it shows."""

from __future__ import annotations

from collections.abc import Sequence

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import Context
from hiersae_cli.pages.text import one_line

CARDS = 32  # features in a file, the same as in card.js
_CONTEXTS, _TRIED = 6, 12
_CHARACTERS = 44  # before and after the token, at most


def order(parent: Sequence[int], rate: Sequence[float]) -> list[int]:
    """The number of every place in the files: a family's children are together, the largest families come first."""
    children = [0] * len(parent)
    for above in parent:
        if above >= 0:
            children[above] += 1
    places = sorted(
        range(len(parent)),
        key=lambda place: (parent[place] >= 0, not children[place], parent[place], -rate[place], place),
    )
    numbers = [0] * len(parent)
    for number, place in enumerate(places):
        numbers[place] = number
    return numbers


def contexts(index: Index, place: int) -> list[list[str]]:
    """The strongest contexts of a node: the text before its token, the token, and the text after it."""
    parts: list[list[str]] = []
    for context in index.strongest(place, _TRIED):
        if (line := _parts(context)) not in parts:
            parts.append(line)
    return parts[:_CONTEXTS]


def _parts(context: Context) -> list[str]:
    before, focus, after = (
        "".join(context.tokens[part])
        for part in (slice(context.focus), slice(context.focus, context.focus + 1), slice(context.focus + 1, None))
    )
    return [one_line(before)[-_CHARACTERS:], one_line(focus), one_line(after)[:_CHARACTERS]]
