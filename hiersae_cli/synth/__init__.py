"""Activations with a known tree: the truth, and rows drawn from it. No files here."""

from hiersae_cli.config.synth import PRESETS, Shape
from hiersae_cli.synth.generator import Generator, Stream, block_seed
from hiersae_cli.synth.presets import generator
from hiersae_cli.synth.truth import Truth

__all__ = ["PRESETS", "Generator", "Shape", "Stream", "Truth", "block_seed", "generator"]
