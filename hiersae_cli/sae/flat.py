"""Flat dictionaries: the baselines. Legend of shapes: see ``base``."""

from __future__ import annotations

import torch

from hiersae_cli.sae.base import SparseAutoencoder, Step


class _Flat(SparseAutoencoder):
    def _pre(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self._pre_activation(x_BD - self.b_dec_D, slice(None))

    def _code(self, pre_BF: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def step(self, x_BD: torch.Tensor, progress: float) -> Step:
        code_BF = self._code(self._pre(x_BD))
        error = (x_BD - self.decode(code_BF)).square().sum()
        return Step(error / x_BD.numel(), code_BF, error.detach(), {})


class TopK(_Flat):
    """The k largest pre-activations of every row. Source: Gao et al. (2024), Scaling and evaluating SAEs."""

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self._code(self._pre(x_BD))

    def _code(self, pre_BF: torch.Tensor) -> torch.Tensor:
        values, places = pre_BF.topk(self.k[0], dim=1, sorted=False)
        return torch.zeros_like(pre_BF).scatter(1, places, values)


class BatchTopK(_Flat):
    """The k * B largest pre-activations of a batch in training, a threshold at inference.

    Source: Bussmann, Leask, Nanda (2024), BatchTopK Sparse Autoencoders.
    """

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        pre_BF = self._pre(x_BD)
        return pre_BF * (pre_BF.square() >= self.threshold_L[0])

    def _code(self, pre_BF: torch.Tensor) -> torch.Tensor:
        return pre_BF * self._select_batch(pre_BF.square(), 0, self.k[0])
