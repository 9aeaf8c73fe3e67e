"""The sources of rows for training: caches, or a generator of synthetic activations.

Legend of shapes: B rows of a batch, D width.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.activations import ActivationSet, outliers
from hiersae_cli.formats.activations.sampled import spectrum_of
from hiersae_cli.formats.activations.stream import ShuffledRows
from hiersae_cli.metrics.reconstruction import Moments
from hiersae_cli.metrics.spectrum import Spectrum
from hiersae_cli.synth import Stream, block_seed, generator
from hiersae_cli.workflows.common import advice

SYNTH_MODULE = "synth"  # the module's path if activations come from no model
_MOMENT_BLOCKS, _BLOCK = 8, 2048


class Source(Protocol):
    """An endless stream of rows that can start at any batch.

    Attributes:
        module, width, host: as in the run's ``config.json``.
        inputs: the fingerprint of each input, by name.
        synthetic: whether the rows come from a known truth, not from a model.
        rows: how many different rows there are.
    """

    module: str
    width: int
    rows: int
    host: dict[str, Any]
    inputs: dict[str, str]
    synthetic: bool

    def moments(self) -> tuple[np.ndarray, float]:
        """The mean (D,) and the mean squared norm of the rows."""

    def batches(self, size: int, first: int = 0) -> Generator[torch.Tensor]:
        """Batches (B, D) of ``size`` rows, from batch number ``first`` on."""

    def spectrum(self) -> Spectrum | None:
        """How many dimensions the rows fill; None if they do not vary."""

    def extent(self, tokens: int) -> str:
        """How much of the source ``tokens`` rows are, in words."""

    def cautions(self, tokens: int) -> list[str]:
        """Warnings about training on ``tokens`` rows of the source."""

    def close(self) -> None:
        """Close the open files."""


def open_source(config: TrainConfig, device: torch.device) -> Source:
    """The source of a run's rows; raises ``UsageError`` or ``FileError`` if it cannot be read or made."""
    return DrawnRows(config, device) if config.synth else CachedRows(config)


class CachedRows:
    """The training rows of caches, shuffled."""

    def __init__(self, config: TrainConfig):
        self._acts = ActivationSet(config.acts, config.module, config.drop_outliers)
        self._acts.check_finite()
        self._rows = ShuffledRows(self._acts, config.buffer * 10**6, config.seeds.order)
        self.rows = self._rows.rows
        self.module, self.width, self.host = self._acts.module, self._acts.width, self._acts.host
        self.inputs = self._acts.fingerprints()
        self.synthetic = self._acts.truth is not None

    def moments(self) -> tuple[np.ndarray, float]:
        return self._acts.moments()

    def spectrum(self) -> Spectrum | None:
        return spectrum_of(self._acts)

    def batches(self, size: int, first: int = 0) -> Generator[torch.Tensor]:
        return self._rows.batches(size, first)

    def extent(self, tokens: int) -> str:
        return f"{tokens / self.rows:,.1f} epochs of {self.rows:,} rows"

    def cautions(self, tokens: int) -> list[str]:
        warnings = (outliers.warning(self._acts), advice.repeats(self.rows, self.width, tokens))
        return [warning for warning in warnings if warning]

    def close(self) -> None:
        self._acts.close()


class DrawnRows:
    """Rows drawn from the number of the step, so that none repeats and training can resume at any step."""

    synthetic = True

    def __init__(self, config: TrainConfig, device: torch.device):
        self._seed, self.rows = config.seeds.order, config.tokens
        self._generator = generator(config.synth, config.shape(), device)
        self.module, self.width = SYNTH_MODULE, self._generator.width
        self.host = self._generator.describe()
        self.inputs = {config.synth: self.host["fingerprint"]}

    def moments(self) -> tuple[np.ndarray, float]:
        return self._figures[:2]

    def spectrum(self) -> Spectrum | None:
        return self._figures[2]

    @cached_property
    def _figures(self) -> tuple[np.ndarray, float, Spectrum | None]:
        """Mean, mean squared norm and spectrum of rows that are drawn for these figures, and never trained on."""
        total_D, square = torch.zeros(self.width, dtype=torch.float64), 0.0
        moments = Moments(self._generator.truth.bias_D)
        for number in range(_MOMENT_BLOCKS):
            x_BD, _ = self._generator.sample(_BLOCK, block_seed(self._seed, Stream.MOMENTS, number))
            moments.add(x_BD)
            x_BD = x_BD.cpu().double()
            total_D, square = total_D + x_BD.sum(0), square + float(x_BD.square().sum())
        rows = _MOMENT_BLOCKS * _BLOCK
        return (total_D / rows).numpy(), square / rows, Spectrum.of(moments)

    def batches(self, size: int, first: int = 0) -> Generator[torch.Tensor]:
        number = first
        while True:
            yield self._generator.sample(size, block_seed(self._seed, Stream.TRAINING, number))[0]
            number += 1

    def extent(self, tokens: int) -> str:
        return f"{tokens:,} new rows of {self._generator.preset}"

    def cautions(self, tokens: int) -> list[str]:
        return []

    def close(self) -> None:
        pass
