"""``hiersae experiment run``: plan + data -> hosts, caches, dictionaries, reports, trees and ``final_info.json``.

Nothing here imports torch at its top: on a busy machine that takes up to a minute, and a missing data set is to be
reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hiersae_cli.config.data import DATA_FOLDER
from hiersae_cli.config.experiment import ExperimentConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, HierSAEError
from hiersae_cli.formats import atomic, plan
from hiersae_cli.formats.datasets import Dataset
from hiersae_cli.formats.final_info import FINAL_INFO
from hiersae_cli.workflows import data


def run(config: ExperimentConfig, console: Console | None = None) -> dict[str, Any]:
    """Carry out the run of the plan that has the folder's name; resumes an unfinished run.

    Returns ``final_info.json``. Raises ``UsageError`` if the plan has no such run, ``FileError`` if a data set is
    missing or the folder holds a run of another configuration or other data.
    """
    console = console or Console.silent()
    check_data(config, console)
    from hiersae_cli.device import resolve_device
    from hiersae_cli.workflows.experiment.carry_out import carry_out

    gpu = resolve_device("auto").type == "cuda"
    planned = plan.load(config.plan, _name(config), "gpu" if gpu else "cpu")
    sets = _require([part.dataset for part in planned.parts], config, console)
    out = Path(config.out_dir)
    carry_out(out, config, planned, sets, "cuda" if gpu else "cpu", console)
    info: dict[str, Any] = atomic.read_json(out / FINAL_INFO)
    return info


def check_data(config: ExperimentConfig, console: Console | None = None) -> None:
    """Raise what ``run`` would raise on a CPU and on a GPU alike: only torch can tell which of them there is.

    What is wrong with only one of the two configurations may not matter on this machine.
    """
    sets: list[list[str]] = []
    errors: list[HierSAEError] = []
    for configuration in plan.CONFIGURATIONS:
        try:
            planned = plan.load(config.plan, _name(config), configuration)
            sets.append([part.dataset for part in planned.parts])
        except HierSAEError as error:
            errors.append(error)
    if not sets and len({str(error) for error in errors}) == 1:
        raise errors[0]
    if sets:
        needed = [name for name in sets[0] if all(name in others for others in sets)]
        _require(needed, config, console or Console.silent())


def _name(config: ExperimentConfig) -> str:
    return Path(config.out_dir).absolute().name


def _require(names: Iterable[str], config: ExperimentConfig, console: Console) -> list[Dataset]:
    """Data sets by name; one error says of all that are missing or wrong what to do."""
    folder = Path(config.plan).parent / DATA_FOLDER
    datasets, wrong = [], []
    for name in names:
        try:
            datasets.append(data.require(name, folder, console))
        except FileError as error:
            wrong.append(str(error))
    if wrong:
        raise HierSAEError("data sets are missing or wrong\n" + "\n".join(wrong))
    return datasets
