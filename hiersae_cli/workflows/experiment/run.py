"""``hiersae experiment run``: plan + data -> hosts, caches, dictionaries, reports, trees and ``final_info.json``."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from hiersae_cli.config.base import first_difference
from hiersae_cli.config.data import DATA_FOLDER
from hiersae_cli.config.experiment import ExperimentConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import FileError, HierSAEError
from hiersae_cli.formats import atomic, final_info, plan
from hiersae_cli.formats.datasets import Dataset
from hiersae_cli.formats.experiment_run import DESCRIPTION, LOG, SCHEMA, SCHEMA_VERSION
from hiersae_cli.formats.final_info import FINAL_INFO
from hiersae_cli.formats.plan import Part, Planned
from hiersae_cli.formats.provenance import check_schema, header
from hiersae_cli.formats.report import MORE_IS_BETTER
from hiersae_cli.workflows import data
from hiersae_cli.workflows.experiment.steps import Unit


def run(config: ExperimentConfig, console: Console | None = None) -> dict[str, Any]:
    """Carry out the run of the plan that the folder is named after; gone on with where it was begun.

    Returns ``final_info.json``. Raises ``UsageError`` where the plan has no such run, ``FileError`` where a data set is
    not there or the folder holds a run of another configuration or other data.
    """
    console = console or Console.silent()
    out, plan_file = Path(config.out_dir), Path(config.plan)
    gpu = resolve_device("auto").type == "cuda"
    device = "cuda" if gpu else "cpu"
    planned = plan.load(plan_file, out.absolute().name, "gpu" if gpu else "cpu")
    sets = _data_sets(planned, plan_file.parent / DATA_FOLDER, console)
    out.mkdir(parents=True, exist_ok=True)
    with atomic.exclusive(out, wait=False):
        _begin(out, config, planned, sets)
        titles = ", ".join(each.title for each in sets)
        console.say(f"{out}: {planned.tests}; configuration {planned.configuration}; {titles}")
        if not (out / FINAL_INFO).exists():
            others = [out.parent / name for name in planned.others]
            units = _units(out, planned.parts, sets, others, device, console)
            for unit in units:
                unit.carry_out()
            _finish(out, units)
        console.say(f"{out / FINAL_INFO}: complete")
    info: dict[str, Any] = atomic.read_json(out / FINAL_INFO)
    return info


def _data_sets(planned: Planned, folder: Path, console: Console) -> list[Dataset]:
    """All data sets of the run; what is wrong with any of them is said at once."""
    found, wrong = [], []
    for part in planned.parts:
        try:
            found.append(data.require(part.dataset, folder, console))
        except FileError as error:
            wrong.append(str(error))
    if wrong:
        raise HierSAEError("the data sets are not all there\n" + "\n".join(wrong))
    return found


def _begin(out: Path, config: ExperimentConfig, planned: Planned, sets: list[Dataset]) -> None:
    """Write ``experiment.json``, or check that the one that there is says the same."""
    wanted = {
        **header(SCHEMA, SCHEMA_VERSION, config, {str(each.text): each.sha256 for each in sets}),
        "run": planned.name,
        "tests": planned.tests,
        "configuration": planned.configuration,
        "plan": {part.dataset: json.loads(json.dumps(vars(part))) for part in planned.parts},
        "data": {each.name: each.title for each in sets},
        "machine": {
            "device": torch.cuda.get_device_name() if planned.configuration == "gpu" else "cpu",
            "threads": torch.get_num_threads(),
        },
    }
    path = out / DESCRIPTION
    if not path.exists():
        # Names that begin with a dot are of files that a killed process was writing.
        if others := sorted(file.name for file in out.iterdir() if not file.name.startswith(".")):
            raise FileError(f"{out}: a folder with other files in it, such as {others[0]}", "Choose another --out_dir.")
        atomic.write_json(path, wanted)
        return
    saved = atomic.read_json(path)
    check_schema(path, saved, SCHEMA, SCHEMA_VERSION)
    difference = None
    for key in ("configuration", "data"):
        difference = difference or first_difference({key: saved[key]}, {key: wanted[key]})
    for name in wanted["plan"]:
        inner = first_difference(saved["plan"].get(name, {}), wanted["plan"][name])
        difference = difference or (f"of {name}, {inner}" if inner else None)
    if list(saved["inputs"].values()) != list(wanted["inputs"].values()):
        difference = difference or "the data is another"
    if difference:
        raise FileError(
            f"{out}: holds a run of another configuration: {difference}",
            "Move the folder away to begin the run again, or restore what it was begun with.",
        )


def _units(
    out: Path, parts: list[Part], sets: list[Dataset], others: list[Path], device: str, console: Console
) -> list[Unit]:
    def log(step: dict[str, Any]) -> None:
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with open(out / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps({"ended": ended, **step}) + "\n")

    # Reports are written, not shown: what is on standard output is the result of the run alone.
    quieter = Console(json=True, quiet=console.quiet)
    return [
        Unit(
            part,
            each,
            seed,
            out / part.dataset / f"seed-{seed}",
            [other / part.dataset / f"seed-{seed}" for other in others],
            device,
            log,
            quieter,
        )
        for part, each in zip(parts, sets, strict=True)
        for seed in part.host_seeds
    ]


def _finish(out: Path, units: list[Unit]) -> None:
    of_sets: dict[str, dict[str, list[float | None]]] = {}
    results: dict[str, Any] = {}
    for unit in units:
        found = unit.results()
        values = of_sets.setdefault(unit.data.title, {})
        of_host = _of_host(found)
        of_pairs = [_of_pair(found["report"], seed) for seed in unit.part.sae_seeds]
        for one in (of_host, *of_pairs):
            for key, value in one.items():
                values.setdefault(key, []).append(value)
        name = f"{unit.data.title}_{unit.seed}"
        history = found["host"]["history"]
        results |= {
            f"{name}_final_info": {**of_host, "pairs": of_pairs},
            f"{name}_train_info": [{"iter": at["step"], "loss": at["training_loss"]} for at in history],
            f"{name}_val_info": [
                {"iter": at["step"], "train/loss": at["training_loss"], "val/loss": at["validation_loss"]}
                for at in history
            ],
        }
    final_info.write(out, {title: final_info.summarised(values) for title, values in of_sets.items()}, results)


def _of_host(found: dict[str, Any]) -> dict[str, float | None]:
    """One value of each host model."""
    rates, check = found["samples"]["tokens_per_second"], found["check"]
    return {
        "final_train_loss": found["host"]["history"][-1]["training_loss"],
        "best_val_loss": found["host"]["validation_loss"],
        "total_train_time": found["host"]["seconds"],
        "avg_inference_tokens_per_second": sum(rates) / len(rates),
        "host_loss_change": check["loss_after"] - check["loss_before"],
    }


def _of_pair(report: dict[str, Any], seed: int) -> dict[str, float | None]:
    """One value of each pair of dictionaries: every metric of both, and the hierarchical one's minus the flat one's."""
    hier, flat = (report["runs"][f"{kind}-{seed}"] for kind in ("hier", "flat"))
    found: dict[str, float | None] = {}
    for metric in MORE_IS_BETTER:
        ours, theirs = ((run.get(metric) or {}).get("value") for run in (hier, flat))
        if metric in hier:
            found[f"{metric}_hier"] = ours
        if metric in flat:
            found[f"{metric}_flat"] = theirs
        if metric in hier and metric in flat:
            found[f"{metric}_difference"] = None if ours is None or theirs is None else ours - theirs
    return found
