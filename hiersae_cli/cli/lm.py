"""``hiersae lm``."""

from __future__ import annotations

import shlex

from hiersae_cli.config import LMConfig
from hiersae_cli.console import Console


def lm(config: LMConfig, console: Console) -> None:
    """Train a small character-level language model. It is saved as a Hugging Face model."""
    from hiersae_cli.workflows.lm import run

    result = run(config, console)
    console.result(result, "")
    texts = "".join(f"{shlex.quote(text)} " for text in config.texts)
    console.next(f"hiersae cache {texts}--model {config.out} --layer {config.layers // 2} -o acts.h5")
