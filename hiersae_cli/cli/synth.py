"""``hiersae synth``."""

from __future__ import annotations

from hiersae_cli.config import SynthConfig
from hiersae_cli.console import Console


def synth(config: SynthConfig, console: Console) -> None:
    """Draw activations whose features and tree are known. The truth is written beside them."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.synth import run

    result = run(config, console)
    console.result(result, "")
    console.next(advice.after_synth(config, result))
