"""Concepts: labels that form trees, in families whose labels exclude each other.

Legend of shapes: N rows or characters, C concepts, G families.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

UNKNOWN = -1  # label of a row about which a family says nothing: it counts neither for nor against a concept
OUTSIDE = -2  # label of a row that is known to belong to no concept of a family

LEAST_ROWS = 50  # number of rows with and without a concept that fitting its probe needs
LEAST_HELD_OUT = 20  # the same for the rows that score its probe
MOST_OF_PARENT = 0.8  # a child with more than this share of its parent's rows is the same concept by another name
MOST_CONCEPTS = 48


@dataclass(frozen=True)
class Passage:
    """A continuous piece of text.

    Attributes:
        name: of its source.
        text: the characters.
        anchors: ascending places in ``text``, the first is 0, each with its place in the source (-1 if unknown).
            Between two anchors, text and source are the same.
        tokens: the places of the characters whose labels the tokens get, ascending.
    """

    name: str
    text: str
    anchors: Sequence[tuple[int, int]] = ((0, 0),)
    tokens: Sequence[int] = ()


class Vocabulary:
    """Concepts, numbered in the order of their first use, each after its parent.

    Attributes:
        families: their names.
        paths: of each concept, from the coarsest: ``("letter", "e")``.
        family, parent: of each concept; parent -1 for none.
    """

    def __init__(self, families: Sequence[str]):
        self.families = list(families)
        self.paths: list[tuple[str, ...]] = []
        self.family: list[int] = []
        self.parent: list[int] = []
        self._numbers: dict[tuple[int, tuple[str, ...]], int] = {}

    def number(self, family: int, *path: str) -> int:
        """The number of a concept; a new concept is added with the concepts above it."""
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
        families: their names.
        names: of the concepts, ``letter/e``; unique within a family.
        family_C, parent_C: number of each concept's family and parent; parent -1 for none.
        labels_GN: the finest concept of a row, ``OUTSIDE`` or ``UNKNOWN``. A row also belongs to all concepts above its
            label.
        level_C: number of concepts above each.
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
        within_CC = np.eye(len(self) + 2, dtype=bool)  # the last two rows are for UNKNOWN and OUTSIDE
        within_CC[len(self) :] = False
        for concept, parent in enumerate(self.parent_C):  # parents come first
            if parent >= 0:
                within_CC[concept] |= within_CC[parent]
        member_NC = np.zeros((self.labels_GN.shape[1], len(self)), bool)
        for family, label_N in enumerate(self.labels_GN):
            concepts = np.flatnonzero(self.family_C == family)
            member_NC[:, concepts] = within_CC[label_N][:, concepts]
        return member_NC

    def counts(self) -> Array:
        """Number of rows of each concept, (C,)."""
        labels = self.labels_GN[self.labels_GN >= 0]
        count_C = np.bincount(labels, minlength=len(self))
        for concept in reversed(range(len(self))):  # children come after their parents
            if self.parent_C[concept] >= 0:
                count_C[self.parent_C[concept]] += count_C[concept]
        return count_C

    def known(self) -> Array:
        """Whether each concept's family says something about a row, (N, C) bool."""
        known: Array = (self.labels_GN != UNKNOWN)[self.family_C].T
        return known

    def only(self, chosen: Array) -> Concepts:
        """Some of the concepts, by their numbers, each after its parent.

        Other labels become the nearest chosen concept above them, or ``OUTSIDE``.
        """
        number_C = np.full(len(self) + 2, OUTSIDE)
        number_C[chosen] = np.arange(len(chosen))
        for concept, parent in enumerate(self.parent_C):
            if number_C[concept] == OUTSIDE and parent >= 0:
                number_C[concept] = number_C[parent]
        number_C[UNKNOWN] = UNKNOWN
        parent_C = self.parent_C[chosen]
        return Concepts(
            self.families,
            [self.names[concept] for concept in chosen],
            self.family_C[chosen],
            np.where(parent_C >= 0, number_C[parent_C], -1),
            number_C[self.labels_GN],
        )


def choose(fit: Concepts, held_out: Concepts, most: int = MOST_CONCEPTS) -> Array:
    """The concepts that can be measured, at most ``most``, depth first, so each after its parent.

    A concept needs ``LEAST_ROWS`` rows with it and as many without it to fit probes on, ``LEAST_HELD_OUT`` to score
    them on. If it has nearly all rows of the nearest usable concept above it, it is the same concept by another name
    (``MOST_OF_PARENT``), and its children belong to that concept. If there are more concepts, families take turns, each
    with its most frequent concept first.

    Args:
        fit, held_out: the same concepts over the two kinds of rows.
    """
    usable_C = np.ones(len(fit), bool)
    for concepts, least in ((fit, LEAST_ROWS), (held_out, LEAST_HELD_OUT)):
        count_C, known_G = concepts.counts(), (concepts.labels_GN != UNKNOWN).sum(1)
        usable_C &= (count_C >= least) & (known_G[concepts.family_C] - count_C >= least)
    count_C, above_C = fit.counts(), fit.parent_C.copy()  # above: the nearest usable concept
    for concept in range(len(fit)):
        above = above_C[concept]
        if above >= 0 and not usable_C[above]:
            above = above_C[concept] = above_C[above]
        if above >= 0:
            usable_C[concept] &= count_C[concept] <= MOST_OF_PARENT * count_C[above]
    order = np.argsort(-count_C, kind="stable")  # a parent comes before its children
    ranked = [[c for c in order if usable_C[c] and fit.family_C[c] == family] for family in range(len(fit.families))]
    in_turns = [family[rank] for rank in range(len(fit)) for family in ranked if rank < len(family)]

    def place(concept: int) -> tuple[int, ...]:
        parent = int(fit.parent_C[concept])
        return (*place(parent), concept) if parent >= 0 else (int(fit.family_C[concept]), concept)

    return np.array(sorted(in_turns[:most], key=place), np.int64)
