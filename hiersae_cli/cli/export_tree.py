"""``hiersae export-tree``."""

from __future__ import annotations

import shlex

from hiersae_cli.config import ExportTreeConfig
from hiersae_cli.console import Console
from hiersae_cli.workflows.advice import command


def export_tree(config: ExportTreeConfig, console: Console) -> None:
    """Write the tree of features with its evidence. As JSON, GraphML, DOT, Newick or CSV."""
    from hiersae_cli.workflows.export_tree import run

    console.result(run(config, console), "")
    if config.format == "json":
        console.next(command("info", config.out))
    if config.format == "dot":
        console.next(f"dot -Tsvg {shlex.quote(config.out)} -o tree.svg")
