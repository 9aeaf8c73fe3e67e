"""``hiersae dashboard``."""

from __future__ import annotations

from hiersae_cli.config import DashboardConfig
from hiersae_cli.console import Console


def dashboard(config: DashboardConfig, console: Console) -> None:
    """Browse a run: its tree, and where each feature fires. Serves pages or writes them, or exports feature rows."""
    from hiersae_cli.workflows.dashboard import run

    console.result(run(config, console), "")
    if not (config.serve or config.out or config.neuronpedia):
        console.next(f"the same command with --serve, to look at it in a browser, or with -o {config.run}-pages")
