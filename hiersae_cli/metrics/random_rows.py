"""Random directions that fill the same dimensions as some rows: the chance level of cosines.

Legend of shapes: F rows, D width.
"""

from __future__ import annotations

import torch

from hiersae_cli.metrics.recovery import unit_rows

_ROUNDS = 20  # of adjusting the variances


@torch.no_grad()
def random_rows_like(rows_FD: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """As many random unit rows (F, D) with the second-moment matrix of the unit rows, on their device.

    Along each principal direction of the rows, the random rows have the same mean square. So they lie in the same
    dimensions, and two such sets have about the mean squared cosine of the sets that they stand for.

    The rows are normal draws scaled to length 1. With the matrix of the rows as their covariance, they would be spread
    more evenly than the rows, so the variances are adjusted until the mean squares agree. Source of the distribution:
    Tyler (1987), Biometrika 74 (the angular central Gaussian distribution).
    """
    device = torch.device("cpu") if rows_FD.device.type == "mps" else rows_FD.device  # which has no eigenvectors
    unit_FD = unit_rows(rows_FD).to(device)
    square_D, principal_DD = torch.linalg.eigh(unit_FD.T @ unit_FD / len(unit_FD))
    square_D = square_D.clamp_min(0)
    draws_FD = torch.randn(len(unit_FD), len(square_D), generator=generator).to(device)
    variance_D = square_D.clone()
    for _ in range(_ROUNDS):
        random_FD = unit_rows(draws_FD * variance_D.sqrt())
        variance_D *= square_D / random_FD.square().mean(0).clamp_min(1e-12)
    return (unit_rows(draws_FD * variance_D.sqrt()) @ principal_DD.T).to(rows_FD.device)
