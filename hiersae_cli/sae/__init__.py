"""Sparse autoencoders: tensors in, tensors out, no files. ``config.architectures`` says how to add an architecture."""

from __future__ import annotations

from importlib import import_module

from hiersae_cli.config.architectures import ARCHITECTURES
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.sae.base import SparseAutoencoder, Step, StepContext
from hiersae_cli.sae.flat import BatchTopK, Matryoshka, TopK
from hiersae_cli.sae.hier import HierarchicalSAE
from hiersae_cli.sae.jumprelu import JumpReLU

__all__ = [
    "BatchTopK",
    "HierarchicalSAE",
    "JumpReLU",
    "Matryoshka",
    "SparseAutoencoder",
    "Step",
    "StepContext",
    "TopK",
    "build",
]


def build(config: TrainConfig, width: int) -> SparseAutoencoder:
    """The untrained model that a configuration describes, for activations of ``width``."""
    module, _, name = ARCHITECTURES[config.arch].model.partition(":")
    model: SparseAutoencoder = getattr(import_module(module), name)(width, config)
    return model
