"""Hierarchies that lack a part, for ``trees.py --ablate``: what is not worth an option of ``hiersae train``.

Legend of shapes: B rows, D width, C latents of one level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hiersae_cli.sae import HierarchicalSAE
from hiersae_cli.sae.sparse import SparseCode


class HardFromTheStart(HierarchicalSAE):
    """The gate is closed in every step: a child never fires without the parent that it has at the time."""

    def _codes(
        self, centred_BD: torch.Tensor, wanted: Sequence[float], closed: bool
    ) -> tuple[list[SparseCode], list[torch.Tensor]]:
        return super()._codes(centred_BD, wanted, closed=True)


class ReadsTheActivation(HierarchicalSAE):
    """Every level's encoder reads the activation, not what the levels above leave of it."""

    def _input(self, left: list[torch.Tensor]) -> torch.Tensor:
        return left[0]


class RandomTree(HierarchicalSAE):
    """Every place has a parent drawn once and for all; whatever latent stands there, and whenever they fire."""

    def _best_parents(self, level: int) -> torch.Tensor:
        width, above = self.widths[level], self.widths[level - 1]
        generator = torch.Generator().manual_seed(level)
        return torch.randint(above, (width,), generator=generator).to(self.parent_F.device)


ABLATIONS: dict[str, type[HierarchicalSAE]] = {
    "": HierarchicalSAE,
    "hard": HardFromTheStart,
    "activation": ReadsTheActivation,
    "random-tree": RandomTree,
}
