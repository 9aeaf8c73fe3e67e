"""What became of a latent of one dictionary in another: kept, split, or absorbed by a wider one.

Both are measured on the same rows, and firing is binary. For a latent b of the baseline and latents f of ours:

    share_f = P(f | b): share of b's firings at which f fires
    within_f = P(b | f): share of f's firings at which b fires
    excess(P(x | y)) = (P(x | y) - P(x)) / (1 - P(x)): 0 if y says nothing about x, 1 if x always fires with y

- dead: b never fires;
- kept: one f has excess(share) and excess(within) of at least 1/2;
- split: not kept, and two or more f, each with excess(within) of at least 1/2 and a share of at least 1/20, together
  cover at least half of b's firings;
- absorbed: neither, and one f has excess(share) of at least 1/2: b lies within something wider;
- none: none of these.

"Absorbed" describes all of b's firing. It is not feature absorption (Chanin et al. 2024, arXiv 2409.14507), in which a
latent stays silent at some tokens because a more specific latent takes its direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

VERDICTS = ("dead", "none", "kept", "split", "absorbed")  # files number them in this order
_LEAST_EXCESS = 0.5
_LEAST_SHARE = 0.05
_LEAST_COVERED = 0.5


@dataclass(frozen=True)
class Fate:
    """The verdict on one latent of the baseline.

    Attributes:
        verdict: one of ``VERDICTS``.
        part_C: our latents that fire with it; those that the verdict rests on first, then by share x within, largest
            first.
        share_C, within_C: see above.
        counted_C: whether the verdict rests on this part.
        covered: share of its firings at which a part that the verdict rests on fires; NaN if there are none.
    """

    verdict: str
    part_C: Array
    share_C: Array
    within_C: Array
    counted_C: Array
    covered: float


def fate_of(place_m: Array, latent_m: Array, sampled: int, fired: int, fired_F: Array, rows: int) -> Fate:
    """What became of a latent that fires in ``fired`` of ``rows`` rows.

    Args:
        place_m, latent_m: our firings in a sample of these rows: the place of the row in the sample, and the latent.
        sampled: number of rows in the sample.
        fired_F: number of rows in which each of our latents fires.
    """
    if not fired:
        empty = np.zeros(0)
        return Fate("dead", empty.astype(np.int64), empty, empty, empty.astype(bool), float("nan"))
    count_F = np.bincount(latent_m, minlength=len(fired_F))
    part_C = np.flatnonzero(count_F)
    share_C = count_F[part_C] / sampled
    within_C = np.minimum(share_C * fired / fired_F[part_C], 1.0)
    wide_C = _excess(share_C, fired_F[part_C] / rows) >= _LEAST_EXCESS
    inside_C = _excess(within_C, np.full(len(part_C), fired / rows)) >= _LEAST_EXCESS
    strength_C = share_C * within_C
    verdict, counted_C = "none", np.zeros(len(part_C), bool)
    pieces_C = inside_C & (share_C >= _LEAST_SHARE)
    if (wide_C & inside_C).any():
        verdict, counted_C = "kept", _best(strength_C, wide_C & inside_C)
    elif pieces_C.sum() > 1 and _covered(place_m, latent_m, sampled, part_C[pieces_C], fired_F) >= _LEAST_COVERED:
        verdict, counted_C = "split", pieces_C
    elif wide_C.any():
        verdict, counted_C = "absorbed", _best(strength_C, wide_C)
    covered = _covered(place_m, latent_m, sampled, part_C[counted_C], fired_F) if counted_C.any() else float("nan")
    order = np.lexsort((part_C, -strength_C, ~counted_C))
    return Fate(verdict, part_C[order], share_C[order], within_C[order], counted_C[order], covered)


def _excess(conditional_rate: Array, rate: Array) -> Array:
    # The firing of a latent that always fires says nothing.
    return np.where(rate < 1, (conditional_rate - rate) / np.maximum(1 - rate, 1e-12), 0.0)


def _best(strength_C: Array, among_C: Array) -> Array:
    chosen = np.zeros(len(strength_C), bool)
    chosen[np.argmax(np.where(among_C, strength_C, -1))] = True
    return chosen


def _covered(place_m: Array, latent_m: Array, sampled: int, part_C: Array, fired_F: Array) -> float:
    """The share of the sampled rows in which at least one of the parts fires."""
    counts_F = np.zeros(len(fired_F), bool)
    counts_F[part_C] = True
    return int((np.bincount(place_m[counts_F[latent_m]], minlength=sampled) > 0).sum()) / sampled
