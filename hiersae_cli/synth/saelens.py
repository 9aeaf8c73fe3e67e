"""Presets that use the generator of the package SAELens, with its hierarchies.

Source: SynthSAEBench and ``sae_lens.synthetic``. Features in trees come first, level by level; siblings exclude each
other, and a child's magnitude grows with its parent's.

Legend of shapes: B rows, N true features, D width.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from hiersae_cli.config.synth import Shape
from hiersae_cli.errors import UsageError, install_hint
from hiersae_cli.synth.generator import Generator
from hiersae_cli.synth.truth import Truth

_ORTHOGONALIZATION = {"num_steps": 100, "lr": 3e-4}
_BIAS_NORM = 0.5
# Numbers drawn at once on a CPU: more do not fit into its caches, which halves the speed.
_MOST_NUMBERS = 1 << 21


@dataclass(frozen=True)
class _Firing:
    """What a preset fixes in addition to its shape: the rarest feature's rate, and the rank of the correlations."""

    least_probability: float
    correlation_rank: int


_FIRING = {"synthtree-1k": _Firing(2e-3, 8), "synthsaebench-16k": _Firing(5e-4, 25)}


class SAELensGenerator(Generator):
    """Zipfian firing rates, trees of features, low-rank correlations and nearly orthogonal directions."""

    def __init__(self, preset: str, shape: Shape, device: torch.device, directions_ND: torch.Tensor | None = None):
        synthetic = _package(preset)
        model = _model(synthetic, preset, shape, directions_ND)
        firing = model.activation_generator
        truth = Truth(
            model.feature_dict.feature_vectors.detach().contiguous(),
            model.feature_dict.bias.detach(),
            _parents(model.hierarchy.roots, shape.features),
            model.cfg.firing_probability.generate(shape.features),
        )
        # The truth stays on the CPU; only the drawing moves to the device.
        for name in ("firing_probabilities", "mean_firing_magnitudes", "std_firing_magnitudes"):
            setattr(firing, name, getattr(firing, name).to(device))
        firing.correlation_thresholds = firing.correlation_thresholds.to(device)
        firing.low_rank_correlation = tuple(part.to(device) for part in firing.low_rank_correlation)
        self._firing = firing
        super().__init__(preset, shape, truth, f"sae-lens {version('sae-lens')}", device)

    def _magnitudes(self, rows: int, seed: int) -> torch.Tensor:
        batch = rows if self._device.type != "cpu" else max(1, _MOST_NUMBERS // len(self.truth))
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            # Not torch.manual_seed, which would also change the state of devices that are not restored.
            if self._device.type == "cuda":
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(seed)
            else:
                torch.default_generator.manual_seed(seed)
            return torch.cat([self._firing.sample(min(batch, rows - low)) for low in range(0, rows, batch)])


def _package(preset: str) -> Any:
    try:
        import sae_lens.synthetic
    except ImportError:
        raise UsageError(
            f"{preset}: needs the package sae-lens, which is not installed", install_hint("synth")
        ) from None
    return sae_lens.synthetic


def _model(synthetic: Any, preset: str, shape: Shape, directions_ND: torch.Tensor | None) -> Any:
    firing = _FIRING[preset]
    config = synthetic.SyntheticModelConfig(
        num_features=shape.features,
        hidden_dim=shape.width,
        firing_probability=synthetic.ZipfianFiringProbabilityConfig(
            exponent=0.5, max_prob=0.4, min_prob=firing.least_probability
        ),
        hierarchy=synthetic.HierarchyConfig(
            total_root_nodes=shape.roots,
            branching_factor=shape.branching,
            max_depth=shape.depth,
            mutually_exclusive_portion=1.0,
            compensate_probabilities=True,
            scale_children_by_parent=True,
        ),
        orthogonalization=synthetic.OrthogonalizationConfig(**_ORTHOGONALIZATION),
        correlation=synthetic.LowRankCorrelationConfig(rank=firing.correlation_rank, correlation_scale=0.1),
        mean_firing_magnitudes=synthetic.LinearMagnitudeConfig(start=5.0, end=4.0),
        std_firing_magnitudes=synthetic.FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
        bias=_BIAS_NORM,
        seed=shape.seed,
    )
    # The same as the model would make, without its progress bar.
    directions = synthetic.FeatureDictionary(
        shape.features,
        shape.width,
        bias=_BIAS_NORM,
        initializer=None if directions_ND is not None else synthetic.orthogonal_initializer(**_ORTHOGONALIZATION),
        seed=shape.seed,
    )
    if directions_ND is not None:
        directions.feature_vectors.data = directions_ND
    logger = logging.getLogger("sae_lens")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns about children that would fire more often than their parents; some do
    try:
        return synthetic.SyntheticModel(config, feature_dict=directions)
    finally:
        logger.setLevel(level)


def _parents(roots: list[Any], features: int) -> torch.Tensor:
    """The parent of each feature, (N,)."""
    parent_N = torch.full((features,), -1)
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        for child in node.children:
            parent_N[child.feature_index] = node.feature_index
            waiting.append(child)
    return parent_N
