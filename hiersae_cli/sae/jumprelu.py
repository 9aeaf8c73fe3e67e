"""JumpReLU: a flat dictionary with a learned threshold for each latent. Legend of shapes: see ``base``.

Source: Rajamanoharan et al. (2024), Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse Autoencoders.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from hiersae_cli.config.architectures import JumpReLUOptions
from hiersae_cli.sae.base import SparseAutoencoder, Step, StepContext
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode

# Nats in a unit of ``log_threshold_F``. Adam moves every parameter by about the learning rate in each step. For a plain
# logarithm that is so little that thresholds, and L0, would lag behind the weights for the first 1,000 steps or so.
_NATS = 10.0


class JumpReLU(SparseAutoencoder):
    """z if it exceeds its latent's threshold, else 0; the loss pulls L0 to ``k``.

    The loss is the reconstruction error plus ``l0_weight`` (L0 / k - 1)^2, with the batch's mean L0: the source's form
    for a target L0. The logarithms of the thresholds are learned through straight-through gradients with a rectangle
    kernel. Thresholds start where the first batch has the target L0.

    Args:
        width: D.
        options: ``widths`` and ``k`` are one number each; ``bandwidth`` is in units of the root mean square of an
            input's distance from the mean.
    """

    threshold_F: torch.Tensor
    training_only = ("log_threshold_F",)

    def __init__(self, width: int, options: JumpReLUOptions):
        super().__init__(width, options)
        self.l0_weight = options.l0_weight
        # The unit is sqrt(D) in training: see ``training.Trainer``.
        self.bandwidth = options.bandwidth * math.sqrt(width)
        self.log_threshold_F = nn.Parameter(torch.zeros(self.latents))
        self.register_buffer("threshold_F", torch.zeros(self.latents))  # for inference; 0 before the first step

    def codes(self, x_BD: torch.Tensor) -> list[SparseCode]:
        reading = self._read(x_BD - self.b_dec_D, slice(0, self.latents))
        pattern = Pattern.above(reading.dense_BC, self.threshold_F)
        return [SparseCode(pattern, reading.at(pattern))]

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        reading = self._read(x_BD - self.b_dec_D, slice(0, self.latents))
        pre_BF = reading.dense_BC  # not clamped: zeros would all lie in the kernel of a low threshold
        if not self.threshold_F.any():
            self._start_thresholds(pre_BF)
        threshold_F = (_NATS * self.log_threshold_F).exp()
        pattern = Pattern.above(pre_BF, threshold_F)
        code = SparseCode(pattern, reading.at(pattern))
        residual_BD = x_BD - self.reconstruct([code])
        error = residual_BD.square().sum()
        slope_F, near_F = self._near_threshold(pre_BF, threshold_F, residual_BD.detach())
        # Firing is a jump at the threshold; the kernel stands in for its slope. These terms have the value 0.
        shift_F = (threshold_F - threshold_F.detach()) / self.bandwidth
        l0 = (len(pattern) - (near_F * shift_F).sum()) / len(x_BD)
        l0 = self.mesh.rows.mean(self.mesh.latents.summed(l0))
        loss = (error + (slope_F * threshold_F.detach() * shift_F).sum()) / x_BD.numel()
        return Step(loss + self.l0_weight * (l0 / self.k[0] - 1).square(), [code], error.detach(), {})

    def after_step(self, context: StepContext) -> torch.Tensor | None:
        with torch.no_grad():
            self.threshold_F.copy_((_NATS * self.log_threshold_F).exp())
        return super().after_step(context)

    def fold_scale(self, scale: float, relative_D: torch.Tensor) -> None:
        super().fold_scale(scale, relative_D)
        with torch.no_grad():
            self.log_threshold_F.sub_(math.log(scale) / _NATS)
            self.threshold_F.div_(scale)

    def per_latent(self) -> list[torch.Tensor]:
        return [*super().per_latent(), self.log_threshold_F]

    @torch.no_grad()
    def _near_threshold(
        self, pre_BF: torch.Tensor, threshold_F: torch.Tensor, residual_BD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums (F,) over the rows in which a latent's pre-activation is within half a bandwidth of its threshold.

        The first is how much one more unit of activation would reduce the squared error; the second counts the rows.
        """
        near_BF = (pre_BF - threshold_F).abs() < self.bandwidth / 2
        gain_BF = 2 * nn.functional.linear(residual_BD, self.W_dec_FD)
        return gain_BF.masked_fill_(~near_BF, 0.0).sum(0, dtype=residual_BD.dtype), near_BF.sum(0)

    @torch.no_grad()
    def _start_thresholds(self, pre_BF: torch.Tensor) -> None:
        """Set one threshold for all latents, with which the first batch has the target L0."""
        threshold = self._lowest_active(pre_BF).clamp_min(1e-3 * self.bandwidth)
        self.log_threshold_F.copy_(threshold.log() / _NATS)

    def _calibrate_on(self, x_BD: torch.Tensor) -> None:
        """Scale all thresholds by one factor, because the penalty leaves L0 slightly off ``k``."""
        pre_BF = self._read(x_BD - self.b_dec_D, slice(0, self.latents)).dense_BC
        threshold_F = (_NATS * self.log_threshold_F).exp()
        factor = self._lowest_active(pre_BF / threshold_F)
        self.threshold_F.lerp_(threshold_F * factor, self._threshold_rate)

    def _lowest_active(self, score_BF: torch.Tensor) -> torch.Tensor:
        """The lowest of the scores that are active at the target L0."""
        rows = len(score_BF) * self.mesh.rows.count
        return self._nth_largest(score_BF.flatten(), max(1, round(self.k[0] * rows)), slice(0, self.latents))
