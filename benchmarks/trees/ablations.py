"""Variants for ``--ablate`` and ``--control``: architectures that are not worth an option of ``hiersae train``.

Training and evaluation find them by name once ``VARIANTS`` have been added to ``ARCHITECTURES``.
Legend of shapes: B rows, D width, F latents, C latents of one level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hiersae_cli.config.architectures import Architecture, HierOptions
from hiersae_cli.sae import BatchTopK, HierarchicalSAE, Step, StepContext
from hiersae_cli.sae.base import Reading
from hiersae_cli.sae.hier import BASE_PRICE, KEEP, price_of
from hiersae_cli.sae.kernels.sparse import SparseCode
from hiersae_cli.sae.tree import smoothed


class HardFromTheStart(HierarchicalSAE):
    """The gate is closed in every step: a child never fires without its current parent."""

    def _codes(
        self, centred_BD: torch.Tensor, target_l0: Sequence[float], closed: bool
    ) -> tuple[list[SparseCode], list[torch.Tensor]]:
        return super()._codes(centred_BD, target_l0, closed=True)

    def weights(self) -> dict[str, torch.Tensor]:
        """With the gate marked as closed, because it is closed at inference too."""
        return {**super().weights(), "hard": torch.tensor(True)}


class ReadsTheActivation(HierarchicalSAE):
    """Every level's encoder reads the activation, not what the levels above leave of it."""

    def _encoder_input(self, residuals: list[torch.Tensor]) -> torch.Tensor:
        return residuals[0]


class RandomTree(HierarchicalSAE):
    """Every latent has a random parent that never changes, whatever fires together."""

    def _best_parents(self, level: int) -> torch.Tensor:
        width, above = self.widths[level], self.widths[level - 1]
        generator = torch.Generator().manual_seed(level)
        return torch.randint(above, (width,), generator=generator).to(self.parent_F.device)


class Priced(BatchTopK):
    """A flat dictionary with the hierarchy's price but no tree: a firing costs its code length at its latent's rate.

    The price fades in, and old counts are forgotten, as in the hierarchy.

    Args:
        width: D.
        options: only ``tree_weight``, ``tree_every`` and ``curriculum`` matter in addition to those of BatchTopK.
    """

    price_F: torch.Tensor
    fired_F: torch.Tensor
    rows: torch.Tensor

    training_only = ("fired_F", "rows")

    def __init__(self, width: int, options: HierOptions):
        super().__init__(width, options)
        self.weight, self.every, self.curriculum = options.tree_weight, options.tree_every, options.phases
        self.register_buffer("price_F", torch.full((self.latents,), BASE_PRICE))
        self.register_buffer("fired_F", torch.zeros(self.latents))
        self.register_buffer("rows", torch.zeros(()))

    def _sparse(self, reading: Reading, first: bool) -> SparseCode:
        threshold = (self.threshold_first_L if first else self.threshold_L)[0]
        whole = slice(0, self.latents)
        return self._select(
            reading, whole, threshold, self.k[0], lambda pattern, _: self.price_F[pattern.latent_n], self.price_F
        )

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        step = super().step(x_BD, context)
        if self.training:
            self.fired_F += step.codes[0].fired.counts()
            self.rows += len(x_BD)
        return step

    def after_step(self, context: StepContext) -> torch.Tensor | None:
        if (context.number + 1) % self.every == 0:
            self._update_prices(self.curriculum.at(context.progress).tree)
        return super().after_step(context)

    def finish(self) -> None:
        self._update_prices(1.0)

    @torch.no_grad()
    def _update_prices(self, strength: float) -> None:
        self.price_F.copy_(price_of(smoothed(self.fired_F, self.rows), strength * self.weight))
        self.fired_F *= KEEP
        self.rows *= KEEP


# By the name of the ablation, a value of --ablate.
ABLATIONS = {"hard": HardFromTheStart, "activation": ReadsTheActivation, "random-tree": RandomTree}
VARIANTS = {
    name: Architecture(f"{__name__}:{model.__name__}", HierOptions, levels=True) for name, model in ABLATIONS.items()
} | {"priced": Architecture(f"{__name__}:Priced", HierOptions)}
