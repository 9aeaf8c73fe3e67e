"""``hiersae train``."""

from __future__ import annotations

from hiersae_cli.config import TrainConfig
from hiersae_cli.console import Console


def train(config: TrainConfig, console: Console) -> None:
    """Train a sparse autoencoder with a tree, or a flat one. On cached or synthetic activations."""
    config.require_source()
    from hiersae_cli.workflows.train import run

    result = run(config, console)
    console.result(result, "")
    if config.synth:
        console.next(f"hiersae synth {config.synth}{config.shape_flags(config.synth)} -o acts.h5")
    acts = " ".join(f"--acts {path}" for path in config.acts or ["acts.h5"])
    model = "" if result["synthetic"] else f" --model {result['host']}"
    console.next(f"hiersae eval {config.out} {acts}{model} -o report.json")
