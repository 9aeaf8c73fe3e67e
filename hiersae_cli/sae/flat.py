"""Flat dictionaries: the baselines. Legend of shapes: see ``base``, and G, latents of a group."""

from __future__ import annotations

import torch

from hiersae_cli.sae.base import SparseAutoencoder, Step


class _Flat(SparseAutoencoder):
    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        centred_BD = x_BD - self.b_dec_D
        pre_BF = self._pre_activation(centred_BD, slice(None))
        if self.refine:
            code_BF = self._sparse(pre_BF, first=True)
            pre_BF = self._refined(code_BF, centred_BD - code_BF @ self.W_dec_FD)
        return self._sparse(pre_BF, first=False)

    def _sparse(self, pre_BF: torch.Tensor, first: bool) -> torch.Tensor:
        """The code (B, F) that the pre-activations give; ``first`` where it will be refined."""
        raise NotImplementedError

    def step(self, x_BD: torch.Tensor, progress: float) -> Step:
        code_BF = self.encode(x_BD)
        error = (x_BD - self.decode(code_BF)).square().sum()
        return Step(error / x_BD.numel(), code_BF, error.detach(), {})


class TopK(_Flat):
    """The k largest pre-activations of every row. Source: Gao et al. (2024), Scaling and evaluating SAEs."""

    def _sparse(self, pre_BF: torch.Tensor, first: bool) -> torch.Tensor:
        values, places = pre_BF.topk(int(self.k[0]), dim=1, sorted=False)
        return torch.zeros_like(pre_BF).scatter(1, places, values)


class BatchTopK(_Flat):
    """The k * B largest pre-activations of a batch in training, a threshold at inference.

    Source: Bussmann, Leask, Nanda (2024), BatchTopK Sparse Autoencoders.
    """

    def _sparse(self, pre_BF: torch.Tensor, first: bool) -> torch.Tensor:
        threshold = (self.threshold_first_L if first else self.threshold_L)[0]
        score_BF = pre_BF.square()
        if self.training:
            return pre_BF * self._select_batch(score_BF, threshold, self.k[0])
        return pre_BF * (score_BF >= threshold)


class Matryoshka(BatchTopK):
    """BatchTopK whose first latents, up to the end of each group, must reconstruct without those that follow.

    The loss is the sum of the errors of all these nested prefixes, the last of which is the whole dictionary. Only
    training knows of the groups: the model is as flat as any.

    Args:
        width: D.
        groups: latents that each prefix adds to the one before it.
        k: one number, the wanted L0 of the whole.
        refine: see ``SparseAutoencoder``.

    Source: Bussmann et al. (2025), Learning Multi-Level Features with Matryoshka Sparse Autoencoders.
    """

    def __init__(self, width: int, groups: tuple[int, ...], k: tuple[float, ...], refine: bool = False):
        super().__init__(width, (sum(groups),), k, refine)
        self.groups = groups

    def step(self, x_BD: torch.Tensor, progress: float) -> Step:
        code_BF = self.encode(x_BD)
        left_BD, errors = x_BD - self.b_dec_D, []
        for code_BG, rows_GD in zip(code_BF.split(self.groups, 1), self.W_dec_FD.split(self.groups), strict=True):
            left_BD = left_BD - code_BG @ rows_GD
            errors.append(left_BD.square().sum())
        return Step(torch.stack(errors).sum() / x_BD.numel(), code_BF, errors[-1].detach(), {})
