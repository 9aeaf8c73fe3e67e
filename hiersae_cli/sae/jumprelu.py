"""JumpReLU: a flat dictionary with a learned threshold for each latent. Legend of shapes: see ``base``.

Source: Rajamanoharan et al. (2024), Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse Autoencoders.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from hiersae_cli.config.architectures import JumpReLUOptions
from hiersae_cli.sae.base import SparseAutoencoder, Step, StepContext, least_kept
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode

# Nats in a unit of ``log_threshold_F``. Adam moves every parameter by about its rate a step, which is so little of a
# logarithm that thresholds would lag behind the weights, and L0 with them, for most of a training of some 1,000 steps.
_UNIT = 10.0


class JumpReLU(SparseAutoencoder):
    """z where z exceeds its latent's threshold, else 0; the loss pulls L0 to ``k``.

    The loss is the reconstruction error plus ``l0_weight`` (L0 / k - 1)^2, with L0 the batch's mean: the source's
    form for a wanted L0. The logarithm of a threshold is what is learned, through straight-through gradients with a
    rectangle kernel. Thresholds begin where the first batch has the wanted L0.

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
        self.register_buffer("threshold_F", torch.zeros(self.latents))  # of inference; 0 before the first step

    def codes(self, x_BD: torch.Tensor) -> list[SparseCode]:
        reading = self._read(x_BD - self.b_dec_D, slice(0, self.latents))
        pattern = Pattern.above(reading.dense_BC, self.threshold_F)
        return [SparseCode(pattern, reading.at(pattern))]

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        reading = self._read(x_BD - self.b_dec_D, slice(0, self.latents))
        pre_BF = reading.dense_BC  # negative ones too: as zeros they would all lie in the kernel of a low threshold
        if not self.threshold_F.any():
            self._begin(pre_BF)
        threshold_F = (_UNIT * self.log_threshold_F).exp()
        pattern = Pattern.above(pre_BF, threshold_F)
        code = SparseCode(pattern, reading.at(pattern))
        left_BD = x_BD - self.reconstruct([code])
        error = left_BD.square().sum()
        slope_F, near_F = self._near(pre_BF, threshold_F, left_BD.detach())
        # Whether a latent near its threshold fires is a jump, whose slope is taken for the kernel's: 0 in value here.
        moved_F = (threshold_F - threshold_F.detach()) / self.bandwidth
        l0 = (len(pattern) - (near_F * moved_F).sum()) / len(x_BD)
        loss = (error + (slope_F * threshold_F.detach() * moved_F).sum()) / x_BD.numel()
        return Step(loss + self.l0_weight * (l0 / self.k[0] - 1).square(), [code], error.detach(), {})

    def after_step(self, context: StepContext) -> torch.Tensor | None:
        with torch.no_grad():
            self.threshold_F.copy_((_UNIT * self.log_threshold_F).exp())
        return super().after_step(context)

    def fold_scale(self, scale: float) -> None:
        super().fold_scale(scale)
        with torch.no_grad():
            self.log_threshold_F.sub_(math.log(scale) / _UNIT)
            self.threshold_F.div_(scale)

    def per_latent(self) -> list[torch.Tensor]:
        return [*super().per_latent(), self.log_threshold_F]

    @torch.no_grad()
    def _near(
        self, pre_BF: torch.Tensor, threshold_F: torch.Tensor, left_BD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums by latent, (F,), over what lies within half a bandwidth of its threshold.

        What a unit more of activation would take from the squared error; and the number of such rows.
        """
        near_BF = (pre_BF - threshold_F).abs() < self.bandwidth / 2
        gain_BF = 2 * nn.functional.linear(left_BD, self.W_dec_FD)
        return gain_BF.masked_fill_(~near_BF, 0.0).sum(0, dtype=left_BD.dtype), near_BF.sum(0)

    @torch.no_grad()
    def _begin(self, pre_BF: torch.Tensor) -> None:
        """One threshold for all latents, such that the first batch has the wanted L0."""
        least = self._least(pre_BF).clamp_min(1e-3 * self.bandwidth)
        self.log_threshold_F.copy_(least.log() / _UNIT)

    def _calibrate_on(self, x_BD: torch.Tensor) -> None:
        """Move all thresholds by one factor: the penalty leaves L0 a little off ``k``."""
        pre_BF = self._read(x_BD - self.b_dec_D, slice(0, self.latents)).dense_BC
        threshold_F = (_UNIT * self.log_threshold_F).exp()
        factor = self._least(pre_BF / threshold_F)
        self.threshold_F.lerp_(threshold_F * factor, self._threshold_rate)

    def _least(self, score_BF: torch.Tensor) -> torch.Tensor:
        """The least of the scores that are kept where the wanted L0 are."""
        return least_kept(score_BF.flatten(), max(1, round(self.k[0] * len(score_BF))))
