"""Levels of a dictionary and the ids of its latents.

An id is a letter for the level and the latent's number within it: ``a`` is the first, coarsest level, and ``b480`` is
latent 480 of the second. No spreadsheet mistakes such an id for a number or a date. Older releases wrote
``LEVEL.LATENT``, such as ``1.480``; those ids are still read.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from string import ascii_lowercase

MOST_LEVELS = len(ascii_lowercase)
NO_PARENT = -1  # in place of a parent's number

_ID = re.compile(r"([a-z])(0|[1-9][0-9]*)")
_OLD_ID = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")


def latent_id(level: int, latent: int) -> str:
    """``b480`` for latent 480 of level 1; raises ``IndexError`` for level 26 or more."""
    return f"{ascii_lowercase[level]}{latent}"


def parse_id(id: str) -> tuple[int, int]:
    """Level and number of an id in the current or the old form; raises ``ValueError`` if it is neither."""
    if match := _ID.fullmatch(id):
        return ascii_lowercase.index(match[1]), int(match[2])
    if (match := _OLD_ID.fullmatch(id)) and int(match[1]) < MOST_LEVELS:
        return int(match[1]), int(match[2])
    raise ValueError(f"{id!r} is not the id of a latent, such as b480")


def current_id(id: str) -> str:
    """An id of the old form in the current form; any other text unchanged."""
    try:
        return latent_id(*parse_id(id))
    except ValueError:
        return id


@dataclass(frozen=True)
class Levels:
    """The levels of a dictionary, whose latents are numbered through all levels from the coarsest.

    Attributes:
        widths: latents of each level, the coarsest first.
    """

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.widths) > MOST_LEVELS:
            raise ValueError(f"{len(self.widths)} levels, but at most {MOST_LEVELS} are possible")

    @classmethod
    def of(cls, widths: Sequence[int]) -> Levels:
        """The levels of a list of widths."""
        return cls(tuple(widths))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first latent of each level, then the number of all latents."""
        return tuple(accumulate(self.widths, initial=0))

    @property
    def latents(self) -> int:
        """The number of latents in all levels."""
        return self.starts[-1]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The latents of each level."""
        return tuple(map(slice, self.starts[:-1], self.starts[1:]))

    @cached_property
    def level_F(self) -> list[int]:
        """The level of each latent, 0 for the coarsest."""
        return [level for level, width in enumerate(self.widths) for _ in range(width)]

    @cached_property
    def ids(self) -> list[str]:
        """The id of each latent."""
        return [latent_id(level, latent) for level, width in enumerate(self.widths) for latent in range(width)]

    def misplaced(self, parent_F: Sequence[int]) -> int | None:
        """The first latent whose parent is neither ``NO_PARENT`` nor a latent one level up; None if there is none."""
        above = range(0)
        for level in self.slices:
            for latent in range(level.start, level.stop):
                if parent_F[latent] != NO_PARENT and parent_F[latent] not in above:
                    return latent
            above = range(level.start, level.stop)
        return None

    def parent_id(self, parent: int) -> str | None:
        """The id of a latent's parent; None for ``NO_PARENT``."""
        return None if parent == NO_PARENT else self.ids[parent]

    def place(self, latent: int) -> tuple[int, int]:
        """A latent's level and its number within the level."""
        level = bisect_right(self.starts, latent) - 1
        return level, latent - self.starts[level]

    def latent(self, id: str) -> int:
        """The latent with an id in the current or the old form; raises ``KeyError`` if there is none."""
        try:
            level, number = parse_id(id)
            if number < self.widths[level]:
                return self.starts[level] + number
        except (ValueError, IndexError):
            pass
        raise KeyError(id)

    def __contains__(self, id: str) -> bool:
        try:
            self.latent(id)
        except KeyError:
            return False
        return True

    def __str__(self) -> str:
        """All ids: ``a0 to a15, b0 to b111``."""
        return ", ".join(f"{latent_id(level, 0)} to {latent_id(level, n - 1)}" for level, n in enumerate(self.widths))
