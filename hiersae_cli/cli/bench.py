"""``hiersae bench``."""

from __future__ import annotations

from hiersae_cli.config import BenchConfig
from hiersae_cli.console import Console


def bench(config: BenchConfig, console: Console) -> None:
    """Time training and encoding on this machine. On drawn activations, beside what the machine could do at best."""
    from hiersae_cli.workflows.bench import run, table

    result = run(config, console)
    console.result(result, table(result))
