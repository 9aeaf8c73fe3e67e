"""Hierarchy score: do parent and child both point to what a linear probe finds in the activations?

A parent can win firing statistics by firing nearly always, because it then contains any child. Here a linear probe
predicts the child's firing from the raw activations, and an edge is a hit if the decoder rows of parent *and* child are
both among the few nearest, by cosine, to the probe's direction. Source: the reconstruction condition of Cao et al.
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

NEAREST = 5  # both ends of a hit must be among this many latents nearest to the probe's direction
_CELLS = 1 << 24  # in a table of cosines at a time


class ProbeSums:
    """Sums of the activations over the rows in which each latent fires.

    Args:
        moments: of the same rows' activations, summed by the caller; shared by all models.
        latents: F.
    """

    summed = ("fired_F", "fired_sum_FD")  # see ``workflows.common.sharing``

    def __init__(self, moments: Moments, latents: int):
        self.moments = moments
        self.fired_F = np.zeros(latents)
        self.fired_sum_FD = np.zeros((latents, len(moments.centre_D)))

    def add(self, x_BD: torch.Tensor, firings: Firings) -> None:
        """Add a batch of activations, on the CPU, with its firings."""
        y_BD = (x_BD - self.moments.centre_D).numpy()
        self.fired_F += np.bincount(firings.latent_n, minlength=firings.latents)
        self.fired_sum_FD += firings.indicator.T @ y_BD

    def directions(self, ridge: float = 1.0) -> torch.Tensor:
        """The probe of every latent's firing, (F, D) float64: ridge regression of its 0-1 indicator.

        With S the covariance of all rows, the normal equations are (S + r I) w = p (1 - p) (m1 - m0), with m1 and m0
        the means over rows with and without the firing, so a single decomposition serves all latents. Without r, the
        direction would be that of Fisher's linear discriminant, which turns away from latents that fire together with
        the child and follows noise for rare children: with hardly any r, even a true dictionary with its true tree
        scores about .8; with ``ridge`` = 1 it scores 1. r is ``ridge`` times the median of S's diagonal, so that a few
        coordinates with huge variance, which language models have, do not decide it.
        Source: Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, ch. 3.4 and 4.3.
        """
        rows, covariance_DD = self.moments.rows, self.moments.covariance_DD
        typical = torch.maximum(covariance_DD.diagonal().median(), 1e-6 * covariance_DD.diagonal().mean())
        mean_D, fired_F = self.moments.sum_D / rows, torch.from_numpy(self.fired_F)
        covariance_FD = (torch.from_numpy(self.fired_sum_FD) - fired_F[:, None] * mean_D) / rows
        # With eigenvectors, because few rows leave S singular, with eigenvalues a rounding error below 0.
        value_D, vector_DD = torch.linalg.eigh(covariance_DD)
        return (covariance_FD @ vector_DD / (value_D.clamp_min(0) + ridge * typical.clamp_min(1e-30))) @ vector_DD.T


def nearest_latents(direction_FD: torch.Tensor, decoder_FD: torch.Tensor, nearest: int = NEAREST) -> Array:
    """The latents (F, N) whose decoder rows are nearest, by cosine, to each probe's direction; in no order."""
    rows_FD = decoder_FD.double() / decoder_FD.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
    # The length matters only for float32, in which the probe of a latent that hardly fires would become 0.
    unit_FD = direction_FD / direction_FD.norm(dim=1, keepdim=True).clamp_min(1e-300)
    parts = unit_FD.float().split(max(1, _CELLS // len(rows_FD)))
    nearest = min(nearest, len(rows_FD))
    return torch.cat([(part @ rows_FD.float().T).topk(nearest, dim=1, sorted=False).indices for part in parts]).numpy()


def hierarchy_hits(near_FN: Array, child_E: Array, parent_E: Array) -> Array:
    """Whether both ends of each edge are among the latents ``near_FN`` nearest to the probe of its child, (E,) bool."""
    near_EN = near_FN[child_E]
    hit_E: Array = (near_EN == child_E[:, None]).any(1) & (near_EN == parent_E[:, None]).any(1)
    return hit_E
