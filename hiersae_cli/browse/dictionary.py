"""A dictionary in an index: its firings, its decoder, and the characteristic tokens of each latent.

Legend of shapes: R indexed rows, F latents, D width, T tokens of a latent, n firings, m firings in some rows.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from hiersae_cli.browse.contexts import ContextReader
from hiersae_cli.browse.model import Context, Token
from hiersae_cli.concepts.tokens import is_part
from hiersae_cli.formats.index import FiringLists, IndexFile
from hiersae_cli.formats.names import name_of
from hiersae_cli.formats.numbers import rounded
from hiersae_cli.metrics.firings import NONE

_SAMPLED = 20_000  # firings of a latent, at most, that are searched for latents that fire with it

Array = np.ndarray[Any, Any]


class IndexedDictionary:
    """A dictionary of an index.

    Args:
        file: the index.
        name: ``run`` or ``baseline``.
        decoder_FD: its decoder.
        contexts: reads contexts from the index.
    """

    def __init__(self, file: IndexFile, name: str, decoder_FD: Array, contexts: ContextReader):
        self.lists: FiringLists = file.lists[name]
        self.latents = self.lists.latents
        self.decoder_FD, self.contexts = decoder_FD, contexts
        self.rate_F = self.lists.fired_F / max(file.rows, 1)
        prefix = f"{name}/"
        self.tables = {key[len(prefix) :]: value for key, value in file.tables.items() if key.startswith(prefix)}

    @cached_property
    def _length_F(self) -> Array:
        return np.maximum(np.linalg.norm(self.decoder_FD, axis=1), 1e-12)

    def cosines(self, direction_D: Array) -> Array:
        """The cosine of every decoder row with a direction, (F,)."""
        along_F: Array = self.decoder_FD @ (direction_D / max(float(np.linalg.norm(direction_D)), 1e-12))
        return along_F / self._length_F

    def nearest(self, direction_D: Array, count: int, but: int = -1) -> list[tuple[int, float]]:
        """The latents except ``but`` whose decoder rows are nearest to a direction, with their cosines."""
        return self.largest(self.cosines(direction_D), count, but)

    def largest(self, cosine_F: Array, count: int, but: int = -1) -> list[tuple[int, float]]:
        """The latents except ``but`` with the largest of these cosines."""
        if but >= 0:
            cosine_F[but] = -np.inf
        count = min(count, self.latents - (but >= 0))
        among = np.argpartition(-cosine_F, min(count, self.latents - 1))[:count]
        order = among[np.lexsort((among, -cosine_F[among]))]
        return [(latent, rounded(cosine_F[latent])) for latent in order.tolist()]

    @cached_property
    def hints(self) -> list[str]:
        """The name of each latent that has no label, made of its tokens; "" for a dead latent."""
        return [
            name_of(self._text_at(latent, token) for token in tokens if token != NONE)
            for latent, tokens in enumerate(self.own_tokens[0].tolist())
        ]

    @cached_property
    def own_tokens(self) -> tuple[Array, Array]:
        """The characteristic tokens (F, T) of each latent, and the share of its activation at each token."""
        if "own_tokens" in self.tables:
            return self.tables["own_tokens"], self.tables["own_shares"]
        return self.lists.own_tokens(self.contexts.token_R, self.contexts.counted_R)  # an index of version 1

    def tokens(self, latent: int) -> list[Token]:
        """Its characteristic tokens, with their shares of its activation."""
        pairs = zip(*(column[latent].tolist() for column in self.own_tokens), strict=True)
        return [Token(self._text_at(latent, token), rounded(share)) for token, share in pairs if token != NONE]

    def _text_at(self, latent: int, token: int) -> str:
        """The text of a token of a latent; if it is part of a character, that in the row of the strongest firing."""
        text = self.contexts.text(token)
        if not is_part(text):
            return text
        row_n, value_n = self.lists.of(latent)
        at_n = np.flatnonzero(self.contexts.token_R[row_n] == token)
        return self.contexts.whole_text(int(row_n[at_n[value_n[at_n].argmax()]]))

    def lens(self, latent: int, side: str) -> list[Token]:
        """The tokens that it promotes or suppresses, with what it adds to their logits.

        ``side`` is ``promoted`` or ``suppressed``; the list is empty without a host model.
        """
        if side not in self.tables:
            return []
        ids, logits = self.tables[side][latent].tolist(), self.tables[f"{side}_logits"][latent].tolist()
        return [Token(self.contexts.text(token), rounded(logit)) for token, logit in zip(ids, logits, strict=True)]

    def strongest(self, latent: int, count: int, among_R: Array | None = None) -> list[Context]:
        """Its strongest contexts, only from the rows that ``among_R`` marks."""
        row_n, value_n = self.lists.of(latent)
        allowed = slice(None) if among_R is None else among_R[row_n]
        chosen = self.contexts.strongest(row_n[allowed], value_n[allowed], count)
        return self.contexts.with_activations(row_n, value_n, chosen)

    def firing_at(self, row_n: Array) -> Array:
        """How many of the rows ``row_n`` each latent fires in, (F,); estimated from a sample if there are many."""
        sampled = row_n[:: max(1, -(-len(row_n) // _SAMPLED))]
        _, latent_m = self.lists.at(sampled)
        counts: Array = np.bincount(latent_m, minlength=self.latents) * (len(row_n) / max(len(sampled), 1))
        return counts

    def marked(self, latent: int) -> Array:
        """Whether a latent fires in each row, (R,) bool."""
        marked_R = np.zeros(self.lists.rows, bool)
        marked_R[self.lists.rows_of(latent)] = True
        return marked_R
