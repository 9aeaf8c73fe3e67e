"""``hiersae convert``."""

from __future__ import annotations

from hiersae_cli.config import ConvertConfig
from hiersae_cli.console import Console
from hiersae_cli.workflows.advice import command


def convert(config: ConvertConfig, console: Console) -> None:
    """Convert dictionaries from and to other tools. Runs are written for SAELens or sparsify."""
    from hiersae_cli.workflows.convert import run

    console.result(run(config, console), "")
    if not config.to:
        acts = [word for path in config.acts for word in ("--acts", path)]
        console.next(command("eval", config.out, *acts, "-o", "report.json"))
