"""``hiersae dashboard``."""

from __future__ import annotations

from hiersae_cli.config import DashboardConfig
from hiersae_cli.console import Console


def dashboard(config: DashboardConfig, console: Console) -> None:
    """Index a run's firings, and serve pages made from them, write them as a folder, or export feature rows."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.dashboard import run

    result = run(config, console)
    console.result(result, "")
    if not (config.serve or config.neuronpedia):
        console.next(*advice.after_dashboard(config, result))
