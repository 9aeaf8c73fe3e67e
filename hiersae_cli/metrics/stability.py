"""Stability: do trainings with different seeds find the same latents and the same tree?

Legend of shapes: F and G latents of two dictionaries, D width, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student

from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.intervals import Estimate, Share
from hiersae_cli.metrics.recovery import unit_rows

Array = np.ndarray[Any, Any]

COSINE = 0.7  # least |cosine| of the decoder rows of latents that may be the same
_CELLS = 1 << 24  # in a table of cosines at a time


def recurring_edges(
    decoder_FD: torch.Tensor, parent_F: Array, decoder_GD: torch.Tensor, parent_G: Array, cosine: float = COSINE
) -> float:
    """``shared_edges`` of two dictionaries with their trees, as a number; 0 if they have no edges."""
    return shared_edges(same_latents(decoder_FD, decoder_GD, cosine), parent_F, parent_G).value


@torch.no_grad()
def same_latents(decoder_FD: torch.Tensor, decoder_GD: torch.Tensor, cosine: float = COSINE) -> Array:
    """For each latent the same latent of the other dictionary, (F,), or ``NONE``.

    This is the one-to-one matching with the largest summed |cosine| among the pairs with at least ``cosine``. Few
    latents have several such partners, so each cluster of similar latents is matched separately, without a table of
    F x G. Source of the matching with the Hungarian algorithm: as ``recovery.match_features``.
    """
    rows_FD, rows_GD = unit_rows(decoder_FD), unit_rows(decoder_GD)
    size = max(1, _CELLS // len(rows_GD))
    pairs = []
    for start, part in zip(range(0, len(rows_FD), size), rows_FD.split(size), strict=True):
        cosine_BG = (part @ rows_GD.T).abs()
        near = (cosine_BG >= cosine).nonzero()
        values = cosine_BG[near[:, 0], near[:, 1]]
        pairs.append((near[:, 0].cpu().numpy() + start, near[:, 1].cpu().numpy(), values.double().cpu().numpy()))
    latent_E, other_E, cosine_E = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
    nodes = len(rows_FD) + len(rows_GD)
    graph = coo_array((cosine_E, (latent_E, len(rows_FD) + other_E)), (nodes, nodes))
    _, cluster = connected_components(graph, directed=False)
    same_F = np.full(len(rows_FD), NONE)
    order = np.argsort(cluster[latent_E], kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(cluster[latent_E[order]])) + 1):
        if not len(members):
            continue
        ours, row = np.unique(latent_E[members], return_inverse=True)
        theirs, column = np.unique(other_E[members], return_inverse=True)
        table = np.zeros((len(ours), len(theirs)))
        table[row, column] = cosine_E[members]
        for row, column in zip(*linear_sum_assignment(table, maximize=True), strict=True):
            if table[row, column] > 0:
                same_F[ours[row]] = theirs[column]
    return same_F


def shared_edges(same_F: Array, parent_F: Array, parent_G: Array) -> Share:
    """Share of edges that two trees have in common: twice the common edges over the edges of both. Symmetric.

    An edge is common if both its ends are the same, in the same direction.

    Args:
        same_F: for each latent the same latent of the other dictionary, see ``same_latents``.
        parent_F, parent_G: index of each latent's parent within its dictionary, ``NONE`` for roots.
    """
    child = np.flatnonzero((parent_F != NONE) & (same_F != NONE))
    upper, lower = same_F[parent_F[child]], same_F[child]
    common = int(((upper != NONE) & (parent_G[lower] == upper)).sum())
    return Share(common, max(((parent_F != NONE).sum() + (parent_G != NONE).sum()) / 2, 1))


def shared_latents(same_F: Array, others: int) -> Share:
    """Share of latents that two dictionaries with F and G = ``others`` latents have in common; see ``same_latents``."""
    return Share(int((same_F != NONE).sum()), (len(same_F) + others) / 2)


def mean_over_pairs(shares: Mapping[tuple[int, int], Share], confidence: float) -> Estimate:
    """The mean of a share over the pairs of S seeds, with Wilson's interval for a single pair, else the jackknife's.

    Pairs with a common seed are not independent, so the jackknife leaves out whole seeds. The deviation of the
    pseudo-values, one per seed, gives Student's interval with S - 1 degrees of freedom. Source: Arvesen (1969), Annals
    of Mathematical Statistics 40 (the jackknife of U-statistics).
    """
    if len(shares) == 1:
        return next(iter(shares.values())).estimate(confidence)
    values = {pair: share.value for pair, share in shares.items()}
    seeds = sorted({seed for pair in values for seed in pair})
    whole = float(np.mean(list(values.values())))
    without_seed = [np.mean([value for pair, value in values.items() if seed not in pair]) for seed in seeds]
    pseudo = len(seeds) * whole - (len(seeds) - 1) * np.array(without_seed)
    half = float(student.ppf((1 + confidence) / 2, len(seeds) - 1)) * pseudo.std(ddof=1) / len(seeds) ** 0.5
    n = round(float(np.mean([share.n for share in shares.values()])))
    return Estimate(whole, max(0.0, whole - half), min(1.0, whole + half), n, "1")
