"""The report (``report.json``): specified in ``docs/file-formats.md``, made by ``workflows.eval``."""

from __future__ import annotations

from pathlib import Path

from hiersae_cli.formats.atomic import read_json
from hiersae_cli.formats.described import Described, Lines
from hiersae_cli.formats.fields import COMMON, Kind, require_fields
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.metrics.catalogue import CHOW_LIU, METRICS, SHUFFLED, metric_of

SCHEMA = "hiersae.report"
SCHEMA_VERSION = 4

MORE_IS_BETTER = {metric.name: metric.better for metric in METRICS}  # in the order of the tables

# Trees of a run, by the suffix of their metrics: its own (learned, or the most informative parents of a flat
# dictionary), the best that its firings allow, and its own with shuffled parents.
OWN = ""
TREES = {OWN: "own", CHOW_LIU: "Chow–Liu", SHUFFLED: "shuffled"}

# The plots by file name, in the order of the page.
PLOTS = {
    "frontier": "Reconstruction error against sparsity",
    "information": "Information of each edge against the most that its rates allow",
    "containment": "How far children fire within their parents",
    "calibration": "P(child | parent): as fitted on training rows, and in held-out rows",
    "firing-rates": "How often latents fire",
}

SEED_OF = {"init": "first weights", "order": "data order"}  # the two seeds of a run

# Why a difference has no verdict.
TOO_FEW_DOCUMENTS, TOO_FEW_SEEDS = "too few documents", "too few seeds"
VERDICTS = ("better", "worse", "no evidence", TOO_FEW_DOCUMENTS, TOO_FEW_SEEDS)


def verdict(metric: str, difference: float | None, p: float | None, level: float) -> str:
    """``better``, ``worse`` or ``no evidence``, by a corrected p-value; empty if neither more nor less is better."""
    more_is_better = metric_of(metric).better
    if more_is_better is None or difference is None or p is None:
        return ""
    if p >= level:
        return "no evidence"
    return "better" if (difference > 0) == more_is_better else "worse"


_FIELDS: dict[str, Kind] = {**COMMON, "runs": {str: {str: {"value?": (float, None)}}}, "paired": {str: dict}}
_HEADLINE = ("fvu", "l0", "ce_recovered", "mi_bits")  # figures of a run that are described


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of a report; raises ``FileError`` if a field is missing. Nothing can be verified."""
    data = read_json(path)
    # These fields are the same in all versions.
    check_schema(path, data, SCHEMA, *range(1, SCHEMA_VERSION + 1))
    require_fields(path, data, _FIELDS, "Evaluate again with 'hiersae eval'.")
    runs, paired = data["runs"], data["paired"]
    lines: Lines = []
    for name, figures in runs.items():
        known = [metric for metric in _HEADLINE if figures.get(metric, {}).get("value") is not None]
        values = (f"{metric} {figures[metric]['value']:.4g}" for metric in known)
        lines.append(("run", f"{name}: {', '.join(values)}"))
    if paired:
        lines.append(("compared", ", ".join(paired)))
    details = {"runs": {name: sorted(figures) for name, figures in runs.items()}, "paired": sorted(paired)}
    return Described("report", data, details, lines)
