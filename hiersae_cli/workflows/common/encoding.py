"""Codes of many rows as sparse firings, so that no dense code takes more than a few megabytes.

Legend of shapes: B rows, D width, F latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hiersae_cli.metrics.firings import Firings
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.sae.kernels.sparse import SparseCode

# Numbers in a dense code on the CPU: a larger code does not fit the caches and takes 1.5 times as long.
_CELLS = 1 << 22


def firings_of(
    model: SparseAutoencoder,
    x_BD: torch.Tensor,
    batch: int,
    codes: Callable[[torch.Tensor], list[SparseCode]] | None = None,
) -> Firings:
    """The firings of activations (B, D) on the model's device, encoded at most ``batch`` rows at a time."""
    if x_BD.device.type == "cpu":
        batch = max(1, min(batch, _CELLS // model.latents))
    return Firings.joined([_firings((codes or model.codes)(part_BD)) for part_BD in x_BD.split(batch)])


def _firings(codes: list[SparseCode]) -> Firings:
    place_n, order_n = torch.cat([code.pattern.place_n for code in codes]).sort(stable=True)
    value_n = torch.cat([code.value_n.detach() for code in codes])[order_n]
    fired_n = value_n > 0
    pattern = codes[0].pattern
    columns = [column[fired_n].cpu().numpy() for column in (place_n, value_n.float())]
    return Firings(pattern.rows, pattern.latents, *columns)


def decoded(model: SparseAutoencoder, firings: Firings) -> torch.Tensor:
    """The reconstruction (B, D) of a code, on the model's device: weighted sums of a few decoder rows."""
    device = model.W_dec_FD.device
    latent_n, value_n = (torch.from_numpy(column).to(device) for column in (firings.latent_n, firings.value_n))
    start_B = torch.from_numpy(firings.indicator.indptr[:-1]).long().to(device)
    sums_BD = torch.nn.functional.embedding_bag(
        latent_n, model.W_dec_FD, start_B, per_sample_weights=value_n, mode="sum"
    )
    return sums_BD + model.b_dec_D
