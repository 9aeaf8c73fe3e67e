"""Every command of ``hiersae``: a row has its flags, its workflow and its help.

A row names its workflow as a string, so that a command loads only what it runs.
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
from hiersae_cli.config.push import PushConfig
from hiersae_cli.config.study import (
    StudyAnalyzeConfig,
    StudyNewConfig,
    StudyRateConfig,
    StudyServeConfig,
    StudySimulateConfig,
)
from hiersae_cli.config.sweep import SweepConfig
from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import HierSAEError

MAKE, MEASURE, LOOK, SHARE = "Make", "Measure", "Look", "Share"

_LEAST_MEMORY = 10**9  # bytes of addresses; with less, the libraries may crash or hang


@dataclass(frozen=True)
class Verb:
    """A command.

    Attributes:
        name: the words to type; a command of a group has two, such as ``study new``.
        config: the configuration that declares its flags.
        workflow: MODULE:FUNCTION below ``hiersae_cli.workflows``. The function takes the configuration and the console,
            and returns the result, or the result and a text for people.
        help: its help; the list of commands shows the first sentence.
        heading: its heading in the list of commands.
        record: the file of its output that records its configuration, which ``--config`` reads; "" if none does.
        by_ranks: whether ``torchrun`` may start it in several processes.
    """

    name: str
    config: type[Config]
    workflow: str
    help: str
    heading: str
    record: str = ""
    by_ranks: bool = False

    def run(self, config: Config, console: Console) -> None:
        """Carry out the command, show its result, and suggest what to run next."""
        _require_memory()
        local = config
        if config.names_hub():
            from hiersae_cli.formats.hub import with_local_paths

            local = with_local_paths(config)
        module, _, function = self.workflow.partition(":")
        answer = getattr(import_module(f"hiersae_cli.workflows.{module}"), function)(local, console)
        result, text = answer if isinstance(answer, tuple) else (answer, "")
        console.result(result, text)
        from hiersae_cli.workflows.common.advice import next_commands

        console.next(*next_commands(self.name, config, result))


def _require_memory() -> None:
    """Raise ``HierSAEError`` if a limit leaves no room for the libraries, which could not say so."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_MEMORY:
        raise HierSAEError(
            f"out of memory: a process here may have {limit / 10**6:,.0f} MB, and the libraries need about 1 GB",
            "Raise the limit: ulimit -v unlimited.",
        )


VERBS = (
    Verb(
        "lm",
        LMConfig,
        "lm:run",
        "Train a small character-level language model. It is saved as a Hugging Face model.",
        MAKE,
        record="hiersae.json",
    ),
    Verb(
        "cache",
        CacheConfig,
        "cache.run:run",
        "Cache a language model's activations on a text. They are written to an HDF5 file.",
        MAKE,
        record="acts.h5",
        by_ranks=True,
    ),
    Verb(
        "join",
        JoinConfig,
        "cache.join:run",
        "Join the shards of a cache. The new file reads as one cache.",
        MAKE,
    ),
    Verb(
        "synth",
        SynthConfig,
        "synth:run",
        "Draw activations with a known tree. The file also holds the true features and their tree.",
        MAKE,
        record="acts.h5",
    ),
    Verb(
        "train",
        TrainConfig,
        "train.run:run",
        "Train a sparse autoencoder with a tree, or a flat one. It reads cached or synthetic activations.",
        MAKE,
        record="config.json",
        by_ranks=True,
    ),
    Verb(
        "sweep",
        SweepConfig,
        "sweep:run",
        "Train and compare the runs of a plan. A grid or a list of runs with several seeds, in one table.",
        MAKE,
    ),
    Verb(
        "data get",
        DataGetConfig,
        "data:get",
        "Fetch a data set of characters. Checks it and writes its parts as texts.",
        MAKE,
    ),
    Verb(
        "eval",
        EvalConfig,
        "eval:evaluate",
        "Measure a run and compare it with baselines. Uses held-out rows, with paired intervals and tests.",
        MEASURE,
        record="report.json",
        by_ranks=True,
    ),
    Verb(
        "bench",
        BenchConfig,
        "bench:run_with_table",
        "Time training and encoding on this machine. Uses random activations, and compares with the machine's limits.",
        MEASURE,
    ),
    Verb(
        "study new",
        StudyNewConfig,
        "study.run:new",
        "Draw the items of a blinded study. Also writes its design and its pre-registration.",
        MEASURE,
        record="study.json",
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
        "Analyse the answers of a study as registered. Reports accuracy, differences, agreement, exclusions and times.",
        MEASURE,
    ),
    Verb(
        "study rate",
        StudyRateConfig,
        "study.rate:rate",
        "Have a language model answer a study. It is reported separately from people.",
        MEASURE,
    ),
    Verb(
        "study simulate",
        StudySimulateConfig,
        "study.run:simulate",
        "Rehearse a study with simulated raters. Their answers go to a separate file.",
        MEASURE,
    ),
    Verb(
        "experiment run",
        ExperimentConfig,
        "experiment.run:run",
        "Carry out a planned run. Makes hosts, caches, dictionaries, reports, trees and an index for each data set.",
        MEASURE,
    ),
    Verb(
        "experiment plot",
        ExperimentPlotConfig,
        "experiment.plot:run",
        "Compare finished runs. Prints tables in Markdown and writes plots with intervals.",
        MEASURE,
    ),
    Verb(
        "dashboard",
        DashboardConfig,
        "dashboard.run:run",
        "Browse a run: its tree, and where each feature fires. Serves or writes pages, or exports feature rows.",
        LOOK,
    ),
    Verb(
        "info",
        InfoConfig,
        "info:run",
        "Describe and check any file of the chain. Says whether it is complete and valid.",
        LOOK,
    ),
    Verb(
        "label",
        LabelConfig,
        "label:run",
        "Label features, by hand or with a language model. Shows, sets and exports the labels of a run.",
        LOOK,
    ),
    Verb(
        "export-tree",
        ExportTreeConfig,
        "tree.run:run",
        "Write the tree of features with its evidence. Formats: JSON, GraphML, DOT, Newick, CSV.",
        SHARE,
        record="tree.json",
    ),
    Verb(
        "push",
        PushConfig,
        "push:push",
        "Upload a run to the Hugging Face hub. With a model card, and its report and tree if they are named.",
        SHARE,
    ),
    Verb(
        "encode",
        EncodeConfig,
        "encode:run",
        "Write which latents fire in every row of a cache. The file is a sparse matrix, for your own analyses.",
        SHARE,
        record="codes.h5",
        by_ranks=True,
    ),
    Verb(
        "convert",
        ConvertConfig,
        "convert:run",
        "Convert dictionaries from and to other tools. "
        "Reads SAELens, sparsify and dictionary_learning, writes the first two.",
        SHARE,
    ),
)

GROUPS = {
    "study": "Run a human study of a tree. Design it, serve it to raters and analyse it.",
    "data": "Fetch and check data sets of characters.",
    "experiment": "Carry out a planned experiment and compare its runs.",
}
