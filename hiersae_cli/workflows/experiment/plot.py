"""``hiersae experiment plot``: finished runs -> tables in Markdown, and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiersae_cli.config.experiment import ExperimentPlotConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import UsageError
from hiersae_cli.formats import atomic, experiment_run
from hiersae_cli.render.experiment_tables import markdown


def run(config: ExperimentPlotConfig, console: Console | None = None) -> tuple[dict[str, Any], str]:
    """Compare runs: their results as data, and as tables in Markdown; writes plots to ``config.out``.

    Raises ``FileError`` if a folder holds no finished run or a plot exists, and ``UsageError`` if two folders have the
    same name, because runs are identified by their names.
    """
    console = console or Console.silent()
    runs = [experiment_run.read(path) for path in config.runs]
    if len({run.name for run in runs}) < len(runs):
        raise UsageError(
            f"RUN {' '.join(config.runs)}: two runs have the same name",
            "Give each once, or rename a folder.",
        )
    if len({run.configuration for run in runs}) > 1:
        console.warn("the runs come from different machines, with different hosts and sizes: do not compare them")
    written: list[str] = []
    if config.out:
        from hiersae_cli.render.experiment_plots import draw

        plots = {Path(config.out) / f"{name}.svg": text for name, text in draw(runs, config.confidence).items()}
        atomic.finish_replacing([*plots][-1])
        for path in plots:
            atomic.refuse_existing(path, config.overwrite)
        atomic.replace_all({path: text.encode() for path, text in plots.items()})
        for path in plots:
            console.say(f"plot: {path}")
        written = [str(path) for path in plots]
    summary = {"runs": {run.name: run.info for run in runs}, "plots": written}
    return summary, markdown(runs, config.confidence)
