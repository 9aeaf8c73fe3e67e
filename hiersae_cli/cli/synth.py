"""``hiersae synth``."""

from __future__ import annotations

from hiersae_cli.config import SynthConfig
from hiersae_cli.console import Console


def synth(config: SynthConfig, console: Console) -> None:
    """Draw activations whose features and tree are known. The truth is written beside them."""
    from hiersae_cli.workflows.synth import run

    console.result(run(config, console), "")
    console.next(f"hiersae train {config.out} --arch hier -o runs/hier")
