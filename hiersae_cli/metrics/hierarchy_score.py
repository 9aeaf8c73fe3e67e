"""Hierarchy score: do a parent and its child both stand for what a linear probe finds in the activations?

Firing statistics alone can be gamed: a parent that fires nearly always contains any child. Here the child's
firing is probed on the raw activations, and an edge is a hit where the decoder rows of parent *and* child are both
among the few nearest, by cosine, to the probe's direction. Source: the reconstruction condition of Cao et al.
(2026), Tree SAE, arXiv 2605.07922; the probe is ours, see ``ProbeSums.directions``.

Legend of shapes: B rows of a batch, D width, F latents, E edges, N latents nearest to a probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.reconstruction import Moments

Array = np.ndarray[Any, Any]

NEAREST = 5  # latents to a probe's direction, among which the ends of a hit must be
_CELLS = 1 << 24  # of a table of cosines at a time


class ProbeSums:
    """Sums of the activations over the rows in which each latent fires.

    Args:
        moments: of the same rows' activations, gathered beside; one for all models.
        latents: F.
    """

    def __init__(self, moments: Moments, latents: int):
        self.moments = moments
        self.fired_F = np.zeros(latents)
        self.fired_sum_FD = np.zeros((latents, len(moments.centre_D)))

    def add(self, x_BD: torch.Tensor, firings: Firings) -> None:
        """Take in a batch of activations, on the CPU, with what fires in it."""
        y_BD = (x_BD - self.moments.centre_D).numpy()
        self.fired_F += np.bincount(firings.latent_n, minlength=firings.latents)
        self.fired_sum_FD += firings.indicator.T @ y_BD

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
        rows, covariance_DD = self.moments.rows, self.moments.covariance_DD
        typical = torch.maximum(covariance_DD.diagonal().median(), 1e-6 * covariance_DD.diagonal().mean())
        mean_D, fired_F = self.moments.sum_D / rows, torch.from_numpy(self.fired_F)
        covariance_FD = (torch.from_numpy(self.fired_sum_FD) - fired_F[:, None] * mean_D) / rows
        # By eigenvectors, for a sample of few rows leaves S singular, with eigenvalues a rounding error below 0.
        value_D, vector_DD = torch.linalg.eigh(covariance_DD)
        return (covariance_FD @ vector_DD / (value_D.clamp_min(0) + ridge * typical.clamp_min(1e-30))) @ vector_DD.T


def nearest_latents(direction_FD: torch.Tensor, decoder_FD: torch.Tensor, nearest: int = NEAREST) -> Array:
    """The latents (F, N) whose decoder rows are nearest, by cosine, to each probe's direction; in no order."""
    rows_FD = decoder_FD.double() / decoder_FD.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
    # The length of a direction matters only to float32, which holds no probe of a latent that hardly fires.
    unit_FD = direction_FD / direction_FD.norm(dim=1, keepdim=True).clamp_min(1e-300)
    parts = unit_FD.float().split(max(1, _CELLS // len(rows_FD)))
    nearest = min(nearest, len(rows_FD))
    return torch.cat([(part @ rows_FD.float().T).topk(nearest, dim=1, sorted=False).indices for part in parts]).numpy()


def hierarchy_hits(near_FN: Array, child_E: Array, parent_E: Array) -> Array:
    """Which edges are hits, (E,) bool: both ends among the latents ``near_FN`` to the child's probe."""
    near_EN = near_FN[child_E]
    found: Array = (near_EN == child_E[:, None]).any(1) & (near_EN == parent_E[:, None]).any(1)
    return found
