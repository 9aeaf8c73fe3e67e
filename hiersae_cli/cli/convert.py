"""``hiersae convert``."""

from __future__ import annotations

from hiersae_cli.config import ConvertConfig
from hiersae_cli.console import Console


def convert(config: ConvertConfig, console: Console) -> None:
    """Convert dictionaries from and to other tools. Runs are written for SAELens or sparsify."""
    from hiersae_cli.workflows.convert import run

    console.result(run(config, console), "")
    if not config.to:
        console.next(f"hiersae eval {config.out} {' '.join(f'--acts {path}' for path in config.acts)} -o report.json")
