"""Parent-child statistics: what the firing of a latent says about the firing of another.

Firing is binary here. Every function takes counts over the same sample of rows, as NumPy arrays, CPU tensors
or numbers whose shapes broadcast, and returns NumPy float64 arrays of the broadcast shape:

    n_parent: rows in which the parent fires        n_child: rows in which the child fires
    n_both: rows in which both fire                 n_rows: number of rows

A statistic that the counts do not define is NaN, never 0, so that a mean over edges must decide what to leave out.
p = n_parent / n_rows and c = n_child / n_rows below; h is the binary entropy in bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hiersae_cli.metrics.ratio import ratio

Array = np.ndarray[Any, np.dtype[np.float64]]


def edge_statistics(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> dict[str, Array]:
    """The statistics of edges, by their names in reports and trees."""
    counts = (n_parent, n_child, n_both, n_rows)
    information = mi_bits(*counts)
    return {
        "mi_bits": information,
        "mi_over_max": mi_over_max(*counts, information=information),
        "mi_over_entropy": mi_over_entropy(*counts, information=information),
        "p_parent_given_child": p_parent_given_child(n_child, n_both),
        "p_child_given_parent": p_child_given_parent(n_parent, n_both),
        "lift": lift(n_parent, n_child, n_both, n_rows),
    }


def mi_bits(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> Array:
    """I(parent; child) in bits, Miller-Madow corrected.

    The plug-in estimate plus (K_parent + K_child - K_both - 1) / (2 N ln 2), where K are the numbers of non-empty
    cells of the two margins and of the table. It may be slightly negative for independent latents, because the
    correction subtracts the mean bias of the plug-in estimate. Training has a version that is stable in float32,
    ``sae.tree.mutual_information``. 0 if one of the two never or always fires; NaN if there are no rows.
    Source: Miller (1955); Paninski (2003), Neural Computation 15.
    """
    parent, child, both, rows = _float64(n_parent, n_child, n_both, n_rows)
    sides = (parent, child, rows - parent, rows - child)
    cells = (both, parent - both, child - both, rows - parent - child + both)
    # N I = sum of n log n over the table, minus that over its margins, plus N log N: no division by an empty margin.
    information = _n_log_n(rows) - sum(map(_n_log_n, sides)) + sum(map(_n_log_n, cells))
    occupied = sum((side > 0).astype(np.int8) for side in sides) - sum((cell > 0).astype(np.int8) for cell in cells)
    varies = (sides[0] > 0) & (sides[1] > 0) & (sides[2] > 0) & (sides[3] > 0)
    corrected = ratio(information + (occupied - 1) / (2 * np.log(2)), rows)
    return np.where(varies | (rows <= 0), corrected, 0.0)


def mi_over_max(
    n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike, information: Array | None = None
) -> Array:
    """``mi_bits`` over ``max_mi_bits``, from 0 to 1: 1 for strict containment, however rare the child is.

    0 for independence and for a child that fires with its parent less than by chance: the bound is for a positive
    association, and two frequent latents that exclude each other would be far above it. NaN if one of the two never or
    always fires. Values that the correction for the sample's size moves outside the range are clipped.

    Args:
        information: ``mi_bits`` of the counts, if already known.
    """
    parent, child, both, rows = _float64(n_parent, n_child, n_both, n_rows)
    bits = mi_bits(parent, child, both, rows) if information is None else information
    share = ratio(np.where(both * rows < parent * child, 0.0, bits), max_mi_bits(parent, child, rows))
    return np.clip(share, 0.0, 1.0)


def mi_over_entropy(
    n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike, information: Array | None = None
) -> Array:
    """``mi_bits`` over h(c), from 0 to 1: the share of the child's uncertainty that the parent removes.

    NaN if the child never or always fires. It is 1 only if the two fire in the same rows, so a rare, perfectly
    contained child stays far below: ``mi_over_max`` is the measure of containment. Clipping and ``information`` are as
    for ``mi_over_max``.
    """
    _, child, _, rows = _float64(n_parent, n_child, n_both, n_rows)
    bits = mi_bits(n_parent, n_child, n_both, n_rows) if information is None else information
    return np.clip(ratio(bits, binary_entropy(ratio(child, rows))), 0.0, 1.0)


def max_mi_bits(n_parent: ArrayLike, n_child: ArrayLike, n_rows: ArrayLike) -> Array:
    """The information, in bits, that the pair would have if the rarer latent fired only when the other does.

    For c <= p, as in a tree, the child is within the parent: I_max = H(C) - H(C|P) = h(c) - p h(c/p). For c > p the
    child does not fit into its parent, and the parent is within the child: I_max = h(p) - c h(p/c). Both are the
    largest information that a positive association with these rates allows. 0 if one of the two never or always fires;
    NaN if there are no rows.
    """
    parent, child, rows = _float64(n_parent, n_child, n_rows)
    rarer, commoner = np.minimum(parent, child), np.maximum(parent, child)
    within = np.nan_to_num(ratio(rarer, commoner))
    bits = binary_entropy(ratio(rarer, rows)) - ratio(commoner, rows) * binary_entropy(within)
    # Equal rates of 0 or 1 leave a rounding error of either sign, which would look like a defined bound.
    varies = (rarer > 0) & (commoner < rows)
    return np.where(rows > 0, np.where(varies, bits, 0.0), np.nan)


def p_parent_given_child(n_child: ArrayLike, n_both: ArrayLike) -> Array:
    """P(parent | child) = n_both / n_child, the child's containment in its parent; NaN if the child never fires."""
    child, both = _float64(n_child, n_both)
    return ratio(both, child)


def p_child_given_parent(n_parent: ArrayLike, n_both: ArrayLike) -> Array:
    """P(child | parent) = n_both / n_parent; NaN if the parent never fires."""
    parent, both = _float64(n_parent, n_both)
    return ratio(both, parent)


def lift(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> Array:
    """P(parent, child) / (p c): how many times likelier the parent makes the child; NaN if either never fires."""
    parent, child, both, rows = _float64(n_parent, n_child, n_both, n_rows)
    return ratio(both * rows, parent * child)


def or_distance(n_parent: ArrayLike, n_any: ArrayLike, n_covered: ArrayLike) -> Array:
    """How far a parent is from the logical OR of its children: rows in which only one side fires over rows in which
    either does; 0 if they are the same.

    The numerator is the Hamming distance of Luo et al. (2026), arXiv 2602.11881; divided by the rows in which either
    side fires it is Jaccard's distance, which does not favour parents that hardly fire. NaN if neither side fires.

    Args:
        n_any: rows in which at least one child fires.
        n_covered: rows in which the parent and at least one child fire.
    """
    parent, any_child, covered = _float64(n_parent, n_any, n_covered)
    either = parent + any_child - covered
    return ratio(either - covered, either)


def sibling_overlap(n_children: ArrayLike, n_any: ArrayLike) -> Array:
    """The share of children's firings in addition to a sibling's: 1 - union / sum; NaN if no child fires.

    0 if siblings exclude each other, 1 - 1/n if n siblings always fire together. It does for firings what sibling
    diversity does for the words of topics: Wu et al. (2024), AAAI, arXiv 2401.14113.

    Args:
        n_children: sum over the children of the rows in which each fires.
        n_any: rows in which at least one fires.
    """
    children, any_child = _float64(n_children, n_any)
    return 1 - ratio(any_child, children)


def sibling_cosine(parent_F: NDArray[np.int64], decoder_FD: torch.Tensor) -> Array:
    """Mean cosine over the pairs of decoder rows of each parent's children, (P,), for parents with two or more.

    A row of zeros counts as orthogonal to all others.
    """
    child = np.flatnonzero(parent_F >= 0)
    _, family, size = np.unique(parent_F[child], return_inverse=True, return_counts=True)
    rows = decoder_FD[torch.from_numpy(child)].double().cpu()
    unit = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    total = torch.zeros(len(size), decoder_FD.shape[1], dtype=torch.float64)
    total.index_add_(0, torch.from_numpy(family), unit)
    squares = torch.zeros(len(size), dtype=torch.float64).index_add_(0, torch.from_numpy(family), unit.square().sum(1))
    # The squared length of a sum of unit vectors is their number plus twice the sum of the cosines of pairs.
    several = size > 1
    cosine_P: Array = (total.square().sum(1) - squares).numpy()[several] / (size * (size - 1.0))[several]
    return cosine_P


def binary_entropy(rate: ArrayLike) -> Array:
    """h(rate) = -rate log2(rate) - (1 - rate) log2(1 - rate), in bits; 0 at 0 and 1, NaN outside and for NaN."""
    (rate,) = _float64(rate)
    inside = (rate > 0) & (rate < 1)
    safe = np.where(inside, rate, 0.5)
    entropy = -safe * np.log2(safe) - (1 - safe) * np.log2(1 - safe)
    return np.where(inside, entropy, np.where((rate == 0) | (rate == 1), 0.0, np.nan))


def _float64(*values: ArrayLike) -> tuple[Array, ...]:
    """The values as float64 arrays with the same shape."""
    return np.broadcast_arrays(*(np.asarray(value, np.float64) for value in values))


def _n_log_n(count: Array) -> Array:
    """n log2 n; 0 for a count of 0, or below 0 by rounding."""
    return count * np.log2(np.maximum(count, 1e-300))
