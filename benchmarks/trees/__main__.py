"""Trees against flat dictionaries, on the same rows, with as many latents and the same L0.

    python -m benchmarks.trees SUITE -o FOLDER [--seeds N] [--seed-base S] [--samples COUNT] [--l0 N[,N…]]
        [--widths N,N… …] [--only NAME[,NAME]] [--set KEY=VALUE …] [--set-flat KEY=VALUE …] [--ablate PART]
        [--control priced] [--tries N] [--rates X[,X…]] [--acts FILE] [--module NAME] [--model HOST] [--json FILE]
        [--quick] [--device cpu]

Suites:
    toy                  20 features: our hierarchy and our flat BatchTopK
    synthtree-1k         the same for 1,024 features and 512 latents, and SAELens' BatchTopK and Matryoshka
    synthsaebench-16k    the same for 16,384 features and 4,096 latents; 200M samples on a GPU, 5M on a CPU
    cache                activations of a language model: --acts acts.h5, from ``hiersae cache``; a first level of 256
    smollm2              the same with the defaults of ``hiersae train``, our Matryoshka, absorption and concepts; with
                         --model HOST also the host's loss

Each step is a command of ``hiersae``: ``synth`` draws the rows (8M rows of synthtree-1k are 6 GB), ``train`` trains the
dictionaries, ``convert`` reads those of SAELens, and ``eval`` measures all of them, with the seeds of each as a group.
FOLDER holds the rows (acts.h5), the runs, and a report for each L0. Existing files are not made again, so an
interrupted benchmark resumes, and several processes may share a FOLDER if they train different seeds or names. --json
writes the figures of each group of seeds as an object of a list.

--only takes the beginnings of names: hier, batchtopk, saelens-matryoshka. SAELens' threshold is a running mean over
hundreds of steps, while ours is set again at the end. So SAELens' L0 is far off after a short training, as with
--quick.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.trees import ablations
from benchmarks.trees.suites import ON_A_CACHE, SAELENS, SUITES, Suite, Training, choose, rows_of, trainings
from benchmarks.trees.table import rows_of as groups_of
from hiersae_cli.config.architectures import ARCHITECTURES
from hiersae_cli.config.base import parse_count, parse_counts, parse_numbers
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.synth import PRESETS
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import HierSAEError, UsageError
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.workflows import convert, synth
from hiersae_cli.workflows.eval import evaluate
from hiersae_cli.workflows.train import run as train
from hiersae_cli.workflows.train.sources import open_source


def run(options: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Run the benchmark; returns the report of each L0."""
    suite = choose(options)
    folder = Path(options.out)
    acts = options.acts or str(folder / "acts.h5")
    l0s = options.l0 or (suite.l0,)
    plans = {l0: trainings(options, suite, acts, l0, str(folder)) for l0 in l0s}  # refuses bad options before drawing
    make_rows(options, suite, acts, console)
    reports = []
    for l0, plan in plans.items():
        runs = [train_best(training, console) for training in plan]
        reports.append(measure(runs, acts, options.model, suite, folder / f"report-l{l0:g}.json", console))
    if options.json:
        groups = [group for report in reports for group in groups_of(report)]
        options.json.write_text(json.dumps(groups, indent=1) + "\n", encoding="utf-8")
    return reports


def make_rows(options: argparse.Namespace, suite: Suite, acts: str, console: Console) -> None:
    """Draw the rows of a suite, unless they exist."""
    if options.suite in ON_A_CACHE and not options.acts:
        raise UsageError(f"{options.suite}: needs --acts acts.h5", "Make it with 'hiersae cache'.")
    if options.suite not in ON_A_CACHE and not Path(acts).exists():
        Path(acts).parent.mkdir(parents=True, exist_ok=True)
        synth.run(rows_of(options, suite, acts), console)


def train_best(training: Training, console: Console) -> str:
    """Train a dictionary; returns its run folder, of several tries the one with the lowest FVU in its last steps."""
    if training.kind == SAELENS:
        return train_peer(training.tries[0], console)
    fvu = {}
    for config in training.tries:
        folder = RunFolder(config.out)
        if not (folder.config_file.exists() and folder.is_complete()):
            train.run(config, console)
        fvu[config.out] = folder.last_metrics()["fvu"]
    return min(fvu, key=fvu.__getitem__)


def train_peer(config: TrainConfig, console: Console) -> str:
    """Train a dictionary with SAELens on the same rows, and convert it to a run; returns the run folder."""
    folder = RunFolder(config.out)
    if folder.config_file.exists():
        return config.out
    from benchmarks.trees import peers_saelens

    device = resolve_device(config.device)
    source = open_source(config, device)
    saelens_folder = folder.path.with_name(f"{folder.path.name}.sae-lens")
    peers_saelens.train(config, source.batches(config.batch), source.width, device, saelens_folder)
    source.close()
    convert.run(ConvertConfig(source=str(saelens_folder), acts=config.acts, out=config.out), console)
    shutil.rmtree(saelens_folder)
    header = folder.read_header()
    config_with_seed = {**header["config"], "seed": config.seed}
    folder.write_header({**header, "config": config_with_seed})  # so that eval knows which baseline has the same seed
    return config.out


def measure(runs: list[str], acts: str, model: str, suite: Suite, report: Path, console: Console) -> dict[str, Any]:
    """Evaluate the runs: the first group of seeds against all others; returns the report."""
    first = [path for path in runs if _without_seed(path) == _without_seed(runs[0])]
    config = EvalConfig(
        runs=first,
        baseline=[path for path in runs if path not in first],
        acts=[acts],
        tokens=suite.held_out,
        tasks=suite.tasks if model else (),  # concepts need the host's tokenizer
        model=model,
        controls=False,
        out=str(report),
        full=True,
        overwrite=True,
    )
    return evaluate(config, console)[0]


def _without_seed(run: str) -> str:
    return run.rpartition("-seed")[0]


def setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE`` of ``TrainConfig``: numbers, True, tuples (``3,3,4``), anything else text."""
    name, _, value = text.partition("=")
    if name not in {field.name for field in fields(TrainConfig)}:
        raise argparse.ArgumentTypeError(f"{name} is not an option of training")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.trees", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("suite", choices=SUITES)
    add("-o", "--out", required=True, metavar="FOLDER", help="rows, runs and reports; made, or resumed")
    add("--acts", help="cache to train and measure on, for the suites cache and smollm2")
    add("--module", default="", help="module of the cache, if it has several")
    add("--model", default="", metavar="HOST", help="the cache's language model: measures its loss too")
    add("--json", type=Path, metavar="FILE", help="file for the figures of each group of seeds")
    add("--seeds", type=int, help="trainings of each architecture")
    add("--seed-base", type=int, default=0, help="the first seed")
    add("--tries", type=int, help="trainings of ours with different seeds; only that with the lowest FVU counts")
    add(
        "--rates",
        type=parse_numbers,
        metavar="X[,X…]",
        help="factors on the rate of our flat dictionaries; best counts",
    )
    add("--samples", type=parse_count, metavar="COUNT", help="activations of each training")
    add("--l0", type=parse_numbers, metavar="N[,N…]", help="several give a frontier, with a report for each")
    add("--widths", type=parse_counts, action="append", metavar="N,N…", help="widths of a hierarchy; may be repeated")
    add("--only", default="", metavar="NAME[,NAME]", help="beginnings of the names to train")
    add("--set", type=setting, action="append", default=[], metavar="KEY=VALUE", help="training option of hier")
    add(
        "--set-flat",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="the same for flat dictionaries",
    )
    add("--ablate", default="", choices=ablations.ABLATIONS, help="a part that hier lacks: see ablations.py")
    add("--control", default="", choices=["priced"], help="a part of hier that batchtopk gets: see ablations.py")
    add("--quick", action="store_true", help="a small version, to check that everything works")
    add("--device", default="auto")
    for name in asdict(PRESETS["toy"]):
        add(f"--truth-{name}", type=parse_count, default=0, metavar="COUNT", help="shape of the truth")
    return flags


if __name__ == "__main__":
    ARCHITECTURES.update(ablations.VARIANTS)
    try:
        run(parser().parse_args(), Console())
    except HierSAEError as error:
        raise SystemExit(f"error: {error}") from None
