"""Our features compared with the latents of the flat baseline: the nearest ones, and what became of each latent.

Legend of shapes: R indexed rows, F latents of ours, G latents of the baseline.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hiersae_cli.browse.dictionary import IndexedDictionary
from hiersae_cli.browse.model import BaselineFate, BaselineMatch, BaselinePage, FatePart
from hiersae_cli.browse.nodes import Nodes
from hiersae_cli.formats.numbers import rounded_or_none
from hiersae_cli.metrics.fates import VERDICTS
from hiersae_cli.metrics.firings import NONE

_BY_COSINE, _BY_FIRING = 3, 3
_CONTEXTS, _PAGE_CONTEXTS, _NEAREST = 6, 20, 8
_REMEMBERED = 4096  # latents of the baseline whose contexts stay in memory: about 10 KB each


class Comparison:
    """A run's dictionary compared with a baseline's."""

    def __init__(self, nodes: Nodes, ours: IndexedDictionary, theirs: IndexedDictionary):
        self._nodes, self._ours, self._theirs = nodes, ours, theirs
        self._verdict_G = np.asarray(theirs.tables["verdict"])
        # A latent of the baseline is near to several of ours.
        self._contexts = lru_cache(_REMEMBERED)(lambda number: theirs.strongest(number, _CONTEXTS))

    @property
    def latents(self) -> int:
        """How many latents the baseline has."""
        return self._theirs.latents

    def counts(self) -> dict[str, int]:
        """How many of the baseline's latents have each fate."""
        return dict(zip(VERDICTS, np.bincount(self._verdict_G, minlength=len(VERDICTS)).tolist(), strict=True))

    def matches(self, latent: int) -> list[BaselineMatch]:
        """The baseline's latents nearest to one of ours, by decoder row or by common firing; nearest row first."""
        cosine_G = self._theirs.cosines(self._ours.decoder_FD[latent])
        marked_R = self._ours.marked(latent)
        fired = int(self._ours.lists.fired_F[latent])
        chosen = {number for number, _ in self._theirs.largest(cosine_G, _BY_COSINE)}
        together_G = self._theirs.firing_at(self._ours.lists.rows_of(latent))
        # 2 both / (ours + theirs), Dice's coefficient: no latent is the nearest only because it is dense or rare.
        dice_G = 2 * together_G / np.maximum(fired + self._theirs.lists.fired_F, 1)
        order = np.lexsort((np.arange(len(dice_G)), -dice_G))[:_BY_FIRING]
        chosen |= {int(number) for number in order if together_G[number]}
        matches = []
        for number in sorted(chosen, key=lambda number: (-cosine_G[number], number)):
            row_n = self._theirs.lists.rows_of(number)
            both = int(marked_R[row_n].sum())
            matches.append(
                BaselineMatch(
                    latent=number,
                    cosine=rounded_or_none(cosine_G[number]) or 0.0,
                    both=both,
                    ours_in_theirs=rounded_or_none(both / fired) if fired else None,
                    theirs_in_ours=rounded_or_none(both / len(row_n)) if len(row_n) else None,
                    fate=self.fate(number),
                    contexts=self._contexts(number),
                )
            )
        return matches

    def page(self, number: int, contexts: int = _PAGE_CONTEXTS) -> BaselinePage:
        """A latent of the baseline; raises ``KeyError`` if there is no such latent.

        For a list, ``contexts`` is 0: then its nearest latents, which take the longest, are left out too.
        """
        if not 0 <= number < self._theirs.latents:
            raise KeyError(number)
        nearest = self._ours.nearest(self._theirs.decoder_FD[number], _NEAREST) if contexts else []
        return BaselinePage(
            latent=number,
            rate=float(self._theirs.rate_F[number]),
            fate=self.fate(number),
            contexts=self._theirs.strongest(number, contexts) if contexts else [],
            nearest=[self._nodes.neighbour(latent, cosine) for latent, cosine in nearest],
            promoted=self._theirs.lens(number, "promoted"),
            suppressed=self._theirs.lens(number, "suppressed"),
        )

    def of_verdict(self, verdict: str, most: int) -> list[BaselinePage]:
        """The baseline's latents with a verdict, without contexts and neighbours, those that fire most first."""
        if verdict not in VERDICTS:
            raise KeyError(verdict)
        number_G = np.flatnonzero(self._verdict_G == VERDICTS.index(verdict))
        order = np.lexsort((number_G, -self._theirs.rate_F[number_G]))[:most]
        return [self.page(number, 0) for number in number_G[order].tolist()]

    def fate(self, number: int) -> BaselineFate:
        """What became of a latent of the baseline."""
        columns = (self._theirs.tables[name][number].tolist() for name in ("part", "share", "within", "counted"))
        parts = [
            FatePart(
                self._nodes.neighbour(part),
                rounded_or_none(share) or 0.0,
                rounded_or_none(within) or 0.0,
                bool(counted),
            )
            for part, share, within, counted in zip(*columns, strict=True)
            if part != NONE
        ]
        covered = rounded_or_none(float(self._theirs.tables["covered"][number]))
        return BaselineFate(VERDICTS[int(self._verdict_G[number])], number, parts, covered)
