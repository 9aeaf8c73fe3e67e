"""Pre-activations in bfloat16 with a bound on their error. At inference they find the candidates in half the time.

Codes are the same to the last bit: whatever may exceed the bound is a candidate, and its pre-activation is computed
again in float32.

Legend of shapes: B rows, D width, F latents, C latents of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from hiersae_cli.device import has_bfloat16_products
from hiersae_cli.sae.kernels.sparse import Pattern

_ROUNDING = 2.0**-8  # largest relative error of a number in bfloat16
_MARGIN = 1.05  # for the rounding of sums in float32
_LEAST_WEIGHTS = 1 << 20  # a smaller product is fast enough in float32
_LEAST_ROWS = 16
# The bound on the error grows with the longest row: one far longer than the others would make nearly all candidates.
_LONGEST_ROW = 4.0


@dataclass(frozen=True)
class RoughReading:
    """Pre-activations of one level for ``_select``: see ``Reading`` in ``base``.

    Attributes:
        dense_BC: all of them, in bfloat16.
        error_C: the most by which those of each latent can differ from the exact ones, in addition to the rounding of
            the result.
        at: a function that gives the exact ones at the places of a pattern.
    """

    dense_BC: torch.Tensor
    error_C: torch.Tensor
    at: Callable[[Pattern], torch.Tensor]

    def above(self, bound_C: torch.Tensor, part: slice, latents: int) -> tuple[Pattern, torch.Tensor]:
        """The places where pre-activations of latents ``part`` exceed about a bound, and their exact values there."""
        bound_C = bound_C * (1 - _ROUNDING * _MARGIN) - self.error_C
        pattern = Pattern.above(self.dense_BC, bound_C, part.start, latents)
        return pattern, self.at(pattern)


class RoughEncoder:
    """The encoder of a model in bfloat16, made again if its weights have changed."""

    def __init__(self) -> None:
        self._made_from: tuple[torch.Tensor, int, int] | None = None
        self._weight_FD = self._bias_F = self._norm_F = torch.empty(0)

    def read(
        self,
        input_BD: torch.Tensor,
        weight_FD: torch.Tensor,
        bias_F: torch.Tensor,
        part: slice,
        at: Callable[[Pattern], torch.Tensor],
    ) -> RoughReading | None:
        """The pre-activations of the latents ``part``; None if float32 is as fast or the bound would be too wide."""
        if not (
            isinstance(weight_FD, nn.Parameter)
            and weight_FD.device.type == "cpu"
            and weight_FD.dtype == input_BD.dtype == torch.float32
            and (part.stop - part.start) * weight_FD.shape[1] >= _LEAST_WEIGHTS
            and len(input_BD) >= _LEAST_ROWS
            and not torch.is_autocast_enabled("cpu")
            and has_bfloat16_products()
        ):
            return None
        norm_B = input_BD.norm(dim=1)
        longest = norm_B.max()
        if not longest <= _LONGEST_ROW * norm_B.median():
            return None
        self._update(weight_FD, bias_F)
        dense_BC = nn.functional.linear(input_BD.bfloat16(), self._weight_FD[part], self._bias_F[part])
        error_C = _MARGIN * _ROUNDING * (2 * longest * self._norm_F[part] + bias_F[part].abs())
        return RoughReading(dense_BC, error_C, at)

    def _update(self, weight_FD: torch.Tensor, bias_F: torch.Tensor) -> None:
        versions = (weight_FD._version, bias_F._version)
        if self._made_from is None or self._made_from[0] is not weight_FD or self._made_from[1:] != versions:
            self._weight_FD, self._bias_F = weight_FD.bfloat16(), bias_F.bfloat16()
            self._norm_F = weight_FD.norm(dim=1)
            self._made_from = (weight_FD, *versions)
