"""How long raters take, estimated before the first answer from the texts that they read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hiersae_cli.formats.study import Item
from hiersae_cli.study.protocol import LABEL

# Silent reading of English non-fiction: 238 words a minute (Brysbaert, 2019, Journal of Memory and Language 109).
_WORDS_PER_SECOND = 238 / 60
_CHARACTERS_PER_WORD = 6.0  # with the space
# Assumptions: raters read what is near the marks, half of a text; they need some seconds to decide, and more to write.
_SHARE_READ, _DECIDING, _WRITING = 0.5, 5.0, 15.0
_INTRODUCTION = 180.0  # seconds for the first page and the practice

BREAK_EVERY = 20  # questions
LONG = 30.0  # minutes, beyond which raters tire


def seconds(item: Item) -> float:
    """The time of one question."""
    excerpts = [excerpt for group in [*item.shown, *item.options] for excerpt in group]
    characters = sum(len(token) for excerpt in excerpts for token in excerpt["tokens"])
    reading = _SHARE_READ * characters / _CHARACTERS_PER_WORD / _WORDS_PER_SECOND
    return reading + (_WRITING if item.task == LABEL else _DECIDING)


def minutes(items: Sequence[Item]) -> int:
    """The time of a session, with the introduction; rounded up."""
    return math.ceil((_INTRODUCTION + sum(map(seconds, items))) / 60)
