"""Contexts for a label: what its writer reads, and the held-out contexts that the label is tested on.

A writer reads contexts from training rows only, so that no tested context has been seen. A latent is silent in a
context if it fires at none of its tokens.

Legend of shapes: R indexed rows, n firings, C other latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import Context
from hiersae_cli.metrics.firings import NONE

FIRING, SIBLING, OTHER = "firing", "sibling", "other"  # kinds of tested contexts
_TRIED = 24  # rows looked at for each context in which a latent must be silent
_NEIGHBOURS = 8  # latents of the same level that stand in for siblings of a root
_TOP_SHARE = 2 / 3  # of a writer's contexts; the others come from all tenths of the activations

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contrast:
    """A context in which a latent is silent and a related one fires.

    Attributes:
        context: with the activations of the related latent.
        id: the node of the related latent.
        most: the largest activation of the related latent.
    """

    context: Context
    id: str
    most: float


@dataclass(frozen=True)
class Tested:
    """A held-out context: its tokens, and whether the latent fires in it (``FIRING``) or not (the other kinds)."""

    tokens: list[str]
    kind: str


class LabelContexts:
    """Draws contexts for labels from an index; the same at every call."""

    def __init__(self, index: Index):
        self._index, self._contexts, self._lists = index, index.contexts, index.dictionary.lists
        self._seed = int(index.file.header["made_of"]["seed"])

    def shown(self, latent: int, count: int) -> list[Context]:
        """``count`` contexts in which the latent fires, from training rows: the strongest, then some of each tenth."""
        row_n, value_n = self._firings(latent, held_out=False)
        top = self._contexts.strongest(row_n, value_n, max(1, round(count * _TOP_SHARE)))
        tenths = np.array_split(np.argsort(-value_n, kind="stable"), 10)
        draw = np.random.default_rng((self._seed, latent, 0))
        spread = [int(row_n[draw.choice(tenth)]) for tenth in tenths if len(tenth)]
        step = max(1, len(spread) // max(1, count - len(top)))
        chosen = [row for row in spread[step - 1 :: step] if row not in top][: count - len(top)]
        return self._contexts.of(self._lists, latent, np.array([*top, *chosen], int))

    def contrasts(self, latent: int, count: int) -> list[Contrast]:
        """``count`` contexts from training rows in which the latent is silent and a related latent fires.

        Related are its siblings, the most similar first, and in the remaining contexts its parent. For a latent without
        a parent they are the latents of its level with the most similar decoders.
        """
        parent = int(self._index.nodes.parent_F[latent])
        related = self._related(latent)
        contrasts: list[Contrast] = []
        above = [parent] if parent != NONE else []
        for other in [*related[: count - len(above)], *above, *related[count - len(above) :]]:
            if len(contrasts) == count:
                break
            room = count - len(contrasts) if other == parent else 1
            row_n, value_n = self._firings(other, held_out=False)
            rows = self._contexts.strongest(row_n, value_n, _TRIED * room)
            rows = rows[self._silent(latent, rows)][:room]
            most = float(self._lists.of(other)[1].max(initial=0))
            id = self._index.nodes.ids[other]
            contrasts += [Contrast(context, id, most) for context in self._contexts.of(self._lists, other, rows)]
        return contrasts

    def tested(self, latent: int, count: int) -> list[Tested]:
        """Held-out contexts in random order: at most ``count`` with a firing, and as many in which it is silent.

        Those with a firing come evenly from all tenths of the activations. In half of the silent ones a related latent
        fires (see ``contrasts``); the others, and those that related latents lack, are drawn from all rows.
        """
        draw = np.random.default_rng((self._seed, latent, 1))
        row_n, value_n = self._firings(latent, held_out=True)
        order = np.argsort(-value_n, kind="stable")
        places = [int(draw.choice(part)) for part in np.array_split(order, min(count, len(order))) if len(part)]
        firing = row_n[places] if places else np.zeros(0, int)
        related = [self._firings(other, held_out=True)[0] for other in self._related(latent)]
        pool = np.unique(np.concatenate(related)) if related else np.zeros(0, int)
        siblings = self._draw_silent(latent, pool, len(firing) // 2, draw)
        contexts = self._contexts
        held_out = np.flatnonzero(contexts.held_out_R & contexts.counted_R)
        others = self._draw_silent(latent, held_out, len(firing) - len(siblings), draw)
        tested = [
            Tested(context.tokens, kind)
            for rows, kind in ((firing, FIRING), (siblings, SIBLING), (others, OTHER))
            for context in contexts.of(self._lists, latent, rows)
        ]
        return [tested[place] for place in draw.permutation(len(tested)).tolist()]

    def _firings(self, latent: int, held_out: bool) -> tuple[Array, Array]:
        """The rows and values of a latent's firings, only held-out ones or only those for training."""
        row_n, value_n = self._lists.of(latent)
        kept_n = self._contexts.counted_R[row_n] & (self._contexts.held_out_R[row_n] == held_out)
        return row_n[kept_n], value_n[kept_n]

    def _related(self, latent: int) -> list[int]:
        """The siblings of a latent, (C,), the most similar decoders first; without a parent, others of its level."""
        nodes, dictionary = self._index.nodes, self._index.dictionary
        parent = int(nodes.parent_F[latent])
        level = nodes.levels.slices[nodes.levels.place(latent)[0]]
        other_C = nodes.children(parent) if parent != NONE else np.arange(level.start, level.stop)
        other_C = other_C[(other_C != latent) & (self._lists.fired_F[other_C] > 0)]
        cosine_C = dictionary.cosines(dictionary.decoder_FD[latent])[other_C]
        related: list[int] = other_C[np.lexsort((other_C, -cosine_C))].tolist()
        return related if parent != NONE else related[:_NEIGHBOURS]

    def _silent(self, latent: int, rows: Array) -> Array:
        """Whether the latent fires at no token of the context around each row."""
        contexts = self._contexts.of(self._lists, latent, rows)
        return np.array([not any(context.activations) for context in contexts], bool)

    def _draw_silent(self, latent: int, pool: Array, count: int, draw: np.random.Generator) -> Array:
        """At most ``count`` random rows of a pool around which the latent is silent."""
        tried = draw.permutation(pool)[: _TRIED * count]
        silent: Array = tried[self._silent(latent, tried)][:count]
        return silent
