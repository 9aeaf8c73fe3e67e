"""Parent-child statistics: what the firing of one latent says about the firing of another.

Firing is binary here. Every function takes counts over the same sample of rows, as NumPy arrays, CPU tensors
or numbers whose shapes broadcast, and returns NumPy float64 arrays of the broadcast shape:

    n_parent: rows in which the parent fires        n_child: rows in which the child fires
    n_both: rows in which both fire                 n_rows: rows looked at

A statistic that the counts do not define is NaN, never 0: so a mean over edges must say what it leaves out.
p = n_parent / n_rows and c = n_child / n_rows below; h is the binary entropy in bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from hiersae_cli.sae.tree import mutual_information

Array = np.ndarray[Any, np.dtype[np.float64]]


def edge_statistics(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> dict[str, Array]:
    """All statistics of this module by the names that reports and trees use."""
    return {
        "mi_bits": mi_bits(n_parent, n_child, n_both, n_rows),
        "mi_over_max": mi_over_max(n_parent, n_child, n_both, n_rows),
        "mi_over_entropy": mi_over_entropy(n_parent, n_child, n_both, n_rows),
        "p_parent_given_child": p_parent_given_child(n_child, n_both),
        "p_child_given_parent": p_child_given_parent(n_parent, n_both),
        "lift": lift(n_parent, n_child, n_both, n_rows),
    }


def mi_bits(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> Array:
    """I(parent; child) in bits, Miller-Madow corrected (see ``sae.tree.mutual_information``).

    Slightly negative for independent latents: the correction takes out the mean of the plug-in estimate's bias.
    0 where one of the two never or always fires; NaN where there are no rows.
    """
    parent, child, both, rows = _float64(n_parent, n_child, n_both, n_rows)
    information = mutual_information(*(torch.from_numpy(counts) for counts in (both, child, parent, rows)))
    return np.where(rows > 0, information.numpy(), np.nan)


def mi_over_max(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> Array:
    """``mi_bits`` over ``max_mi_bits``: 1 for strict containment however rare the child, 0 for independence.

    NaN where one of the two never or always fires. Above 1 where two frequent latents exclude each other, and
    by the correction's 1 / (2 N ln 2) bits where the two fire in exactly the same rows.
    """
    return _ratio(mi_bits(n_parent, n_child, n_both, n_rows), max_mi_bits(n_parent, n_child, n_rows))


def mi_over_entropy(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> Array:
    """``mi_bits`` over h(c): the share of the child's uncertainty that the parent takes away.

    NaN where the child never or always fires. Reaches 1 only where the two fire in the same rows, so a rare
    and perfectly contained child stays far below: ``mi_over_max`` is the measure of containment.
    """
    _, child, _, rows = _float64(n_parent, n_child, n_both, n_rows)
    return _ratio(mi_bits(n_parent, n_child, n_both, n_rows), binary_entropy(_ratio(child, rows)))


def max_mi_bits(n_parent: ArrayLike, n_child: ArrayLike, n_rows: ArrayLike) -> Array:
    """The information, in bits, that the pair would have if the rarer latent fired only where the other does.

    For c <= p, as in a tree: the child within the parent, I_max = H(C) - H(C|P) = h(c) - p h(c/p). For c > p
    no child fits into its parent, and the parent lies within the child: I_max = h(p) - c h(p/c). Both are the
    largest information that a positive association with these rates allows. 0 where one of the two never or
    always fires; NaN where there are no rows.
    """
    parent, child, rows = _float64(n_parent, n_child, n_rows)
    rarer, commoner = np.minimum(parent, child), np.maximum(parent, child)
    within = np.nan_to_num(_ratio(rarer, commoner))
    found = binary_entropy(_ratio(rarer, rows)) - _ratio(commoner, rows) * binary_entropy(within)
    # Equal rates of 0 or 1 leave a rounding error of either sign, which would pass for a defined ratio.
    varies = (rarer > 0) & (commoner < rows)
    return np.where(rows > 0, np.where(varies, found, 0.0), np.nan)


def p_parent_given_child(n_child: ArrayLike, n_both: ArrayLike) -> Array:
    """P(parent | child) = n_both / n_child, the child's containment in its parent; NaN if the child never fires."""
    child, both = _float64(n_child, n_both)
    return _ratio(both, child)


def p_child_given_parent(n_parent: ArrayLike, n_both: ArrayLike) -> Array:
    """P(child | parent) = n_both / n_parent; NaN if the parent never fires."""
    parent, both = _float64(n_parent, n_both)
    return _ratio(both, parent)


def lift(n_parent: ArrayLike, n_child: ArrayLike, n_both: ArrayLike, n_rows: ArrayLike) -> Array:
    """P(parent, child) / (p c): how many times likelier the parent makes the child; NaN if one of them never fires."""
    parent, child, both, rows = _float64(n_parent, n_child, n_both, n_rows)
    return _ratio(both * rows, parent * child)


def binary_entropy(rate: ArrayLike) -> Array:
    """h(rate) = -rate log2(rate) - (1 - rate) log2(1 - rate), in bits; 0 at 0 and at 1, NaN outside and for NaN."""
    (rate,) = _float64(rate)
    inside = (rate > 0) & (rate < 1)
    safe = np.where(inside, rate, 0.5)
    entropy = -safe * np.log2(safe) - (1 - safe) * np.log2(1 - safe)
    return np.where(inside, entropy, np.where((rate == 0) | (rate == 1), 0.0, np.nan))


def _float64(*values: ArrayLike) -> list[Array]:
    """As float64 arrays of one shape; copies, for torch refuses read-only memory."""
    arrays = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in values))
    return [np.array(array) for array in arrays]


def _ratio(of: Array, to: Array) -> Array:
    return np.divide(of, to, out=np.full(np.shape(of), np.nan), where=to != 0)
