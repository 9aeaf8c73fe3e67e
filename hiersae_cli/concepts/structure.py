"""Concepts: labels that form trees, in families of labels that exclude each other.

Legend of shapes: N rows or characters, C concepts, G families.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

UNKNOWN = -1  # label of a row of which a family says nothing: it counts neither for nor against its concepts
OUTSIDE = -2  # label of a row that is known to belong to no concept of a family

LEAST_ROWS = 50  # rows that a concept must have, and lack, on which probes are fitted
LEAST_HELD_OUT = 20  # the same of the rows on which they are scored
MOST_OF_PARENT = 0.9  # share of its parent's rows from which on a child is its parent by another name
MOST_CONCEPTS = 48


@dataclass(frozen=True)
class Passage:
    """A piece of text in one go.

    Attributes:
        name: of the source that it is from.
        text: the characters.
        anchors: ascending places in ``text``, the first 0, each with the character of the source that stands there (-1
            where that is unknown). Between two anchors text and source run on alike.
    """

    name: str
    text: str
    anchors: Sequence[tuple[int, int]] = ((0, 0),)


class Vocabulary:
    """Concepts, numbered in the order in which they are met, a concept always after its parent.

    Attributes:
        families: names.
        paths: of each concept, from the coarsest on: ``("letter", "e")``.
        family, parent: of each concept; parent -1 for none.
    """

    def __init__(self, families: Sequence[str]):
        self.families = list(families)
        self.paths: list[tuple[str, ...]] = []
        self.family: list[int] = []
        self.parent: list[int] = []
        self._numbers: dict[tuple[int, tuple[str, ...]], int] = {}

    def number(self, family: int, *path: str) -> int:
        """The number of a concept, entered with the concepts above it where it is new."""
        key = family, path
        if key not in self._numbers:
            parent = self.number(family, *path[:-1]) if len(path) > 1 else -1
            self._numbers[key] = len(self.paths)
            self.paths.append(path)
            self.family.append(family)
            self.parent.append(parent)
        return self._numbers[key]


@dataclass(frozen=True)
class Concepts:
    """Concepts with the label of every row in every family.

    Attributes:
        families: names.
        names: of the concepts, ``letter/e``; unique within a family.
        family_C, parent_C: number of each concept's family and parent; parent -1 for none.
        labels_GN: the finest concept that a row belongs to, ``OUTSIDE`` or ``UNKNOWN``. A row belongs to all concepts
            above its label too.
    """

    families: list[str]
    names: list[str]
    family_C: Array
    parent_C: Array
    labels_GN: Array
    level_C: Array = field(init=False)

    def __post_init__(self) -> None:
        level_C = np.zeros(len(self.names), np.int64)
        for concept, parent in enumerate(self.parent_C):
            level_C[concept] = level_C[parent] + 1 if parent >= 0 else 0
        object.__setattr__(self, "level_C", level_C)

    @classmethod
    def of(cls, vocabulary: Vocabulary, labels_GN: Array) -> Concepts:
        """The concepts of a vocabulary, with the labels of rows."""
        return cls(
            vocabulary.families,
            ["/".join(path) for path in vocabulary.paths],
            np.array(vocabulary.family, np.int64),
            np.array(vocabulary.parent, np.int64),
            labels_GN,
        )

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, which: Any) -> Concepts:
        """The same concepts over some of the rows: indices, a mask or a slice."""
        return replace(self, labels_GN=self.labels_GN[:, which])

    def members(self) -> Array:
        """Which rows belong to each concept, (N, C) bool."""
        within_CC = np.eye(len(self) + 2, dtype=bool)  # the last two rows are those of UNKNOWN and OUTSIDE
        within_CC[len(self) :] = False
        for concept, parent in enumerate(self.parent_C):  # parents come first
            if parent >= 0:
                within_CC[concept] |= within_CC[parent]
        found = np.zeros((self.labels_GN.shape[1], len(self)), bool)
        for family, label_N in enumerate(self.labels_GN):
            of_family = np.flatnonzero(self.family_C == family)
            found[:, of_family] = within_CC[label_N][:, of_family]
        return found

    def known(self) -> Array:
        """Of which rows each concept's family says something, (N, C) bool."""
        known: Array = (self.labels_GN != UNKNOWN)[self.family_C].T
        return known

    def only(self, kept: Array) -> Concepts:
        """Some of the concepts, by their numbers, each after its parent.

        Other labels become the nearest concept kept above them, or ``OUTSIDE``.
        """
        number_C = np.full(len(self) + 2, OUTSIDE)
        number_C[kept] = np.arange(len(kept))
        for concept, parent in enumerate(self.parent_C):
            if number_C[concept] == OUTSIDE and parent >= 0:
                number_C[concept] = number_C[parent]
        number_C[UNKNOWN] = UNKNOWN
        parent_C = self.parent_C[kept]
        return Concepts(
            self.families,
            [self.names[concept] for concept in kept],
            self.family_C[kept],
            np.where(parent_C >= 0, number_C[parent_C], -1),
            number_C[self.labels_GN],
        )


def choose(fit: Concepts, held_out: Concepts, most: int = MOST_CONCEPTS) -> Array:
    """The concepts that can be measured, ``most`` at most, each after its parent and before its siblings.

    A concept needs ``LEAST_ROWS`` rows for and against it among those that probes are fitted on, ``LEAST_HELD_OUT``
    among those that they are scored on, and a parent, if any, that can be measured and is not the same by another
    name (``MOST_OF_PARENT``). Where there are more, families are taken in turn, the most frequent of each first.

    Args:
        fit, held_out: the same concepts over the two kinds of rows.
    """
    usable_C = np.ones(len(fit), bool)
    for concepts, least in ((fit, LEAST_ROWS), (held_out, LEAST_HELD_OUT)):
        count_C = concepts.members().sum(0)
        usable_C &= (count_C >= least) & (concepts.known().sum(0) - count_C >= least)
    count_C = fit.members().sum(0)
    for concept, parent in enumerate(fit.parent_C):
        if parent >= 0:
            usable_C[concept] &= usable_C[parent] and count_C[concept] <= MOST_OF_PARENT * count_C[parent]
    order = np.argsort(-count_C, kind="stable")  # a parent comes before its children
    ranked = [[c for c in order if usable_C[c] and fit.family_C[c] == family] for family in range(len(fit.families))]
    taken = [of_family[rank] for rank in range(len(fit)) for of_family in ranked if rank < len(of_family)]

    def place(concept: int) -> tuple[int, ...]:
        parent = int(fit.parent_C[concept])
        return (*place(parent), concept) if parent >= 0 else (int(fit.family_C[concept]), concept)

    return np.array(sorted(taken[:most], key=place), np.int64)
