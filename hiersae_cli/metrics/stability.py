"""Stability: do trainings with different seeds find the same latents and the same tree?

Legend of shapes: F and G latents of two dictionaries, B latents of a part of the first, D width, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student

from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.intervals import Estimate, Share
from hiersae_cli.metrics.random_rows import random_rows_like
from hiersae_cli.metrics.recovery import shuffled_parents, unit_rows

Array = np.ndarray[Any, Any]

COSINE = 0.7  # least |cosine| of the decoder rows of latents that may be the same
LAZY = 0.8  # cosine with a first row above which a decoder row was hardly trained
_CELLS = 1 << 24  # in a table of cosines at a time


@dataclass(frozen=True)
class SeedDictionary:
    """The dictionary of one seed, as far as stability compares it.

    Attributes:
        decoder_FD: decoder rows.
        levels: of the latents.
        live_F: which latents are not dead.
        parent_F: index of each latent's parent, ``NONE`` for roots; None if there is no tree.
    """

    decoder_FD: torch.Tensor
    levels: Levels
    live_F: Array
    parent_F: Array | None


@dataclass(frozen=True)
class MeanCosine:
    """A mean over latents.

    Attributes:
        value: the mean.
        deviation: the standard deviation of the latents.
        n: the number of latents of one dictionary; those of the other are not independent of them.
    """

    value: float
    deviation: float
    n: int

    def estimate(self, confidence: float) -> Estimate:
        """The mean with Student's interval; without one for a single latent."""
        if self.n < 2:
            return Estimate(self.value, None, None, self.n, "1")
        half = float(student.ppf((1 + confidence) / 2, self.n - 1)) * self.deviation / self.n**0.5
        return Estimate(self.value, max(0.0, self.value - half), min(1.0, self.value + half), self.n, "1")


PairFigure = Share | MeanCosine


def recurring_edges(
    decoder_FD: torch.Tensor, parent_F: Array, decoder_GD: torch.Tensor, parent_G: Array, cosine: float = COSINE
) -> float:
    """``shared_edges`` of two dictionaries with their trees, as a number; 0 if they have no edges."""
    return shared_edges(same_latents(decoder_FD, decoder_GD, cosine), parent_F, parent_G).value


def same_latents(decoder_FD: torch.Tensor, decoder_GD: torch.Tensor, cosine: float = COSINE) -> Array:
    """For each latent the same latent of the other dictionary, (F,), or ``NONE``.

    This is the one-to-one matching with the largest summed |cosine| among the pairs with at least ``cosine``. Few
    latents have several such partners, so each cluster of similar latents is matched separately, without a table of
    F x G. Source of the matching with the Hungarian algorithm: as ``recovery.match_features``.
    """
    ours, theirs = (_whole(rows, np.ones(len(rows), bool), None) for rows in (decoder_FD, decoder_GD))
    return _compared(ours, theirs, cosine).near.matched()


def shared_edges(same_F: Array, parent_F: Array, parent_G: Array) -> Share:
    """Share of edges that two trees have in common: twice the common edges over the edges of both. Symmetric.

    An edge is common if both its ends are the same, in the same direction.

    Args:
        same_F: for each latent the same latent of the other dictionary, see ``same_latents``.
        parent_F, parent_G: index of each latent's parent within its dictionary, ``NONE`` for roots.
    """
    _, _, common_F = _edge_fates(same_F, parent_F, parent_G)
    return Share(int(common_F.sum()), max(((parent_F != NONE).sum() + (parent_G != NONE).sum()) / 2, 1))


def shared_latents(same_F: Array, others: int) -> Share:
    """Share of latents that two dictionaries with F and G = ``others`` latents have in common; see ``same_latents``."""
    return Share(int((same_F != NONE).sum()), (len(same_F) + others) / 2)


def compare_seeds(ours: SeedDictionary, theirs: SeedDictionary, seed: int) -> dict[str, PairFigure | None]:
    """Every figure of the stability of two seeds, by its name in the report; None if it is not defined.

    Names with a level are about latents of that level, and about edges whose child is in it. They need dictionaries
    with the same number of levels. All figures are symmetric, except those for chance, up to their random draws.

    Args:
        seed: of the random rows and the shuffled parents that give the chance levels.
    """
    parent_F, parent_G = ours.parent_F, theirs.parent_F
    shuffled_F = None if parent_F is None else shuffled_parents(parent_F, ours.levels, seed)
    if len(ours.levels.widths) != len(theirs.levels.widths):
        ours, theirs = (_whole(side.decoder_FD, side.live_F, side.parent_F) for side in (ours, theirs))
    compared = _compared(ours, theirs)
    generator = torch.Generator().manual_seed(seed)
    chance = _compared(_random_like(ours, generator), _random_like(theirs, generator))
    live, all_latents = (ours.live_F, theirs.live_F), (np.ones_like(ours.live_F), np.ones_like(theirs.live_F))
    same, same_live, same_random = (
        _both_ways(near.matched(), len(theirs.live_F))
        for near in (compared.near, compared.near.among(*live), chance.near)
    )

    parts = {"": (slice(None), slice(None))}
    if len(ours.levels.widths) > 1:
        levels = zip(ours.levels.slices, theirs.levels.slices, strict=True)
        parts |= {f"_level_{level}": slices for level, slices in enumerate(levels)}
    figures: dict[str, PairFigure | None] = {}
    for ending, part in parts.items():
        figures[f"stability_cosine{ending}"] = _mean(compared.in_level, live, part)
        figures[f"stability_cosine_chance{ending}"] = _mean(chance.in_level, live, part)
        if len(parts) > 1:
            figures[f"stability_cosine_any{ending}"] = _mean(compared.in_any, live, part)
            figures[f"stability_cosine_any_chance{ending}"] = _mean(chance.in_any, live, part)
        figures[f"stability_live{ending}"] = _share(_recurring(same_live), live, part)
        figures[f"stability_live_chance{ending}"] = _share(_recurring(same_random), live, part)
        figures[f"stability_latents{ending}"] = _share(_recurring(same), all_latents, part)
        if parent_F is None or shuffled_F is None or parent_G is None:
            continue
        for name, first_F in (("", parent_F), ("_shuffled", shuffled_F)):
            edges, _, common = _fates_both_ways(same, first_F, parent_G)
            figures[f"stability{name}{ending}"] = _share(common, edges, part)
            _, known, common = _fates_both_ways(same_live, first_F, parent_G)
            figures[f"stability_live_edges{name}{ending}"] = _share(common, known, part)
        if not ending:  # a tree without edges shares none
            figures["stability"] = shared_edges(same[0], parent_F, parent_G)
            figures["stability_shuffled"] = shared_edges(same[0], shuffled_F, parent_G)
    return figures


@torch.no_grad()
def start_cosines(decoder_FD: torch.Tensor, start_GD: torch.Tensor) -> Array:
    """The largest |cosine| (F,) of each decoder row with any of the rows that its training started from."""
    ours, theirs = (_whole(rows, np.ones(len(rows), bool), None) for rows in (decoder_FD, start_GD.to(decoder_FD)))
    return _compared(ours, theirs, math.inf).in_any[0]


def mean_over_pairs(figures: Mapping[tuple[int, int], PairFigure | None], confidence: float) -> Estimate:
    """The mean of a figure over the pairs of S seeds, with the interval of a single pair, else the jackknife's.

    Pairs with a common seed are not independent, so the jackknife leaves out whole seeds. The deviation of the
    pseudo-values, one per seed, gives Student's interval with S - 1 degrees of freedom. Source: Arvesen (1969), Annals
    of Mathematical Statistics 40 (the jackknife of U-statistics). Pairs whose figure is not defined do not count, and
    there is then no interval.
    """
    known = {pair: figure for pair, figure in figures.items() if figure is not None}
    if not known:
        return Estimate(None, None, None, 0, "1")
    if len(figures) == 1:
        return next(iter(known.values())).estimate(confidence)
    values = {pair: figure.value for pair, figure in known.items()}
    whole = float(np.mean(list(values.values())))
    n = round(float(np.mean([figure.n for figure in known.values()])))
    if len(known) < len(figures):
        return Estimate(whole, None, None, n, "1")
    seeds = sorted({seed for pair in values for seed in pair})
    without_seed = [np.mean([value for pair, value in values.items() if seed not in pair]) for seed in seeds]
    pseudo = len(seeds) * whole - (len(seeds) - 1) * np.array(without_seed)
    half = float(student.ppf((1 + confidence) / 2, len(seeds) - 1)) * pseudo.std(ddof=1) / len(seeds) ** 0.5
    return Estimate(whole, max(0.0, whole - half), min(1.0, whole + half), n, "1")


_Sides = tuple[Array, Array]  # a value of each latent of the first dictionary, (F,), and of the other, (G,)
_Part = tuple[slice, slice]


@dataclass(frozen=True)
class _NearPairs:
    """Pairs of latents of two dictionaries that may be the same, and their |cosine|, (E,) each."""

    latents: int
    latent_E: Array
    other_E: Array
    cosine_E: Array

    def among(self, mask_F: Array, mask_G: Array) -> _NearPairs:
        """Those of some latents."""
        mask_E = mask_F[self.latent_E] & mask_G[self.other_E]
        return _NearPairs(self.latents, self.latent_E[mask_E], self.other_E[mask_E], self.cosine_E[mask_E])

    def matched(self) -> Array:
        """The best one-to-one matching, (F,); see ``same_latents``."""
        same_F = np.full(self.latents, NONE)
        if not len(self.latent_E):
            return same_F
        nodes = self.latents + int(self.other_E.max()) + 1
        # Before SciPy 1.16, functions of graphs take only indices of 32 bits.
        ends = (self.latent_E.astype(np.int32), (self.latents + self.other_E).astype(np.int32))
        graph = coo_array((self.cosine_E, ends), (nodes, nodes))
        _, cluster = connected_components(graph, directed=False)
        order = np.argsort(cluster[self.latent_E], kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(cluster[self.latent_E[order]])) + 1):
            ours, row = np.unique(self.latent_E[members], return_inverse=True)
            theirs, column = np.unique(self.other_E[members], return_inverse=True)
            table = np.zeros((len(ours), len(theirs)))
            table[row, column] = self.cosine_E[members]
            for row, column in zip(*linear_sum_assignment(table, maximize=True), strict=True):
                if table[row, column] > 0:
                    same_F[ours[row]] = theirs[column]
        return same_F


@dataclass(frozen=True)
class _Compared:
    """How alike the decoder rows of two dictionaries are.

    Attributes:
        near: the pairs of latents that may be the same.
        in_level, in_any: each latent's largest |cosine| with a live latent of its level, and of any level, in the
            other dictionary; 0 for dead latents.
    """

    near: _NearPairs
    in_level: _Sides
    in_any: _Sides


@torch.no_grad()
def _compared(ours: SeedDictionary, theirs: SeedDictionary, cosine: float = COSINE) -> _Compared:
    """Compare all latents of two dictionaries with the same number of levels, a table of ``_CELLS`` at a time."""
    rows_FD, rows_GD = unit_rows(ours.decoder_FD), unit_rows(theirs.decoder_FD)
    live_F, live_G = (torch.from_numpy(side.live_F).to(rows_FD) for side in (ours, theirs))
    level_F, any_F = torch.zeros_like(live_F), torch.zeros_like(live_F)
    level_G, any_G = torch.zeros_like(live_G), torch.zeros_like(live_G)
    size = max(1, _CELLS // len(rows_GD))
    pairs = []
    for part, same_level in zip(ours.levels.slices, theirs.levels.slices, strict=True):
        for start in range(part.start, part.stop, size):
            block = slice(start, min(start + size, part.stop))
            cosine_BG = (rows_FD[block] @ rows_GD.T).abs_()
            near = (cosine_BG >= cosine).nonzero()
            values = cosine_BG[near[:, 0], near[:, 1]].double()
            pairs.append((near[:, 0].cpu().numpy() + start, near[:, 1].cpu().numpy(), values.cpu().numpy()))
            cosine_BG.mul_(live_F[block, None]).mul_(live_G)
            for best_F, best_G, columns in ((any_F, any_G, slice(None)), (level_F, level_G, same_level)):
                best_F[block] = cosine_BG[:, columns].amax(1)
                best_G[columns] = best_G[columns].maximum(cosine_BG[:, columns].amax(0))
    near_pairs = _NearPairs(len(rows_FD), *(np.concatenate(columns) for columns in zip(*pairs, strict=True)))
    in_level, in_any = (
        (best_F.clamp_max(1).double().cpu().numpy(), best_G.clamp_max(1).double().cpu().numpy())
        for best_F, best_G in ((level_F, level_G), (any_F, any_G))
    )
    return _Compared(near_pairs, in_level, in_any)


def _whole(decoder_FD: torch.Tensor, live_F: Array, parent_F: Array | None) -> SeedDictionary:
    """A dictionary as one level."""
    return SeedDictionary(decoder_FD, Levels.of([len(decoder_FD)]), live_F, parent_F)


def _random_like(dictionary: SeedDictionary, generator: torch.Generator) -> SeedDictionary:
    """The dictionary with random rows in place of the live ones of each level, see ``random_rows_like``."""
    random_FD = torch.zeros_like(dictionary.decoder_FD, dtype=torch.float32)
    for part in dictionary.levels.slices:
        live = torch.from_numpy(part.start + np.flatnonzero(dictionary.live_F[part])).to(random_FD.device)
        if len(live):
            random_FD[live] = random_rows_like(dictionary.decoder_FD[live].detach(), generator)
    return replace(dictionary, decoder_FD=random_FD)


def _both_ways(same_F: Array, others: int) -> _Sides:
    """A matching, and its inverse (G,)."""
    same_G = np.full(others, NONE)
    matched = np.flatnonzero(same_F != NONE)
    same_G[same_F[matched]] = matched
    return same_F, same_G


def _recurring(same: _Sides) -> _Sides:
    """Which latents are matched."""
    return same[0] != NONE, same[1] != NONE


def _edge_fates(same_F: Array, parent_F: Array, parent_G: Array) -> tuple[Array, Array, Array]:
    """By child (F,) bool: whether it has an edge, whose two ends are matched, that the other tree has too."""
    edge_F = parent_F != NONE
    upper_F = np.where(edge_F & (same_F != NONE), same_F[parent_F], NONE)
    known_F = upper_F != NONE
    return edge_F, known_F, known_F & (parent_G[same_F] == upper_F)


def _fates_both_ways(same: _Sides, parent_F: Array, parent_G: Array) -> tuple[_Sides, _Sides, _Sides]:
    ours, theirs = _edge_fates(same[0], parent_F, parent_G), _edge_fates(same[1], parent_G, parent_F)
    edges, known, common = zip(ours, theirs, strict=True)
    return edges, known, common


def _mean(values: _Sides, live: _Sides, part: _Part) -> MeanCosine | None:
    """The mean over the live latents of a part of both dictionaries; None if one of them has none."""
    sides = [side[cut][mask[cut]] for side, mask, cut in zip(values, live, part, strict=True)]
    if not all(map(len, sides)):
        return None
    both = np.concatenate(sides)
    return MeanCosine(float(both.mean()), float(both.std(ddof=1)), round(len(both) / 2))


def _share(successes: _Sides, trials: _Sides, part: _Part) -> Share | None:
    """The share in a part of both dictionaries; None without trials. Counts are means over the two."""
    hits, counts = (
        sum(int(side[cut].sum()) for side, cut in zip(sides, part, strict=True)) / 2 for sides in (successes, trials)
    )
    return Share(hits, counts) if counts else None
