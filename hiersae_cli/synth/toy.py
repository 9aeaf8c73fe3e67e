"""The small toy tree: few features with orthogonal directions, so that each can be checked by eye.

Legend of shapes: B rows, N true features, P parents, D width.
"""

from __future__ import annotations

import torch

from hiersae_cli.config.synth import Shape
from hiersae_cli.synth.generator import Generator
from hiersae_cli.synth.truth import Truth
from hiersae_cli.version import __version__

_PARENT = 0.15  # firing rate of a parent
_CHILD = 0.2  # firing rate of a child when its parent fires
_LOOSE = 0.05  # firing rate of a feature outside the trees
_SPREAD = 0.05  # standard deviation of magnitudes, whose mean is 1


class ToyGenerator(Generator):
    """Parents first, then the children of each in turn, then the features outside the trees."""

    def __init__(self, shape: Shape, device: torch.device):
        loose = shape.features - shape.in_trees()
        parent_N = torch.cat(
            [
                torch.full((shape.roots,), -1),
                torch.arange(shape.roots).repeat_interleave(shape.branching),
                torch.full((loose,), -1),
            ]
        )
        probability_N = torch.where(parent_N < 0, _LOOSE, _PARENT * _CHILD)
        probability_N[: shape.roots] = _PARENT
        random = torch.Generator().manual_seed(shape.seed)
        rotation_DD, _ = torch.linalg.qr(torch.randn(shape.width, shape.width, generator=random))
        truth = Truth(rotation_DD[: shape.features].contiguous(), torch.zeros(shape.width), parent_N, probability_N)
        super().__init__("toy", shape, truth, f"hiersae {__version__}", device)
        self._probability_N = probability_N.to(device)

    def _magnitudes(self, rows: int, seed: int) -> torch.Tensor:
        random = torch.Generator(self._device).manual_seed(seed)
        roots, branching = self.shape.roots, self.shape.branching
        fires_BN = torch.rand(rows, len(self.truth), generator=random, device=self._device) < self._probability_N
        # One number for each parent decides which of its children fires, so that no two fire together.
        chosen_BP = torch.rand(rows, roots, generator=random, device=self._device) / _CHILD
        for child in range(branching):
            chosen = fires_BN[:, :roots] & (chosen_BP.floor() == child)
            fires_BN[:, roots + child : roots + roots * branching : branching] = chosen
        spread_BN = torch.randn(fires_BN.shape, generator=random, device=self._device)
        return fires_BN * (1 + _SPREAD * spread_BN)
