"""Hierarchy score: do a parent and its child both stand for what a linear probe finds in the activations?

Firing statistics alone can be gamed: a parent that fires nearly always contains any child. Here the child's
firing is probed on the raw activations, and an edge is a hit where the decoder rows of parent *and* child are both
among the few nearest, by cosine, to the probe's direction. Source: the reconstruction condition of Cao et al.
(2026), Tree SAE, arXiv 2605.07922; the probe is ours, see ``ProbeSums.directions``.

Legend of shapes: B rows of a batch, D width, F latents, E edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]

NEAREST = 5  # latents to a probe's direction, among which the ends of a hit must be


class ProbeSums:
    """Second moments of the activations, and their sums over the rows in which each latent fires.

    Args:
        centre_D: a point near the mean, subtracted before anything is squared, for precision.
        latents: F.
    """

    def __init__(self, centre_D: torch.Tensor, latents: int):
        width = len(centre_D)
        self.centre_D = centre_D
        self.rows = 0
        self.sum_D = torch.zeros(width, dtype=torch.float64)
        self.square_DD = torch.zeros(width, width, dtype=torch.float64)
        self.fired_F = torch.zeros(latents, dtype=torch.float64)
        self.fired_sum_FD = torch.zeros(latents, width, dtype=torch.float64)

    def add(self, x_BD: torch.Tensor, code_BF: torch.Tensor) -> None:
        """Take in a batch of activations and codes, on one device."""
        y_BD = x_BD - self.centre_D.to(x_BD)
        fired_BF = (code_BF > 0).to(y_BD.dtype)
        self.rows += len(y_BD)
        for held, found in (
            (self.sum_D, y_BD.sum(0)),
            (self.square_DD, y_BD.T @ y_BD),
            (self.fired_F, fired_BF.sum(0)),
            (self.fired_sum_FD, fired_BF.T @ y_BD),
        ):
            held += found.cpu()

    def directions(self, ridge: float = 1.0) -> torch.Tensor:
        """The probe of every latent's firing, (F, D) float64: ridge regression of its 0-1 indicator.

        With S the covariance of all rows the normal equations are (S + r I) w = p (1 - p) (m1 - m0), m1 and m0
        the means over rows with and without the firing: one decomposition serves all latents, and without r
        the direction is that of Fisher's linear discriminant, which leans away from whatever fires beside the child
        and follows noise for rare ones: with next to no r even a true dictionary with its true tree scores
        about .8, with ``ridge`` = 1 it scores 1. r is ``ridge`` times the median of S's diagonal, so that a few
        coordinates of huge variance, which activations of language models have, do not set it.
        Source: Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, ch. 3.4 and 4.3.
        """
        mean_D = self.sum_D / self.rows
        covariance_DD = self.square_DD / self.rows - torch.outer(mean_D, mean_D)
        typical = torch.maximum(covariance_DD.diagonal().median(), 1e-6 * covariance_DD.diagonal().mean())
        covariance_FD = (self.fired_sum_FD - self.fired_F[:, None] * mean_D) / self.rows
        # By eigenvectors, for a sample of few rows leaves S singular, with eigenvalues a rounding error below 0.
        value_D, vector_DD = torch.linalg.eigh(covariance_DD)
        return (covariance_FD @ vector_DD / (value_D.clamp_min(0) + ridge * typical.clamp_min(1e-30))) @ vector_DD.T


def hierarchy_hits(
    direction_ED: torch.Tensor,
    decoder_FD: torch.Tensor,
    child_E: torch.Tensor,
    parent_E: torch.Tensor,
    nearest: int = NEAREST,
) -> Array:
    """Which edges are hits, (E,) bool: both ends among the ``nearest`` decoder rows to the child's probe."""
    rows_FD = decoder_FD.double() / decoder_FD.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
    # The length of a direction does not change which rows are nearest to it.
    close_EN = (direction_ED @ rows_FD.T).topk(min(nearest, len(rows_FD)), dim=1).indices
    both_E = (close_EN == child_E[:, None]).any(1) & (close_EN == parent_E[:, None]).any(1)
    return both_E.numpy()
