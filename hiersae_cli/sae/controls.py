"""Untrained dictionaries: the scores that any sparse code would get. Legend of shapes: see ``base``."""

from __future__ import annotations

import torch

from hiersae_cli.config.architectures import DictionaryOptions
from hiersae_cli.sae.flat import TopK

RANDOM, NEURONS, PCA = "random", "neurons", "pca"


@torch.no_grad()
def controls(mean_D: torch.Tensor, covariance_DD: torch.Tensor, latents: int, k: float, seed: int) -> dict[str, TopK]:
    """Controls for a dictionary of ``latents`` and mean L0 ``k``, by name, in evaluation mode on the mean's device.

    ``random`` has F random unit rows. ``neurons`` has the coordinates of the activations and ``pca`` their principal
    directions, each with both signs, so 2 D rows, the largest variance first. The encoder is the decoder's transpose,
    and the code has the k largest projections of x - mean (k rounded). For ``neurons`` and ``pca``, whose directions
    are orthogonal, these are the k with the smallest error.

    Args:
        mean_D, covariance_DD: mean and covariance of the activations.
    """
    generator = torch.Generator().manual_seed(seed)
    random_FD = torch.randn(latents, len(mean_D), generator=generator)
    variance_D, direction_DD = torch.linalg.eigh(covariance_DD.cpu().double())
    order_D = covariance_DD.cpu().diagonal().argsort(descending=True, stable=True)
    rows = {
        RANDOM: random_FD / random_FD.norm(dim=1, keepdim=True),
        NEURONS: _both_signs(torch.eye(len(mean_D))[order_D]),
        PCA: _both_signs(direction_DD[:, variance_D.argsort(descending=True)].T),
    }
    return {name: _dictionary(rows_FD, mean_D, k) for name, rows_FD in rows.items()}


def _both_signs(direction_DD: torch.Tensor) -> torch.Tensor:
    """Each row followed by its opposite: a code is never negative."""
    return torch.stack([direction_DD, -direction_DD], 1).flatten(0, 1)


def _dictionary(rows_FD: torch.Tensor, mean_D: torch.Tensor, k: float) -> TopK:
    latents, width = rows_FD.shape
    model = TopK(width, DictionaryOptions(widths=(latents,), k=(max(1, min(round(k), latents)),)))
    for parameter, value in ((model.W_enc_FD, rows_FD), (model.W_dec_FD, rows_FD), (model.b_dec_D, mean_D)):
        parameter.copy_(value)
    return model.to(mean_D.device).eval()
