"""The application: every verb, in pipeline order."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hiersae_cli import __version__
from hiersae_cli.cli import (
    bench,
    cache,
    convert,
    dashboard,
    data,
    encode,
    evaluate,
    experiment,
    export_tree,
    info,
    label,
    lm,
    study,
    synth,
    train,
)
from hiersae_cli.cli.flags import verb
from hiersae_cli.config import (
    BenchConfig,
    CacheConfig,
    ConvertConfig,
    DashboardConfig,
    DataGetConfig,
    EncodeConfig,
    EvalConfig,
    ExperimentConfig,
    ExperimentPlotConfig,
    ExportTreeConfig,
    InfoConfig,
    JoinConfig,
    LabelConfig,
    LMConfig,
    StudyAnalyzeConfig,
    StudyNewConfig,
    StudyRateConfig,
    StudyServeConfig,
    StudySimulateConfig,
    SynthConfig,
    TrainConfig,
)

# Rich help costs about 200 ms; the plain one is as readable.
app = typer.Typer(
    name="hiersae",
    help="From a language model's activations to a tree of interpretable features.",
    epilog="Steps chain by files: lm -> cache (or synth) -> train -> eval, export-tree, dashboard. Each has --help.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

verb(app, "lm", LMConfig)(lm.lm)
verb(app, "cache", CacheConfig)(cache.cache)
verb(app, "join", JoinConfig)(cache.join)
verb(app, "synth", SynthConfig)(synth.synth)
verb(app, "train", TrainConfig)(train.train)
verb(app, "eval", EvalConfig)(evaluate.evaluate)
verb(app, "encode", EncodeConfig)(encode.encode)
verb(app, "export-tree", ExportTreeConfig)(export_tree.export_tree)
verb(app, "dashboard", DashboardConfig)(dashboard.dashboard)
verb(app, "label", LabelConfig)(label.label)

studies = typer.Typer(
    help="Human studies of a tree: design, serve, analyze.", rich_markup_mode=None, no_args_is_help=True
)
verb(studies, "new", StudyNewConfig)(study.new)
verb(studies, "serve", StudyServeConfig)(study.serve)
verb(studies, "analyze", StudyAnalyzeConfig)(study.analyze)
verb(studies, "rate", StudyRateConfig)(study.rate)
verb(studies, "simulate", StudySimulateConfig)(study.simulate)
app.add_typer(studies, name="study")

data_sets = typer.Typer(help="Data sets of characters: fetch and check.", rich_markup_mode=None, no_args_is_help=True)
verb(data_sets, "get", DataGetConfig)(data.get)
app.add_typer(data_sets, name="data")

experiments = typer.Typer(
    help="The experiment: carry out its planned runs, compare them.", rich_markup_mode=None, no_args_is_help=True
)
verb(experiments, "run", ExperimentConfig)(experiment.run)
verb(experiments, "plot", ExperimentPlotConfig)(experiment.plot)
app.add_typer(experiments, name="experiment")

verb(app, "convert", ConvertConfig)(convert.convert)
verb(app, "info", InfoConfig)(info.info)
verb(app, "bench", BenchConfig)(bench.bench)


def commands() -> dict[str, Any]:
    """Every command by what is typed, those of a group as ``study new``."""
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        parts = getattr(command, "commands", {"": command})
        found |= {f"{name} {part}".strip(): one for part, one in parts.items()}
    return found


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hiersae {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
