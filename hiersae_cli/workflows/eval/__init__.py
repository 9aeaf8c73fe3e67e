"""``hiersae eval``: runs -> a report, or the definition of a figure."""

from __future__ import annotations

from typing import Any

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.metrics.catalogue import explained


def evaluate(config: EvalConfig, console: Console) -> tuple[dict[str, Any], str]:
    """The report; with ``--explain`` the definition of a figure, without loading anything heavy."""
    if config.explain:
        return explained(config.explain)
    from hiersae_cli.workflows.eval.run import run

    return run(config, console), ""
