"""Drawing rows from a truth: what all presets share.

Legend of shapes: B rows, N true features, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from enum import IntEnum
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.synth import Shape
from hiersae_cli.synth.truth import Truth


class Stream(IntEnum):
    """The purpose of drawn rows: each draws different rows from the same seed."""

    FILE = 0
    TRAINING = 1
    MOMENTS = 2


def block_seed(seed: int, stream: Stream, number: int) -> int:
    """The seed of block ``number`` of a stream, for ``Generator.sample``."""
    return int(np.random.SeedSequence((seed, stream, number)).generate_state(1)[0])


class Generator(ABC):
    """Draws rows from a truth.

    Attributes:
        preset: its name.
        shape: the sizes of the truth, without zeros.
        truth: the true features, on the CPU.
        library: name and version of the library that draws.
    """

    def __init__(self, preset: str, shape: Shape, truth: Truth, library: str, device: torch.device):
        self.preset, self.shape, self.truth, self.library = preset, shape, truth, library
        self._device = device
        self._features_ND, self._bias_D = truth.features_ND.to(device), truth.bias_D.to(device)

    @property
    def width(self) -> int:
        """Width D of the activations."""
        return self.truth.width

    @torch.no_grad()
    def sample(self, rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations (B, D) and the magnitudes of the true features behind them (B, N), float32.

        Equal ``rows`` and ``seed`` give equal results; torch's random state does not change.
        """
        magnitude_BN = self._magnitudes(rows, seed)
        return magnitude_BN @ self._features_ND + self._bias_D, magnitude_BN

    def describe(self) -> dict[str, Any]:
        """The description that files hold in place of a model."""
        return {
            "name": self.preset,
            "fingerprint": self.truth.fingerprint(),
            "library": self.library,
            "shape": asdict(self.shape),
            "dtype": "float32",
            "device": self._device.type,
        }

    @abstractmethod
    def _magnitudes(self, rows: int, seed: int) -> torch.Tensor:
        """How strongly each true feature fires, (B, N); 0 if it does not."""
