"""Every command of ``hiersae``: a row says what it takes, what carries it out and what its help says.

A row names its workflow as a text, so that a command loads nothing that it does not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from hiersae_cli.config.base import Config
from hiersae_cli.config.bench import BenchConfig
from hiersae_cli.config.cache import CacheConfig, JoinConfig
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.data import DataGetConfig
from hiersae_cli.config.encode import EncodeConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.experiment import ExperimentConfig, ExperimentPlotConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.config.label import LabelConfig
from hiersae_cli.config.lm import LMConfig
from hiersae_cli.config.study import (
    StudyAnalyzeConfig,
    StudyNewConfig,
    StudyRateConfig,
    StudyServeConfig,
    StudySimulateConfig,
)
from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console

MAKE, MEASURE, LOOK, SHARE = "Make", "Measure", "Look", "Share"


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        name: what is typed; a command of a group has two words, such as ``study new``.
        config: its flags.
        workflow: MODULE:FUNCTION below ``hiersae_cli.workflows``. The function takes the configuration and the console,
            and returns the result, or the result and a text for people.
        help: the first sentence stands in the list of commands.
        heading: what the list of commands shows it under.
    """

    name: str
    config: type[Config]
    workflow: str
    help: str
    heading: str

    def run(self, config: Config, console: Console) -> None:
        """Carry the command out, show its result, and say what to run next."""
        module, _, function = self.workflow.partition(":")
        answer = getattr(import_module(f"hiersae_cli.workflows.{module}"), function)(config, console)
        result, text = answer if isinstance(answer, tuple) else (answer, "")
        console.result(result, text)
        from hiersae_cli.workflows.common.advice import next_commands

        console.next(*next_commands(self.name, config, result))


VERBS = (
    Verb(
        "lm",
        LMConfig,
        "lm:run",
        "Train a small character-level language model. It is saved as a Hugging Face model.",
        MAKE,
    ),
    Verb(
        "cache",
        CacheConfig,
        "cache.run:run",
        "Write a language model's activations on a text. They go to an HDF5 file.",
        MAKE,
    ),
    Verb(
        "join",
        JoinConfig,
        "cache.join:run",
        "Join the shards of a cache. The file that is written reads as one.",
        MAKE,
    ),
    Verb(
        "synth",
        SynthConfig,
        "synth:run",
        "Draw activations whose features and tree are known. The truth is written beside them.",
        MAKE,
    ),
    Verb(
        "train",
        TrainConfig,
        "train.run:run",
        "Train a sparse autoencoder with a tree, or a flat one. On cached or synthetic activations.",
        MAKE,
    ),
    Verb(
        "data get",
        DataGetConfig,
        "data:get",
        "Fetch a data set of characters. It is checked, and its parts are written as texts.",
        MAKE,
    ),
    Verb(
        "eval",
        EvalConfig,
        "eval:evaluate",
        "Measure a run, alone or against baselines. On held-out rows, with paired intervals and tests.",
        MEASURE,
    ),
    Verb(
        "bench",
        BenchConfig,
        "bench:run_with_table",
        "Time training and encoding on this machine. On drawn activations, beside what the machine could do at best.",
        MEASURE,
    ),
    Verb(
        "study new",
        StudyNewConfig,
        "study.run:new",
        "Draw the items of a blinded study. Its design and its pre-registration are written too.",
        MEASURE,
    ),
    Verb(
        "study serve",
        StudyServeConfig,
        "study.run:serve",
        "Serve a study to its raters. Each has a private link; an administrator sees the progress.",
        MEASURE,
    ),
    Verb(
        "study analyze",
        StudyAnalyzeConfig,
        "study.run:analyze",
        "Analyse the answers of a study as registered. Accuracy, differences, agreement, exclusions and times.",
        MEASURE,
    ),
    Verb(
        "study rate",
        StudyRateConfig,
        "study.rate:rate",
        "Have a language model answer a study. It is a rater that is reported by itself.",
        MEASURE,
    ),
    Verb(
        "study simulate",
        StudySimulateConfig,
        "study.run:simulate",
        "Rehearse a study with raters of known ability. Their answers are kept apart.",
        MEASURE,
    ),
    Verb(
        "experiment run",
        ExperimentConfig,
        "experiment.run:run",
        "Carry out a planned run. Host models, caches, dictionaries, reports, trees and an index for every data set.",
        MEASURE,
    ),
    Verb(
        "experiment plot",
        ExperimentPlotConfig,
        "experiment.plot:run",
        "Compare finished runs. Tables in Markdown on standard output, and plots with intervals.",
        MEASURE,
    ),
    Verb(
        "dashboard",
        DashboardConfig,
        "dashboard.run:run",
        "Browse a run: its tree, and where each feature fires. Serves pages or writes them, or exports feature rows.",
        LOOK,
    ),
    Verb(
        "info",
        InfoConfig,
        "info:run",
        "Describe any file of the chain, and check it. Says whether it is complete and valid.",
        LOOK,
    ),
    Verb(
        "label",
        LabelConfig,
        "label:run",
        "Name features, by hand or by a language model. Shows, sets and exports the labels of a run.",
        LOOK,
    ),
    Verb(
        "export-tree",
        ExportTreeConfig,
        "tree.run:run",
        "Write the tree of features with its evidence. As JSON, GraphML, DOT, Newick or CSV.",
        SHARE,
    ),
    Verb(
        "encode",
        EncodeConfig,
        "encode:run",
        "Write what fires in every row of a cache. A sparse matrix, for analyses of your own.",
        SHARE,
    ),
    Verb(
        "convert",
        ConvertConfig,
        "convert:run",
        "Convert dictionaries from and to other tools. Runs are written for SAELens or sparsify.",
        SHARE,
    ),
)

GROUPS = {
    "study": "Run a human study of a tree. Design it, serve it to raters, analyse it.",
    "data": "Fetch and check data sets of characters.",
    "experiment": "Carry out a planned experiment, compare its runs.",
}
