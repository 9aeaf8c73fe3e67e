"""Contexts of a latent's firings, from the lists of an index.

Legend of shapes: R indexed rows, E contexts, S tokens of a context, n firings of a latent.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any

import numpy as np

from hiersae_cli.browse.model import Context, Decile, Histogram, Passage
from hiersae_cli.concepts.tokens import joined
from hiersae_cli.formats.activations import DROPPED, HELD_OUT
from hiersae_cli.formats.activations.contexts import TextAround, rows_around
from hiersae_cli.formats.index import FiringLists, IndexFile
from hiersae_cli.formats.numbers import rounded

AROUND = 16  # tokens before and after a firing
_CHARACTERS_AROUND = 48  # the same if a token is a character
PART = 2000  # tokens of a document that are shown at once
_SAME = 8  # tokens on each side: contexts that are equal there are one
_BINS = 40
_DECILES = 10

Array = np.ndarray[Any, Any]


class ContextReader:
    """Reads contexts: ``around`` tokens before and after each firing, fewer at the edges of its window."""

    def __init__(self, file: IndexFile, around: int = 0):
        self._file = file
        columns = file.columns
        self.cache_row_R, self.token_R = columns["cache_row"], np.asarray(columns["token"])
        self.document_R, self.position_R = np.asarray(columns["document"]), np.asarray(columns["position"])
        split_R = np.asarray(columns["split"])
        self.held_out_R, self.counted_R = split_R == HELD_OUT, split_R != DROPPED
        self._window_R = np.asarray(self.cache_row_R) - self.position_R  # its first row identifies a window
        texts = file.token_texts.values()
        characters = bool(texts) and max(map(len, texts)) == 1
        self.around = around or (_CHARACTERS_AROUND if characters else AROUND)

    def text(self, token: int) -> str:
        """The text of a token, or its id in brackets."""
        text = self._file.token_texts.get(token)
        return f"[{token}]" if text is None else text

    def _texts(self, tokens: Array) -> list[str]:
        return self._text_V[tokens].tolist()

    @cached_property
    def _text_V(self) -> Array:
        """The text of every token in the rows, by its id."""
        tokens = np.unique(self.token_R)
        texts = np.full(int(tokens.max(initial=0)) + 1, "", object)
        texts[tokens] = [self.text(token) for token in tokens.tolist()]
        return texts

    def whole_text(self, row: int) -> str:
        """The text of the token in a row; if it is part of a character, with the whole character."""
        columns = self.token_R, self.document_R, self.cache_row_R
        return TextAround(np.array([row]), 0, self._texts, *columns).excerpt(0, [0.0], 0)[0]

    def of(self, lists: FiringLists, latent: int, row_E: Array) -> list[Context]:
        """The contexts around ``row_E``, with the activations of a latent at each token."""
        return self.with_activations(*lists.of(latent), row_E)

    def with_activations(self, row_n: Array, value_n: Array, row_E: Array) -> list[Context]:
        """The same, for a latent's firings at ``row_n`` with activations ``value_n``."""
        if not len(row_E):
            return []
        # A window may have rows in two blocks of a cache that are not neighbours.
        row_ES, inside_ES = rows_around(row_E, self.around, self.document_R, self.position_R, self.cache_row_R)
        text = TextAround(row_E, self.around, self._texts, self.token_R, self.document_R, self.cache_row_R)
        activation_ES = np.zeros(row_ES.shape, np.float32)
        if len(row_n):
            place_ES = np.searchsorted(row_n, row_ES).clip(max=len(row_n) - 1)
            activation_ES = np.where(row_n[place_ES] == row_ES, value_n[place_ES], np.float32(0))
        contexts = []
        for number, row in enumerate(row_E.tolist()):
            inside = inside_ES[number]
            focus = int(inside[: self.around].sum())
            activations = [rounded(value) if value else 0.0 for value in activation_ES[number][inside].tolist()]
            contexts.append(
                Context(
                    tokens=text.excerpt(number, activations, focus),
                    activations=activations,
                    focus=focus,
                    document=self._file.documents[self.document_R[row]],
                    position=int(self.position_R[row]),
                    row=int(self.cache_row_R[row]),
                    held_out=bool(self.held_out_R[row]),
                    source=self._source(row),
                )
            )
        return contexts

    def passage(self, number: int, row_n: Array, value_n: Array) -> Passage:
        """A part of a document, with a latent's activations; raises ``KeyError`` if there is no such part.

        ``row_n`` and ``value_n`` are the latent's firings; without any, no token is marked.
        """
        if not 0 <= number < self.passages:
            raise KeyError(number)
        document = int(np.searchsorted(self._passage_D, number, side="right")) - 1
        first, end = self._start_D[document : document + 2].tolist()
        part = number - int(self._passage_D[document])
        parts = int(self._passage_D[document + 1] - self._passage_D[document])
        row_p = self._by_document_R[first + part * PART : min(first + (part + 1) * PART, end)]
        value_p = np.zeros(len(row_p), np.float32)
        if len(row_n):
            place_p = np.searchsorted(row_n, row_p).clip(max=len(row_n) - 1)
            value_p = np.where(row_n[place_p] == row_p, value_n[place_p], value_p)
        pieces, activations = self._texts(self.token_R[row_p]), [rounded(value) for value in value_p.tolist()]
        gaps = np.flatnonzero(np.diff(np.asarray(self.cache_row_R)[row_p]) != 1) + 1
        stretches = []
        for start, stop in itertools.pairwise([0, *gaps.tolist(), len(row_p)]):
            texts = joined(pieces[start:stop], activations[start:stop])
            stretches.append((part * PART + start, texts, activations[start:stop]))
        return Passage(number, self._file.documents[document], part, parts, stretches)

    @property
    def passages(self) -> int:
        """The number of parts of all documents."""
        return int(self._passage_D[-1])

    def _source(self, row: int) -> tuple[int, int]:
        place, document = int(self._place_R[row]), int(self.document_R[row])
        return int(self._passage_D[document]) + place // PART, place

    @cached_property
    def _passage_D(self) -> Array:
        """The number of the first part of each document, and the number of parts."""
        return np.cumsum([0, *-(-np.diff(self._start_D) // PART)])

    @cached_property
    def _by_document_R(self) -> Array:
        """All rows, sorted by document."""
        return np.argsort(self.document_R, kind="stable")

    @cached_property
    def _start_D(self) -> Array:
        """The place in ``_by_document_R`` at which each document begins, and the end."""
        return np.cumsum([0, *np.bincount(self.document_R, minlength=len(self._file.documents))])

    @property
    def begins(self) -> Array:
        """The first row of every document that has rows."""
        return self._by_document_R[self._start_D[:-1][np.diff(self._start_D) > 0]]

    @cached_property
    def _place_R(self) -> Array:
        """The place of each row among the indexed rows of its document."""
        place_R = np.empty(len(self.document_R), np.int64)
        place_R[self._by_document_R] = np.arange(len(place_R))
        return place_R - self._start_D[self.document_R]

    def strongest(self, row_n: Array, value_n: Array, count: int) -> Array:
        """The rows of the ``count`` strongest firings, at most one from a window; the earliest among equals.

        Of windows with the same text around the firing only one is taken.
        """
        tried = 32 * count
        while True:
            among = slice(None) if tried >= len(row_n) else np.argpartition(-value_n, tried)[:tried]
            row, value = row_n[among], value_n[among]
            row = row[np.lexsort((row, -value))]
            _, first = np.unique(self._window_R[row], return_index=True)
            row = row[np.sort(first)]
            row = row[self._first_of_texts(row)]
            if len(row) >= count or tried >= len(row_n):
                return row[:count]
            tried *= 8

    def _first_of_texts(self, row_E: Array) -> Array:
        """The places, ascending, of the rows whose tokens nearby are not those of an earlier row."""
        near_EW = row_E[:, None] + np.arange(-_SAME, _SAME + 1)
        token_EW = self.token_R[near_EW.clip(0, len(self.token_R) - 1)]
        _, first = np.unique(token_EW, axis=0, return_index=True)
        return np.sort(first)

    def deciles(self, row_n: Array, value_n: Array, count: int, seed: tuple[int, int]) -> list[Decile]:
        """The tenths of a latent's firings, the strongest first, with ``count`` random contexts from each."""
        order = np.argsort(-value_n, kind="stable")
        draw = np.random.default_rng(seed)
        parts = [part for part in np.array_split(order, _DECILES) if len(part)]
        drawn = [np.sort(draw.choice(len(part), min(count, len(part)), replace=False)) for part in parts]
        rows = [row_n[part[places]] for part, places in zip(parts, drawn, strict=True)]
        contexts = iter(self.with_activations(row_n, value_n, np.concatenate(rows))) if rows else iter(())
        return [
            Decile(
                low=rounded(value_n[part[-1]]),
                high=rounded(value_n[part[0]]),
                count=len(part),
                contexts=[next(contexts) for _ in row_E],
            )
            for part, row_E in zip(parts, rows, strict=True)
        ]


def histogram(value_n: Array, bins: int = _BINS) -> Histogram:
    """How many activations fall into each of ``bins`` equal bins from 0 to the largest."""
    counts, edges = np.histogram(value_n, bins, (0.0, float(value_n.max())))
    return Histogram([rounded(edge) for edge in edges.tolist()], counts.tolist())
