"""``hiersae data get``."""

from __future__ import annotations

from hiersae_cli.config import DataGetConfig
from hiersae_cli.console import Console


def get(config: DataGetConfig, console: Console) -> None:
    """Fetch a data set of characters. It is checked, and its parts are written as texts."""
    from hiersae_cli.workflows.data import get as run

    console.result(run(config, console), "")
    console.next(f"hiersae lm {config.data}/{config.name}/text.txt -o host")
