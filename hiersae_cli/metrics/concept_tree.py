"""Does the tree of latents follow a hierarchy of concepts?

Legend of shapes: F latents, C concepts, E pairs of a concept and its parent.

The *detector* of a concept is the latent whose firing correlates most with it (phi), on other rows than those that the
score is taken of. A pair of a parent and a child concept is found where the tree has the edge from the parent's
detector to the child's; it counts as much as the weaker of the two detects. So a score of 1 asks for perfect
detectors that are joined as the concepts are; a latent that fires always has phi 0 whatever the concept's share, and a
detector that is good for parent and child alike joins nothing. The measure is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.metrics.firings import NONE

Array = np.ndarray[Any, Any]


def detectors(phi_CF: Array) -> Array:
    """The latent (C,) that detects each concept best; ``NONE`` where none does better than chance."""
    best_C = phi_CF.argmax(1)
    return np.where(phi_CF.max(1) > 0, best_C, NONE)


def in_tree(detector_C: Array, parent_C: Array, tree_F: Array) -> Array:
    """Whether the tree has the edge from the detector of each concept's parent to its own, (C,) bool.

    Args:
        parent_C: the parent of each concept, ``NONE`` for roots, which have no edge.
        tree_F: the parent of each latent, ``NONE`` for roots.
    """
    below_C = np.where(detector_C == NONE, NONE, tree_F[detector_C])
    above_C = np.where(parent_C == NONE, NONE, detector_C[parent_C])
    return (below_C == above_C) & (above_C != NONE)


def pair_scores(phi_C: Array, parent_C: Array, edge_C: Array) -> Array:
    """What is found of each pair of a concept and its parent, (E,) in the order of the children.

    Their mean is the score.

    Args:
        phi_C: of the detectors, on rows that they were not chosen by.
        edge_C: whether the tree joins each concept's detector to its parent's, see ``in_tree``, or in what share of
            trees.
    """
    child_E = np.flatnonzero(parent_C != NONE)
    found: Array = np.minimum(phi_C[child_E], phi_C[parent_C[child_E]]).clip(0) * edge_C[child_E]
    return found


def depths(tree_F: Array) -> Array:
    """How many latents stand above each in a tree, (F,)."""
    depth_F = np.zeros(len(tree_F), np.int64)
    above_F = tree_F.copy()
    while (above_F != NONE).any():
        depth_F += above_F != NONE
        above_F = np.where(above_F == NONE, NONE, tree_F[above_F])
    return depth_F
