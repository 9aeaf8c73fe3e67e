"""What fires on a text: one that was typed, or a passage of the indexed rows.

Legend of shapes: R indexed rows, F latents, P documents, S tokens of a passage, n firings.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from hiersae_cli.browse.dictionary import IndexedDictionary
from hiersae_cli.browse.nodes import Nodes
from hiersae_cli.browse.tree_model import TextCodes
from hiersae_cli.concepts.tokens import joined
from hiersae_cli.formats.numbers import rounded
from hiersae_cli.metrics.firings import NONE

_LENGTH = 48  # tokens of an example, at most
_LEAST = 16  # its tokens, at least, unless the document is shorter
_TRIED = 100  # documents of which the most telling is the example

Array = np.ndarray[Any, Any]


class TextView:
    """What fires on a text, token by token."""

    def __init__(self, nodes: Nodes, dictionary: IndexedDictionary):
        self._nodes, self._dictionary, self._contexts = nodes, dictionary, dictionary.contexts

    def codes(self, tokens: list[str], firings: list[list[tuple[int, float]]], cut: int = 0) -> TextCodes:
        """The (latent, activation) pairs that fire at each token, with what a page says about their nodes."""
        ids, level_F = self._nodes.ids, self._nodes.levels.level_F
        total: dict[int, float] = {}
        for latent, value in (firing for of_token in firings for firing in of_token):
            total[latent] = total.get(latent, 0.0) + value
        for latent in list(total):
            for above in self._nodes.ancestors(latent):
                total.setdefault(above, 0.0)
        active = [sorted(of_token, key=lambda firing: (level_F[firing[0]], -firing[1])) for of_token in firings]
        order = sorted(total, key=lambda latent: (-total[latent], latent))
        return TextCodes(
            tokens=tokens,
            active=[[(ids[latent], rounded(value)) for latent, value in of_token] for of_token in active],
            nodes={ids[latent]: self._nodes.neighbour(latent) for latent in order},
            cut=cut,
            most={ids[latent]: rounded(self._most_F[latent]) for latent in order},
            unmeasured=min(self._unmeasured, len(tokens)),
        )

    @cached_property
    def example(self) -> TextCodes:
        """The beginning of a document, held out if there are any, in which the rarest children fire with parents."""
        contexts = self._contexts
        begins_P = contexts.begins
        held_out_P = begins_P[contexts.held_out_R[(begins_P + self._unmeasured).clip(max=len(contexts.token_R) - 1)]]
        among = held_out_P if len(held_out_P) else begins_P
        passages = [self._passage(start) for start in among[:: -(-len(among) // _TRIED)].tolist()]
        row_S = max(passages, key=self._telling)
        tokens = joined([contexts.text(token) for token in contexts.token_R[row_S].tolist()])
        firings: list[list[tuple[int, float]]] = [[] for _ in row_S]
        place_n, latent_n = self._dictionary.lists.at(row_S)
        for latent in np.unique(latent_n).tolist():
            row_n, value_n = self._dictionary.lists.of(latent)
            for place in place_n[latent_n == latent].tolist():
                firings[place].append((latent, float(value_n[np.searchsorted(row_n, row_S[place])])))
        return self.codes(tokens, firings)

    def _passage(self, start: int) -> Array:
        """Consecutive rows from a row on, up to the end of a sentence if there is one."""
        contexts = self._contexts
        row_S = np.arange(start, min(start + _LENGTH, len(contexts.token_R)))
        same_S = contexts.document_R[row_S] == contexts.document_R[start]
        row_S = row_S[same_S & (contexts.position_R[row_S] - contexts.position_R[start] == row_S - start)]
        texts = [contexts.text(token) for token in contexts.token_R[row_S].tolist()]
        ends = [place for place, text in enumerate(texts) if text.strip().endswith((".", "?", "!")) and place >= _LEAST]
        return row_S[: ends[-1] + 1] if ends else row_S

    def _telling(self, row_S: Array) -> float:
        """How rare the rarest child of a token is that fires with its parent, in the mean over tokens, in nats."""
        place_n, latent_n = self._dictionary.lists.at(row_S)
        parent_n = self._nodes.parent_F[latent_n]
        width = self._dictionary.latents
        inside_n = (parent_n != NONE) & np.isin(place_n * width + parent_n, place_n * width + latent_n)
        rare_S = np.zeros(len(row_S))
        np.maximum.at(rare_S, place_n[inside_n], -np.log(self._dictionary.rate_F[latent_n[inside_n]]))
        return float(rare_S.mean())

    @cached_property
    def _most_F(self) -> Array:
        """The strongest activation of each latent."""
        lists = self._dictionary.lists
        most_F = np.zeros(lists.latents)
        alive = np.flatnonzero(lists.fired_F)
        if len(alive):
            most_F[alive] = np.maximum.reduceat(np.asarray(lists.value_n), lists.start_F[alive])
        return most_F

    @cached_property
    def _unmeasured(self) -> int:
        """How many positions at the beginning of a window the cache leaves out."""
        position_R, counted_R = self._contexts.position_R, self._contexts.counted_R
        return int(position_R[counted_R].min(initial=position_R.max(initial=0))) if counted_R.any() else 0
