"""Stability: do two trainings with different seeds find the same tree?

Legend of shapes: F and G latents of the two dictionaries, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hiersae_cli.metrics.recovery import edge_recovery, match_features

Array = np.ndarray[Any, Any]


def recurring_edges(
    decoder_FD: torch.Tensor, parent_F: Array, decoder_GD: torch.Tensor, parent_G: Array, cosine: float = 0.7
) -> float:
    """Share of the edges of two trees that both have: twice the common ones over the edges of both.

    Latents are the same where the one-to-one matching of largest summed |cosine| pairs them with at least ``cosine``;
    an edge recurs where its two ends do, in the same direction. Symmetric, 0 without an edge.

    Args:
        decoder_FD, decoder_GD: decoder rows of the two dictionaries.
        parent_F, parent_G: index of each latent's parent within its dictionary, ``NONE`` for roots.
    """
    matching = match_features(decoder_FD, decoder_GD)
    # With one tree in the truth's place: precision is over the edges of the first, recall over those of the other.
    return edge_recovery(matching, parent_F, parent_G, np.ones(len(parent_G), bool), cosine).f1
