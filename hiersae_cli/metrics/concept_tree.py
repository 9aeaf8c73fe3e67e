"""Does the tree of latents follow a hierarchy of concepts?

Legend of shapes: F latents, C concepts, E pairs of a concept and its parent.

The *detector* of a concept is the latent whose firing correlates most with it (phi), on rows other than those for the
score. A pair of a parent and a child concept is found if the tree has the edge from the parent's detector to the
child's; it counts as much as the phi of the weaker detector. So a score of 1 needs perfect detectors that are joined
like the concepts. A latent that always fires has phi 0 for any concept, and a latent that detects both parent and child
has no edge to itself. With credit for ancestors, the pair is found if the child's detector lies anywhere below the
parent's. Chance is the score of wrong pairs: each child with parents that it does not belong to. These have detectors
as good and as high in the tree, so only a tree that follows the concepts is above chance. The measure is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.ratio import ratio

Array = np.ndarray[Any, Any]

_MOSTLY_INSIDE = 0.5  # a concept with this share of another's rows may truly be above it


def detectors(phi_CF: Array) -> Array:
    """The latent (C,) that detects each concept best; ``NONE`` if none is better than chance."""
    best_C = phi_CF.argmax(1)
    return np.where(phi_CF.max(1) > 0, best_C, NONE)


def in_tree(detector_C: Array, parent_C: Array, tree_F: Array) -> Array:
    """Whether the tree joins the detector of each concept to that of its parent, (C,) bool.

    Args:
        parent_C: the parent of each concept, ``NONE`` for roots, which have no edge.
        tree_F: the parent of each latent, ``NONE`` for roots.
    """
    below_C = np.where(detector_C == NONE, NONE, tree_F[detector_C])
    above_C = np.where(parent_C == NONE, NONE, detector_C[parent_C])
    return (below_C == above_C) & (above_C != NONE)


def pair_scores(phi_C: Array, parent_C: Array, edge_C: Array) -> Array:
    """The score of each pair of a concept and its parent, (E,) in the order of the children; their mean is the score.

    Args:
        phi_C: of the detectors, on rows other than those that chose them.
        edge_C: whether the tree joins each concept's detector to its parent's, see ``in_tree``, or the share of trees
            that do.
    """
    child_E = np.flatnonzero(parent_C != NONE)
    score_E: Array = np.minimum(phi_C[child_E], phi_C[parent_C[child_E]]).clip(0) * edge_C[child_E]
    return score_E


def lies_below(detector_C: Array, tree_F: Array) -> Array:
    """Whether the first concept's detector lies at any depth below the second's, (C, C) bool.

    Trees with shuffled parents may have circles; a latent is never below itself.
    """
    below_CC = np.zeros((len(detector_C), len(detector_C)), bool)
    for latent in np.unique(detector_C[detector_C != NONE]):
        above: set[int] = set()
        higher = int(tree_F[latent])
        while higher != NONE and higher not in above:
            above.add(higher)
            higher = int(tree_F[higher])
        below_CC[detector_C == latent] = np.isin(detector_C, list(above - {int(latent)}))
    return below_CC


def of_pairs(below_CC: Array, parent_C: Array) -> Array:
    """Whether the detector of each concept lies below that of its parent, (C,) bool, from ``lies_below``."""
    below_C: Array = below_CC[np.arange(len(parent_C)), parent_C] & (parent_C != NONE)
    return below_C


def shared_detectors(detector_C: Array, parent_C: Array) -> Array:
    """Whether each concept has the same detector as its parent, (C,) bool."""
    shared_C: Array = (detector_C == detector_C[parent_C]) & (detector_C != NONE) & (parent_C != NONE)
    return shared_C


def chance_scores(phi_C: Array, parent_C: Array, inside_CC: Array, below_CC: Array) -> Array:
    """The mean score of each child with wrong parents, (E,) as ``pair_scores``; NaN if a child has none.

    A wrong parent is a concept with children, not below the child, that less than half of the child's rows belong to.

    Args:
        inside_CC: the share of the first concept's rows that belong to the second.
        below_CC: from ``lies_below``.
    """
    above_CC = np.eye(len(parent_C), dtype=bool)
    for concept, parent in enumerate(parent_C):  # parents come first
        if parent != NONE:
            above_CC[concept] |= above_CC[parent]
    wrong_CC = np.isin(np.arange(len(parent_C)), parent_C) & (inside_CC < _MOSTLY_INSIDE) & ~above_CC & ~above_CC.T
    score_CC = np.minimum(phi_C[:, None], phi_C).clip(0) * below_CC
    return ratio((score_CC * wrong_CC).sum(1), wrong_CC.sum(1))[parent_C != NONE]


def depths(tree_F: Array) -> Array:
    """The number of latents above each latent in a tree, (F,)."""
    depth_F = np.zeros(len(tree_F), np.int64)
    above_F = tree_F.copy()
    while (above_F != NONE).any():
        depth_F += above_F != NONE
        above_F = np.where(above_F == NONE, NONE, tree_F[above_F])
    return depth_F
