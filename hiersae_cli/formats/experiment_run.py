"""A finished run of the experiment, read from its folder for tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError
from hiersae_cli.formats import atomic
from hiersae_cli.formats.fields import COUNT, Kind, require_fields
from hiersae_cli.formats.final_info import FINAL_INFO, Values, mean, standard_error
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.reading import parse_json, read_utf8, reading

SCHEMA = "hiersae.experiment"
SCHEMA_VERSION = 1
DESCRIPTION, LOG = "experiment.json", "log.jsonl"
KINDS = ("hier", "flat")

_HINT = "Run this part of the experiment again."
_FIELDS: dict[str, Kind] = {"tests": str, "configuration": str, "data": {str: str}}
_HOST: dict[str, Kind] = {"history": [{"step": COUNT, "validation_loss": float}]}
_LINE: dict[str, Kind] = {"tokens": COUNT, "fvu": (float, None)}

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class FinishedRun:
    """The results of a run.

    Attributes:
        name, tests, configuration: as in the plan.
        info: ``final_info.json``.
        host_curves: by data set, for every host, its (step, validation loss in nats per character).
        curves: by data set and kind, for every dictionary, its (training tokens, FVU).
    """

    name: str
    tests: str
    configuration: str
    info: dict[str, Any]
    host_curves: dict[str, list[Curve]]
    curves: dict[tuple[str, str], list[Curve]]

    def values(self, title: str, key: str) -> Values:
        """The values of each seed; empty if the run has no such figure."""
        values: Values = self.info.get(title, {}).get("final_info_dict", {}).get(key, ())
        return values


def read(folder: str | Path) -> FinishedRun:
    """Read a run; raises ``FileError`` if the folder holds none, or one that has not ended."""
    folder = Path(folder)
    described = atomic.read_json(folder / DESCRIPTION)
    check_schema(folder / DESCRIPTION, described, SCHEMA, SCHEMA_VERSION)
    if not (folder / FINAL_INFO).exists():
        raise FileError(f"{folder}: not finished", f"Resume it: python experiment.py --out_dir={folder}")
    require_fields(folder / DESCRIPTION, described, _FIELDS, _HINT)
    host_curves: dict[str, list[Curve]] = {}
    curves: dict[tuple[str, str], list[Curve]] = {}
    for name, title in described["data"].items():
        for unit in sorted((folder / name).glob("seed-*")):
            host = atomic.read_json(unit / "host" / "hiersae.json")
            require_fields(unit / "host" / "hiersae.json", host, _HOST, _HINT)
            host_curves.setdefault(title, []).append([(at["step"], at["validation_loss"]) for at in host["history"]])
            for kind in KINDS:
                for metrics in sorted(unit.glob(f"{kind}-*/metrics.jsonl")):
                    with reading(metrics, _HINT):
                        lines = [parse_json(line) for line in read_utf8(metrics).splitlines()]
                        for line in lines:
                            require_fields(metrics, line, _LINE, _HINT)
                        curve = [(line["tokens"], line["fvu"]) for line in lines if "hardening" not in line]
                    curves.setdefault((title, kind), []).append(curve)
    info = atomic.read_json(folder / FINAL_INFO)
    require_fields(folder / FINAL_INFO, info, {str: {"final_info_dict": {str: [(float, None)]}}}, _HINT)
    return FinishedRun(
        folder.absolute().name, described["tests"], described["configuration"], info, host_curves, curves
    )


def interval(values: Values, confidence: float) -> tuple[float | None, float | None]:
    """The mean, and the half width of Student's interval about it; None for fewer than two values."""
    from scipy.stats import t as student

    error = standard_error(values)
    half = None if error is None else float(student.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return mean(values), half


def titles(runs: Sequence[FinishedRun]) -> list[str]:
    """The data sets of all runs, in their order."""
    return list(dict.fromkeys(title for run in runs for title in run.info))
