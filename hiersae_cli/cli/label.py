"""``hiersae label``."""

from __future__ import annotations

from hiersae_cli.config import LabelConfig
from hiersae_cli.console import Console


def label(config: LabelConfig, console: Console) -> None:
    """Name features, by hand or by a language model. Shows, sets and exports the labels of a run."""
    from hiersae_cli.workflows.label import run

    console.result(run(config, console), "")
