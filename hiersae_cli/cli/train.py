"""``hiersae train``."""

from __future__ import annotations

from hiersae_cli.config import TrainConfig
from hiersae_cli.console import Console


def train(config: TrainConfig, console: Console) -> None:
    """Train a hierarchical sparse autoencoder, or a flat baseline, on cached activations."""
    from hiersae_cli.workflows.train import run

    result = run(config, console)
    console.result(result, "")
    acts = " ".join(f"--acts {path}" for path in config.acts)
    console.next(f"hiersae eval {config.out} {acts} --model {result['host']} -o report.json")
