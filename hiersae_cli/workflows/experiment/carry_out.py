"""A planned run of the experiment: hosts, caches, dictionaries, reports, trees and ``final_info.json``."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from hiersae_cli.config.base import first_difference
from hiersae_cli.config.experiment import ExperimentConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats import atomic, final_info
from hiersae_cli.formats.datasets import Dataset
from hiersae_cli.formats.experiment_run import DESCRIPTION, LOG, SCHEMA, SCHEMA_VERSION
from hiersae_cli.formats.final_info import FINAL_INFO
from hiersae_cli.formats.plan import Part, Planned
from hiersae_cli.formats.provenance import check_schema, header
from hiersae_cli.formats.report import MORE_IS_BETTER
from hiersae_cli.locking import exclusive
from hiersae_cli.workflows.experiment.steps import Unit


def carry_out(
    out: Path, config: ExperimentConfig, planned: Planned, sets: list[Dataset], device: str, console: Console
) -> None:
    """Make what is missing in ``out``, the folder of a planned run on ``device``; ``final_info.json`` is written last.

    Raises ``FileError`` if the folder holds a run of another configuration or other data.
    """
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out, wait=False):
        _begin(out, config, planned, sets)
        titles = ", ".join(dataset.title for dataset in sets)
        console.say(f"{out}: {planned.tests}; configuration {planned.configuration}; {titles}")
        if not (out / FINAL_INFO).exists():
            others = [out.parent / name for name in planned.others]
            units = _units(out, planned.parts, sets, others, device, console)
            for unit in units:
                unit.carry_out()
            _finish(out, units)
        console.say(f"{out / FINAL_INFO}: complete")


def _begin(out: Path, config: ExperimentConfig, planned: Planned, sets: list[Dataset]) -> None:
    """Write ``experiment.json``, or check that an existing one describes the same run."""
    description = {
        **header(SCHEMA, SCHEMA_VERSION, config, {str(dataset.text): dataset.sha256 for dataset in sets}),
        "run": planned.name,
        "tests": planned.tests,
        "configuration": planned.configuration,
        "plan": {part.dataset: json.loads(json.dumps(vars(part))) for part in planned.parts},
        "data": {dataset.name: dataset.title for dataset in sets},
        "machine": {
            "device": torch.cuda.get_device_name() if planned.configuration == "gpu" else "cpu",
            "threads": torch.get_num_threads(),
        },
    }
    path = out / DESCRIPTION
    if not path.exists():
        # A killed process leaves unfinished files with names that begin with a dot.
        if others := sorted(file.name for file in out.iterdir() if not file.name.startswith(".")):
            raise FileError(f"{out}: a folder with other files in it, such as {others[0]}", "Choose another --out_dir.")
        atomic.write_json(path, description)
        return
    saved = atomic.read_json(path)
    check_schema(path, saved, SCHEMA, SCHEMA_VERSION)
    difference = None
    for key in ("configuration", "data"):
        difference = difference or first_difference({key: saved[key]}, {key: description[key]})
    for name in description["plan"]:
        inner = first_difference(saved["plan"].get(name, {}), description["plan"][name])
        difference = difference or (f"of {name}, {inner}" if inner else None)
    if list(saved["inputs"].values()) != list(description["inputs"].values()):
        difference = difference or "the data differs"
    if difference:
        raise FileError(
            f"{out}: holds a run of another configuration: {difference}",
            "Move the folder away to begin the run again, or restore its plan and data.",
        )


def _units(
    out: Path, parts: list[Part], sets: list[Dataset], others: list[Path], device: str, console: Console
) -> list[Unit]:
    def log(step: dict[str, Any]) -> None:
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with open(out / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps({"ended": ended, **step}) + "\n")

    # Reports are written, not shown: standard output has only the result of the run.
    quieter = Console(json=True, quiet=console.quiet)
    return [
        Unit(
            part,
            dataset,
            seed,
            out / part.dataset / f"seed-{seed}",
            [other / part.dataset / f"seed-{seed}" for other in others],
            device,
            log,
            quieter,
        )
        for part, dataset in zip(parts, sets, strict=True)
        for seed in part.host_seeds
    ]


def _finish(out: Path, units: list[Unit]) -> None:
    of_sets: dict[str, dict[str, list[float | None]]] = {}
    results: dict[str, Any] = {}
    for unit in units:
        files = unit.results()
        values = of_sets.setdefault(unit.data.title, {})
        of_host = _of_host(files)
        of_pairs = [_of_pair(files["report"], seed) for seed in unit.part.sae_seeds]
        for figures in (of_host, *of_pairs):
            for key, value in figures.items():
                values.setdefault(key, []).append(value)
        name = f"{unit.data.title}_{unit.seed}"
        history = files["host"]["history"]
        results |= {
            f"{name}_final_info": {**of_host, "pairs": of_pairs},
            f"{name}_train_info": [{"iter": at["step"], "loss": at["training_loss"]} for at in history],
            f"{name}_val_info": [
                {"iter": at["step"], "train/loss": at["training_loss"], "val/loss": at["validation_loss"]}
                for at in history
            ],
        }
    final_info.write(out, {title: final_info.summarised(values) for title, values in of_sets.items()}, results)


def _of_host(files: dict[str, Any]) -> dict[str, float | None]:
    """The figures of a host model."""
    rates, check = files["samples"]["tokens_per_second"], files["check"]
    return {
        "final_train_loss": files["host"]["history"][-1]["training_loss"],
        "best_val_loss": files["host"]["validation_loss"],
        "total_train_time": files["host"]["seconds"],
        "avg_inference_tokens_per_second": sum(rates) / len(rates),
        "host_loss_change": check["loss_after"] - check["loss_before"],
    }


def _of_pair(report: dict[str, Any], seed: int) -> dict[str, float | None]:
    """The figures of a pair of dictionaries: every metric of both, and the hierarchical one's minus the flat one's."""
    hier, flat = (report["runs"][f"{kind}-{seed}"] for kind in ("hier", "flat"))
    figures: dict[str, float | None] = {}
    for metric in MORE_IS_BETTER:
        ours, theirs = ((run.get(metric) or {}).get("value") for run in (hier, flat))
        if metric in hier:
            figures[f"{metric}_hier"] = ours
        if metric in flat:
            figures[f"{metric}_flat"] = theirs
        if metric in hier and metric in flat:
            figures[f"{metric}_difference"] = None if ours is None or theirs is None else ours - theirs
    return figures
