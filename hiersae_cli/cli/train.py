"""``hiersae train``."""

from __future__ import annotations

from hiersae_cli.config import TrainConfig
from hiersae_cli.console import Console


def train(config: TrainConfig, console: Console) -> None:
    """Train a sparse autoencoder with a tree, or a flat one. On cached or synthetic activations."""
    config.require_source()
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.train import run

    result = run(config, console)
    console.result(result, "")
    console.next(*advice.after_training(config, result))
