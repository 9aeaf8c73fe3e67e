"""The application: every verb, by what it is for."""

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
from hiersae_cli.cli.helptext import GroupedCommands
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

MAKE, MEASURE, LOOK, SHARE = "Make", "Measure", "Look", "Share"

# Rich help costs about 200 ms; the plain one is as readable.
app = typer.Typer(
    name="hiersae",
    cls=GroupedCommands,
    help="From a language model's activations to a tree of interpretable features.",
    epilog="""\b
The short chain; every command has --help:
  hiersae cache text.txt --model HOST --layer 6 -o acts.h5
  hiersae train acts.h5 --arch hier -o runs/hier
  hiersae train acts.h5 --arch batchtopk -o runs/flat
  hiersae eval runs/hier --baseline runs/flat --acts acts.h5
  hiersae dashboard runs/hier --acts acts.h5 --serve
""",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _group(text: str) -> typer.Typer:
    return typer.Typer(cls=GroupedCommands, help=text, rich_markup_mode=None, no_args_is_help=True)


studies = _group("Run a human study of a tree. Design it, serve it to raters, analyse it.")
data_sets = _group("Fetch and check data sets of characters.")
experiments = _group("Carry out a planned experiment, compare its runs.")

verb(app, "lm", LMConfig, MAKE)(lm.lm)
verb(app, "cache", CacheConfig, MAKE)(cache.cache)
verb(app, "join", JoinConfig, MAKE)(cache.join)
verb(app, "synth", SynthConfig, MAKE)(synth.synth)
verb(app, "train", TrainConfig, MAKE)(train.train)
verb(app, "eval", EvalConfig, MEASURE)(evaluate.evaluate)
verb(app, "bench", BenchConfig, MEASURE)(bench.bench)
verb(app, "dashboard", DashboardConfig, LOOK)(dashboard.dashboard)
verb(app, "info", InfoConfig, LOOK)(info.info)
verb(app, "label", LabelConfig, LOOK)(label.label)
verb(app, "export-tree", ExportTreeConfig, SHARE)(export_tree.export_tree)
verb(app, "encode", EncodeConfig, SHARE)(encode.encode)
verb(app, "convert", ConvertConfig, SHARE)(convert.convert)

verb(studies, "new", StudyNewConfig)(study.new)
verb(studies, "serve", StudyServeConfig)(study.serve)
verb(studies, "analyze", StudyAnalyzeConfig)(study.analyze)
verb(studies, "rate", StudyRateConfig)(study.rate)
verb(studies, "simulate", StudySimulateConfig)(study.simulate)
app.add_typer(studies, name="study", rich_help_panel=MEASURE)

verb(data_sets, "get", DataGetConfig)(data.get)
app.add_typer(data_sets, name="data", rich_help_panel=MAKE)

verb(experiments, "run", ExperimentConfig)(experiment.run)
verb(experiments, "plot", ExperimentPlotConfig)(experiment.plot)
app.add_typer(experiments, name="experiment", rich_help_panel=MEASURE)


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
