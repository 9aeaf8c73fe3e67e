"""``hiersae data get``."""

from __future__ import annotations

from hiersae_cli.config import DataGetConfig
from hiersae_cli.console import Console
from hiersae_cli.workflows.advice import command


def get(config: DataGetConfig, console: Console) -> None:
    """Fetch a data set of characters. It is checked, and its parts are written as texts."""
    from hiersae_cli.workflows.data import get as run

    console.result(run(config, console), "")
    console.next(command("lm", f"{config.data}/{config.name}/text.txt", "-o", "host"))
