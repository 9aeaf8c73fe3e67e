"""Which latents swap levels while the tree anneals.

Legend of shapes: F latents of all levels, C latents of one level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hiersae_cli.sae.tree import LEAST_COUNT, CoActivation

_WITHIN = 0.4  # excess containment from which a latent counts as a child of another latent of its level
_OUTSIDE = 0.15  # excess containment below which a latent counts as no child
_MARGIN = 1.2  # how much more frequent a parent must be: of two latents for one feature, neither is the parent


@torch.no_grad()
def exchange(
    parts: Sequence[slice], own_counts: Sequence[CoActivation], counts: Sequence[CoActivation]
) -> torch.Tensor | None:
    """The new order (F,) of the latents; None if all stay.

    A latent that lies within a more frequent latent of its level moves one level down. Its place goes to the most
    frequent latent of the lower level that lies within no latent of the upper one. So no level keeps latents that only
    refine others.

    Args:
        parts: the latents of each level.
        own_counts: joint firings of each level but the last with itself.
        counts: joint firings of each level but the first with the level above.
    """
    order_F = torch.arange(parts[-1].stop, device=counts[0].parent_P.device)
    stays_F = torch.ones_like(order_F, dtype=torch.bool)
    for level, (within_level, across) in enumerate(zip(own_counts, counts, strict=True)):
        upper, lower = parts[level], parts[level + 1]
        rarer_CC = within_level.parent_P > _MARGIN * within_level.child_F[:, None]
        within_C = (within_level.containment() * rarer_CC).amax(1)
        uncontained_C = (across.containment().amax(1) < _OUTSIDE) & (across.child_F >= LEAST_COUNT)
        down = _ranked((within_C > _WITHIN) & stays_F[upper], within_C) + upper.start
        up = _ranked(uncontained_C & stays_F[lower], across.child_F) + lower.start
        swaps = min(len(up), len(down))
        falling, rising = down[:swaps], up[:swaps]
        order_F[falling], order_F[rising] = rising, falling
        stays_F[falling] = stays_F[rising] = False
    return None if stays_F.all() else order_F


def _ranked(mask_C: torch.Tensor, score_C: torch.Tensor) -> torch.Tensor:
    """The places where ``mask_C`` holds, the largest score first."""
    places = mask_C.nonzero().squeeze(1)
    return places[score_C[places].argsort(descending=True, stable=True)]
