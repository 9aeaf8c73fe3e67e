"""``hiersae label``."""

from __future__ import annotations

from hiersae_cli.config import LabelConfig
from hiersae_cli.console import Console


def label(config: LabelConfig, console: Console) -> None:
    """Show, set or export the labels of a run's features, or have a language model propose them."""
    from hiersae_cli.workflows.label import run

    console.result(run(config, console), "")
