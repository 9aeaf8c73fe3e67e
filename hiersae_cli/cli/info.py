"""``hiersae info``."""

from __future__ import annotations

from hiersae_cli.config import InfoConfig
from hiersae_cli.console import Console


def info(config: InfoConfig, console: Console) -> None:
    """Describe any file of the chain, and check it. Says whether it is complete and valid."""
    from hiersae_cli.workflows.info import run

    result, text = run(config, console)
    console.result(result, text)
