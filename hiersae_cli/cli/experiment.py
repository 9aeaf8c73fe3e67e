"""``hiersae experiment``: one short body for each of its parts."""

from __future__ import annotations

from hiersae_cli.config import ExperimentConfig, ExperimentPlotConfig
from hiersae_cli.console import Console
from hiersae_cli.workflows.advice import command


def run(config: ExperimentConfig, console: Console) -> None:
    """Carry out a planned run. Host models, caches, dictionaries, reports, trees and an index for every data set."""
    from hiersae_cli.workflows.experiment import run as carry_out

    console.result(carry_out(config, console), "")
    console.next(command("experiment", "plot", config.out_dir, "-o", f"{config.out_dir}/plots"))


def plot(config: ExperimentPlotConfig, console: Console) -> None:
    """Compare finished runs. Tables in Markdown on standard output, and plots with intervals."""
    from hiersae_cli.workflows.experiment_plot import run as compare

    summary, tables = compare(config, console)
    console.result(summary, tables)
