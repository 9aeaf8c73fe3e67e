"""Search: by the label of a feature, and by the text at which it fires.

Legend of shapes: R indexed rows, F latents, C latents that fire, m occurrences searched, k their rows.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from hiersae_cli.browse.dictionary import IndexedDictionary
from hiersae_cli.browse.nodes import Nodes
from hiersae_cli.browse.tree_model import SearchHit, TokenSearch
from hiersae_cli.concepts.tokens import is_part, joined
from hiersae_cli.formats.numbers import rounded
from hiersae_cli.levels import current_id

_BORDER = "\0"  # between documents: no match crosses it
_SEARCHED_ROWS = 10_000  # at most, among those where a text occurs
_LEAST_OCCURRENCES = 3  # of a token in the table for searching without a server
_TABLE_ROWS = 4096  # at most, of each token in that table

Array = np.ndarray[Any, Any]


class Search:
    """Finds features of a dictionary."""

    def __init__(self, nodes: Nodes, dictionary: IndexedDictionary):
        self._nodes, self._dictionary, self._contexts = nodes, dictionary, dictionary.contexts

    def label(self, query: str, most: int) -> list[SearchHit]:
        """Features whose label, id or characteristic tokens contain every word of the query; labels come first."""
        words = query.lower().split()
        named = list(map(current_id, words))
        if not words:
            return []
        labels = self._nodes.labels()
        hits = []
        for latent, (id, hint) in enumerate(zip(self._nodes.ids, self._nodes.hints, strict=True)):
            label = labels[id].text.lower() if id in labels else ""
            if all(word in label for word in words):
                hits.append((0.5 + 0.5 * len(query) / max(len(label), len(query)), latent))
            elif [id] == named:
                hits.append((1.0, latent))
            elif all(word in f"{label} {hint.lower()}" for word in words):
                hits.append((0.4, latent))
        hits.sort(key=lambda hit: (-hit[0], hit[1]))
        return [SearchHit(self._nodes.neighbour(latent), rounded(score)) for score, latent in hits[:most]]

    def token(self, query: str, most: int) -> TokenSearch:
        """Features that fire at a text: at tokens equal to it, else wherever it occurs.

        White space at the ends of tokens counts only if the query has some, and if there is such a token.
        """
        if not query.strip():
            return TokenSearch(query, 0, [])
        exact = [token for token, text in self._texts.items() if text == query != query.strip()]
        exact = exact or [token for token, text in self._texts.items() if text.strip() == query.strip()]
        if exact:
            first_m = np.flatnonzero(np.isin(self._contexts.token_R, exact))
            last_m = first_m
        else:
            first_m, last_m = self._places(query)
        occurrences = len(first_m)
        if not occurrences:
            return TokenSearch(query, 0, [])
        span = int((last_m - first_m).max()) + 1
        step = max(1, -(-occurrences * span // _SEARCHED_ROWS))
        hits = self._detectors(first_m[::step], last_m[::step], step)
        return TokenSearch(query, occurrences, hits[:most])

    def table(self, most: int = 12) -> dict[str, TokenSearch]:
        """The answer to a search for every token and character that is not too rare, with its best hits."""
        token_R = self._contexts.token_R
        order = np.argsort(token_R, kind="stable")
        tokens, start, counts = np.unique(token_R[order], return_index=True, return_counts=True)
        rows_of: dict[str, list[Array]] = {}  # by text, and by text without the white space at its ends
        for token, first, count in zip(tokens.tolist(), start.tolist(), counts.tolist(), strict=True):
            text = self._contexts.text(token)
            for key in {text, text.strip()}:
                rows_of.setdefault(key, []).append(order[first : first + count])
        answers: dict[str, TokenSearch] = {}
        for text, parts in rows_of.items():
            rows = np.sort(np.concatenate(parts))
            if text and len(rows) >= _LEAST_OCCURRENCES:
                answers[text] = self._answer(text, rows, rows, most)
        for text, places in self._characters().items():
            if len(places) >= _LEAST_OCCURRENCES:
                first_m, last_m = np.array(places).T
                answers.setdefault(text, self._answer(text, first_m, last_m, most))
        return answers

    def _answer(self, text: str, first_m: Array, last_m: Array, most: int) -> TokenSearch:
        """The nodes that best detect a text with these first and last rows, the best first."""
        step = max(1, -(-len(first_m) // _TABLE_ROWS))
        return TokenSearch(text, len(first_m), self._detectors(first_m[::step], last_m[::step], step)[:most])

    def _characters(self) -> dict[str, list[tuple[int, int]]]:
        """The first and last row of every character that spans several tokens: the last of them has its text."""
        places: dict[str, list[tuple[int, int]]] = {}
        if not any(map(is_part, self._texts.values())):
            return places
        first = 0
        for row, text in enumerate(self._text_R):
            if text:
                if first < row:
                    places.setdefault(text, []).append((first, row))
                first = row + 1
        return places

    def _detectors(self, first_m: Array, last_m: Array, step: int) -> list[SearchHit]:
        columns = self._scores(first_m, last_m, step)
        order = np.lexsort((columns[0], -columns[1]))
        latent_C, score_C, recall_C, precision_C = (column[order].tolist() for column in columns)
        return [
            SearchHit(self._nodes.neighbour(latent), rounded(score), rounded(recall), rounded(precision))
            for latent, score, recall, precision in zip(latent_C[:200], score_C, recall_C, precision_C, strict=False)
        ]

    def _scores(self, first_m: Array, last_m: Array, step: int) -> tuple[Array, Array, Array, Array]:
        """Latents that fire at occurrences of a text, with F1, recall (of occurrences) and precision (of firings).

        ``first_m`` and ``last_m`` are the first and last rows of every ``step``-th occurrence.
        """
        lists = self._dictionary.lists
        length_m = last_m - first_m + 1
        row_k = np.repeat(first_m - (np.cumsum(length_m) - length_m), length_m) + np.arange(int(length_m.sum()))
        occurrence_k = np.repeat(np.arange(len(first_m)), length_m)
        place_n, latent_n = lists.at(row_k)
        inside_F = np.bincount(latent_n, minlength=lists.latents)
        hit_F = inside_F
        if len(row_k) > len(first_m):
            pairs = np.unique(occurrence_k[place_n] * lists.latents + latent_n)
            hit_F = np.bincount(pairs % lists.latents, minlength=lists.latents)
        latent_C = np.flatnonzero(inside_F)
        recall_C = hit_F[latent_C] / len(first_m)
        precision_C = np.minimum(inside_F[latent_C] * step / lists.fired_F[latent_C], 1.0)
        return latent_C, 2 * recall_C * precision_C / (recall_C + precision_C), recall_C, precision_C

    @cached_property
    def _texts(self) -> dict[int, str]:
        return {token: self._contexts.text(token) for token in np.unique(self._contexts.token_R).tolist()}

    @cached_property
    def _text_R(self) -> list[str]:
        """The text of each row's token, joined."""
        return joined([self._texts[token] for token in self._contexts.token_R.tolist()])

    @cached_property
    def _text(self) -> tuple[str, Array]:
        """The text of all rows, and the character at which each row's token begins."""
        document_R = self._contexts.document_R
        begins_R = np.append(False, document_R[1:] != document_R[:-1])
        texts = list(self._text_R)
        for row in np.flatnonzero(begins_R).tolist():
            texts[row] = _BORDER + texts[row]
        start_R = np.cumsum([0, *map(len, texts)])[:-1]
        return "".join(texts), start_R + begins_R

    def _places(self, query: str) -> tuple[Array, Array]:
        """First and last row of every occurrence of a text."""
        text, start_R = self._text
        starts, at = [], text.find(query)
        while at >= 0:
            starts.append(at)
            at = text.find(query, at + len(query))
        first_m = np.searchsorted(start_R, starts, side="right") - 1
        # Tokens before it that begin its first character have no text, so they start at the same place.
        first_m = np.searchsorted(start_R, start_R[first_m], side="left")
        last_m = np.searchsorted(start_R, np.array(starts, np.int64) + len(query) - 1, side="right") - 1
        return first_m, last_m
