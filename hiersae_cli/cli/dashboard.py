"""``hiersae dashboard``."""

from __future__ import annotations

from hiersae_cli.config import DashboardConfig
from hiersae_cli.console import Console


def dashboard(config: DashboardConfig, console: Console) -> None:
    """Index a run's firings, and serve pages made from them, write them as a folder, or export feature rows."""
    from hiersae_cli.workflows.dashboard import run

    console.result(run(config, console), "")
    if not (config.serve or config.out or config.neuronpedia):
        console.next(f"the same command with --serve, to look at it in a browser, or with -o {config.run}-pages")
