"""``hiersae lm``."""

from __future__ import annotations

from hiersae_cli.config import LMConfig
from hiersae_cli.console import Console
from hiersae_cli.workflows.advice import command


def lm(config: LMConfig, console: Console) -> None:
    """Train a small character-level language model. It is saved as a Hugging Face model."""
    from hiersae_cli.workflows.lm import run

    result = run(config, console)
    console.result(result, "")
    layer = str(config.layers // 2)
    console.next(command("cache", *config.texts, "--model", config.out, "--layer", layer, "-o", "acts.h5"))
