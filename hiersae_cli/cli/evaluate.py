"""``hiersae eval``."""

from __future__ import annotations

from hiersae_cli.config import EvalConfig
from hiersae_cli.console import Console


def evaluate(config: EvalConfig, console: Console) -> None:
    """Measure a run on held-out rows, and against baselines with paired intervals."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.evaluate import run

    report = run(config, console)
    console.result(report, "")
    console.next(advice.after_eval(config, report))
