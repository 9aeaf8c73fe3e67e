"""``hiersae encode``."""

from __future__ import annotations

from hiersae_cli.config import EncodeConfig
from hiersae_cli.console import Console
from hiersae_cli.workflows.advice import command


def encode(config: EncodeConfig, console: Console) -> None:
    """Write what fires in every row of a cache. A sparse matrix, for analyses of your own."""
    from hiersae_cli.workflows.encode import run

    console.result(run(config, console), "")
    console.next(command("info", config.out))
