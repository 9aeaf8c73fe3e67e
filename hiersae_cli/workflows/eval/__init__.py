"""``hiersae eval``: runs -> a report, or what a figure of a report is."""

from __future__ import annotations

from typing import Any

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.metrics.catalogue import explained


def evaluate(config: EvalConfig, console: Console) -> tuple[dict[str, Any], str]:
    """The report, or with ``--explain`` the definition of a figure, for which nothing heavy is loaded."""
    if config.explain:
        return explained(config.explain)
    from hiersae_cli.workflows.eval.run import run

    return run(config, console), ""
