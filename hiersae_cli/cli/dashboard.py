"""``hiersae dashboard``."""

from __future__ import annotations

from hiersae_cli.config import DashboardConfig
from hiersae_cli.console import Console


def dashboard(config: DashboardConfig, console: Console) -> None:
    """Browse a run: its tree, and where each feature fires. Serves pages or writes them, or exports feature rows."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.dashboard import run

    result = run(config, console)
    console.result(result, "")
    if not (config.serve or config.neuronpedia):
        console.next(*advice.after_dashboard(config, result))
