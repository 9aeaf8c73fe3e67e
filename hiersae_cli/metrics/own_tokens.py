"""The characteristic tokens of a latent.

If a token has a share q of a latent's activation and a share p of the rows, its weight is q ln(q / p): its term in the
Kullback-Leibler divergence of q from p, in nats. It is large if the token has much of the activation and few rows; a
token that is only frequent has no weight.

Legend of shapes: B rows of a batch, F latents, V tokens of the vocabulary, T tokens listed, n firings, t their tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.metrics.firings import NONE

LISTED = 5
_LEAST = 1e-6  # nats: a token with less is there by chance
_SMALL = 0.05  # share of the largest weight: a token with less says nothing in addition to the first
_WAITING = 1 << 22  # firings added up at once: about 100 MB

Array = np.ndarray[Any, Any]


def own_tokens(token_n: Array, value_n: Array, share_V: Array) -> tuple[Array, Array]:
    """A latent's tokens with the largest weights, at most ``LISTED``, and the share of its activation at each.

    Args:
        token_n, value_n: token and activation of its firings, or of sums of firings.
        share_V: the share of rows that have each token.
    """
    token_t, place_n = np.unique(token_n, return_inverse=True)
    mass_t = np.bincount(place_n, value_n, len(token_t))
    q_t = mass_t / max(mass_t.sum(), 1e-30)
    weight_t = q_t * np.log(q_t / share_V[token_t])
    order = np.lexsort((token_t, -weight_t))[:LISTED]
    order = order[weight_t[order] > max(_LEAST, _SMALL * weight_t.max(initial=0))]
    return token_t[order], q_t[order]


def table(latents: int) -> tuple[Array, Array]:
    """Empty tables for the tokens (F, T) and shares (F, T) of all latents, filled with ``NONE`` and 0."""
    return np.full((latents, LISTED), NONE, "<i4"), np.zeros((latents, LISTED), "<f4")


class StrongestRows:
    """The row in which each latent fires most strongly at each of some tokens, the earliest among equals.

    Args:
        chosen_V: (V,) bool: these tokens.
    """

    def __init__(self, chosen_V: Array):
        self._chosen_V = chosen_V
        self._key_n: Array = np.zeros(0, np.int64)
        self._value_n: Array = np.zeros(0, np.float32)
        self._row_n: Array = np.zeros(0, np.int64)
        self._waiting: list[tuple[Array, Array, Array]] = []
        self._firings = 0  # waiting

    def add(self, token_n: Array, latent_n: Array, value_n: Array, row_n: Array) -> None:
        """Add a batch: the token, latent, activation and row of its firings."""
        chosen_n = self._chosen_V[token_n]
        key_n = latent_n[chosen_n] * len(self._chosen_V) + token_n[chosen_n]
        self._waiting.append((key_n, value_n[chosen_n], row_n[chosen_n]))
        self._firings += len(key_n)
        if self._firings > _WAITING:
            self._reduce()

    def row(self, latent: int, token: int) -> int:
        """The row of a latent's strongest firing at a chosen token, at which it fires."""
        if self._waiting:
            self._reduce()
        return int(self._row_n[np.searchsorted(self._key_n, latent * len(self._chosen_V) + token)])

    def _reduce(self) -> None:
        columns = zip((self._key_n, self._value_n, self._row_n), *self._waiting, strict=True)
        key_n, value_n, row_n = map(np.concatenate, columns)
        order = np.lexsort((row_n, -value_n, key_n))
        self._key_n, first = np.unique(key_n[order], return_index=True)
        self._value_n, self._row_n = value_n[order[first]], row_n[order[first]]
        self._waiting, self._firings = [], 0


class ActivationByToken:
    """The activation of each latent at each token, added up batch by batch; memory grows with the pairs that occur.

    Args:
        latents, vocabulary: F and V.
    """

    def __init__(self, latents: int, vocabulary: int):
        self._latents, self._vocabulary = latents, vocabulary
        self._rows_V = np.zeros(vocabulary)
        self._key_n: Array = np.zeros(0, np.int64)
        self._sum_n: Array = np.zeros(0)
        self._waiting: list[tuple[Array, Array]] = []
        self._firings = 0  # waiting

    def add(self, token_B: Array, token_n: Array, latent_n: Array, value_n: Array) -> None:
        """Add a batch: the tokens of its rows, and token, latent and activation of its firings."""
        self._rows_V += np.bincount(token_B, minlength=self._vocabulary)
        self._waiting.append((latent_n * self._vocabulary + token_n, value_n))
        self._firings += len(value_n)
        if self._firings > _WAITING:
            self._add_up()

    def own_tokens(self) -> tuple[Array, Array]:
        """The tokens (F, T) and shares (F, T) of every latent, see ``own_tokens``; ``NONE`` and 0 in empty places."""
        self._add_up()
        tokens_FT, shares_FT = table(self._latents)
        share_V = self._rows_V / max(self._rows_V.sum(), 1)
        first_F = np.searchsorted(self._key_n, np.arange(self._latents + 1) * self._vocabulary)
        for latent in np.flatnonzero(np.diff(first_F)).tolist():
            part = slice(first_F[latent], first_F[latent + 1])
            tokens, shares = own_tokens(self._key_n[part] % self._vocabulary, self._sum_n[part], share_V)
            tokens_FT[latent, : len(tokens)], shares_FT[latent, : len(tokens)] = tokens, shares
        return tokens_FT, shares_FT

    def _add_up(self) -> None:
        keys, values = zip((self._key_n, self._sum_n), *self._waiting, strict=True)
        self._key_n, place_n = np.unique(np.concatenate(keys), return_inverse=True)
        self._sum_n = np.bincount(place_n, np.concatenate(values), len(self._key_n))
        self._waiting, self._firings = [], 0
