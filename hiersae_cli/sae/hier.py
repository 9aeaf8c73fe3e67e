"""The hierarchical sparse autoencoder: coarse latents, fine latents on what they leave, a soft tree.

Legend of shapes: B rows, D width, P coarse latents, F fine latents.
"""

from __future__ import annotations

import torch

from hiersae_cli.sae.base import SparseAutoencoder, Step
from hiersae_cli.sae.curriculum import Curriculum
from hiersae_cli.sae.tree import NO_PARENT, CoActivation

BASE_PRICE = 6.0  # bits: the price of every firing while the tree is not in force
PRICE_RANGE = (0.5, 13.0)  # bits: no firing is free, none is impossible
_KEEP = 0.9  # of the counts, at each refresh of the tree


class HierarchicalSAE(SparseAutoencoder):
    """Two levels: a coarse code that reconstructs alone, and a fine code of its residual.

    A latent fires where the energy that it explains, z^2, is worth its price; the threshold is set so
    that the wanted number fire. The price is the code length of the firing, log2((1 - q) / q) bits, with
    q the latent's probability of firing: for a fine latent, given whether its parent fires. A child is
    cheap where its parent has announced it and dear where not, and the bits so saved are the mutual
    information of parent and child: the tree is soft, and information is what holds it.

    Args:
        width: D.
        widths: (P, F).
        k: wanted L0 of each level.
        coarse_weight: weight of the coarse reconstruction's own loss.
        tree_weight: 0 keeps the constant price, 1 takes the code length whole.
        tree_every: steps between re-assignments of parents.
        curriculum: phases of training.
    """

    parent_F: torch.Tensor
    price_on_F: torch.Tensor
    price_off_F: torch.Tensor
    price_P: torch.Tensor

    def __init__(
        self,
        width: int,
        widths: tuple[int, ...],
        k: tuple[int, ...],
        coarse_weight: float = 0.25,
        tree_weight: float = 0.5,
        tree_every: int = 50,
        curriculum: Curriculum | None = None,
    ):
        super().__init__(width, widths, k)
        self.coarse_weight, self.tree_weight, self.tree_every = coarse_weight, tree_weight, tree_every
        self.curriculum = curriculum or Curriculum()
        parents, children = widths
        self.counts = CoActivation(parents, children)
        self.register_buffer("parent_F", torch.full((children,), NO_PARENT))
        self.register_buffer("price_on_F", torch.full((children,), BASE_PRICE))
        self.register_buffer("price_off_F", torch.full((children,), BASE_PRICE))
        self.register_buffer("price_P", torch.full((parents,), BASE_PRICE))
        self._coarse, self._fine = self.level_slices()

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        pre_BP = self._pre_activation(x_BD - self.b_dec_D, self._coarse)
        code_BP = pre_BP * (self._coarse_score(pre_BP) >= self.threshold_L[0])
        residual_BD = x_BD - self.decode_coarse(code_BP)
        pre_BF = self._pre_activation(residual_BD, self._fine)
        code_BF = pre_BF * (self._fine_score(pre_BF, code_BP > 0) >= self.threshold_L[1])
        return torch.cat([code_BP, code_BF], dim=1)

    def decode_coarse(self, code_BP: torch.Tensor) -> torch.Tensor:
        """The reconstruction (B, D) from coarse latents alone."""
        return code_BP @ self.W_dec_FD[self._coarse] + self.b_dec_D

    def step(self, x_BD: torch.Tensor, progress: float) -> Step:
        phase = self.curriculum.at(progress)
        pre_BP = self._pre_activation(x_BD - self.b_dec_D, self._coarse)
        code_BP = pre_BP * self._select_batch(self._coarse_score(pre_BP), 0, self.k[0])
        residual_BD = x_BD - self.decode_coarse(code_BP)
        coarse_error = residual_BD.square().sum()
        if phase.fine > 0:
            pre_BF = self._pre_activation(residual_BD, self._fine)
            mask_BF = self._select_batch(self._fine_score(pre_BF, code_BP > 0), 1, self.k[1] * phase.fine)
            code_BF = pre_BF * mask_BF
            error = (residual_BD - code_BF @ self.W_dec_FD[self._fine]).square().sum()
        else:
            code_BF = x_BD.new_zeros(len(x_BD), self.widths[1])
            error = coarse_error
        if self.training:
            self.counts.add(code_BP > 0, code_BF > 0)
        loss = (error + self.coarse_weight * coarse_error) / x_BD.numel()
        figures = {
            "phase": phase.name,
            "tree": phase.tree,
            "error_coarse": coarse_error.detach(),
        }
        return Step(loss, torch.cat([code_BP, code_BF], dim=1), error.detach(), figures)

    def after_step(self, step_number: int, progress: float) -> None:
        super().after_step(step_number, progress)
        if (step_number + 1) % self.tree_every == 0:
            self._refresh(self.curriculum.at(progress).tree * self.tree_weight)

    def finish(self) -> None:
        self._refresh(self.tree_weight)

    def revival_inputs(self, x_BD: torch.Tensor, code_BF: torch.Tensor) -> list[torch.Tensor]:
        return [x_BD - self.b_dec_D, x_BD - self.decode_coarse(code_BF[:, self._coarse])]

    @torch.no_grad()
    def _refresh(self, weight: float) -> None:
        """Take parents and prices anew from the counts; ``weight`` of the price is code length."""
        self.parent_F.copy_(self.counts.best_parents())
        on_F, off_F = self.counts.child_rates(self.parent_F)
        rate_P = (self.counts.parent_P + 0.5) / (self.counts.rows + 1.0)
        for price, rate in ((self.price_on_F, on_F), (self.price_off_F, off_F), (self.price_P, rate_P)):
            bits = torch.log2((1 - rate) / rate).clamp(*PRICE_RANGE)
            price.copy_((1 - weight) * BASE_PRICE + weight * bits)
        self.counts.forget(_KEEP)

    def _coarse_score(self, pre_BP: torch.Tensor) -> torch.Tensor:
        return pre_BP.detach().square() / self.price_P

    def _fine_score(self, pre_BF: torch.Tensor, parent_BP: torch.Tensor) -> torch.Tensor:
        """Energy for each bit of price; a root child's two prices are equal, so its (absent) parent does not matter."""
        announced_BF = parent_BP[:, self.parent_F.clamp_min(0)]
        per_bit_BF = torch.where(announced_BF, 1 / self.price_on_F, 1 / self.price_off_F)
        return pre_BF.detach().square() * per_bit_BF
