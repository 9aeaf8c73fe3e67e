"""The report (``report.json``): specified in ``docs/file-formats.md``, made by ``workflows.eval``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hiersae_cli.formats import notebook
from hiersae_cli.formats.atomic import read_json
from hiersae_cli.formats.described import Described, Lines
from hiersae_cli.formats.fields import COMMON, COUNT, Kind, require_fields
from hiersae_cli.formats.hub import local_path
from hiersae_cli.formats.optional import optional_package
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.text import shortened, visible
from hiersae_cli.metrics.catalogue import CHOW_LIU, METRICS, SHUFFLED, metric_of

SCHEMA = "hiersae.report"
SCHEMA_VERSION = 4
READ_VERSIONS = (3, SCHEMA_VERSION)  # with all fields that pages and notebooks show

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


_HINT = "Evaluate again with 'hiersae eval'."
# The fields of all versions.
_FIELDS: dict[str, Kind] = {**COMMON, "runs": {str: {str: {"value?": (float, None)}}}, "paired": {str: dict}}
_NUMBER: Kind = (float, None)
_FIGURE: dict[str, Kind] = {"value": _NUMBER, "low?": _NUMBER, "high?": _NUMBER, "n?": _NUMBER, "unit?": (str, None)}
_SHOWN_FIELDS: dict[str, Kind] = {
    **_FIELDS,
    "groups": {str: {"figures": {str: _FIGURE}}},
    "paired": {str: {str: {"value?": _NUMBER, "p_holm?": _NUMBER, "verdict?": str}}},
    "sample": {"rows": COUNT, "documents": COUNT, "module": str},
    "warnings": [str],
}


@dataclass(frozen=True, repr=False)
class Report:
    """A report: figures of groups of runs, and how the first group compares with each of the others.

    Attributes:
        data: all of ``report.json``, as ``docs/file-formats.md`` specifies it.
    """

    data: dict[str, Any]

    def __getitem__(self, field: str) -> Any:
        """A field of ``report.json``, such as ``sample``; raises ``KeyError`` if there is none."""
        return self.data[field]

    @property
    def groups(self) -> list[str]:
        """The names of the groups: first the one that was measured, then baselines, then controls."""
        return list(self.data["groups"])

    def figure(self, group: str, metric: str) -> dict[str, Any]:
        """A figure with ``value``, ``low``, ``high``, ``n`` and ``unit``; raises ``KeyError`` if there is none."""
        figure: dict[str, Any] = self.data["groups"][group]["figures"][metric]
        return figure

    def verdict(self, group: str, metric: str) -> str:
        """One of ``VERDICTS`` about the first group compared with ``group``; "" if there is none."""
        return str(self.data["paired"].get(group, {}).get(metric, {}).get("verdict", ""))

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row per group and metric.

        Its columns are ``group``, ``metric``, ``value``, ``low``, ``high``, ``n``, ``unit``; for groups that the first
        one was compared with also ``difference`` (the first group's figure minus this one's), ``p_holm`` and
        ``verdict`` (about the first group), which are empty for others. Raises ``HierSAEError`` if pandas is not
        installed.
        """
        return optional_package("pandas", "report.to_dataframe()").DataFrame(list(self._rows()))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for group in self.groups:
            for metric, figure in self.data["groups"][group]["figures"].items():
                compared = self.data["paired"].get(group, {}).get(metric, {})
                yield {
                    "group": group,
                    "metric": metric,
                    **{name: figure.get(name) for name in ("value", "low", "high", "n", "unit")},
                    "difference": compared.get("value"),
                    "p_holm": compared.get("p_holm"),
                    "verdict": self.verdict(group, metric),
                }

    def __repr__(self) -> str:
        return f"Report({shortened(visible(', '.join(self.groups)))}; {self.data['sample']['rows']:,} rows)"

    def _repr_html_(self) -> str:
        sample = self.data["sample"]
        figures = [self.data["groups"][group]["figures"] for group in self.groups]
        rows = [
            (metric, *(self._cell(group, metric) for group in self.groups))
            for metric in dict.fromkeys(name for of_group in figures for name in of_group)
        ]
        return notebook.card(
            "Report",
            f"{sample['rows']:,} held-out rows of {sample['documents']:,} documents, {sample['module']}"
            + (f"; verdicts are about {self.groups[0]}" if self.groups else ""),
            *(Markup("<p>{}</p>").format(notebook.as_text(warning)) for warning in self.data["warnings"]),
            notebook.table(rows, ["", *self.groups]),
        )

    def _cell(self, group: str, metric: str) -> Markup:
        """A figure with its interval and verdict; empty if the group has no such figure."""
        figure = self.data["groups"][group]["figures"].get(metric)
        if figure is None:
            return Markup("")
        low, high = figure.get("low"), figure.get("high")
        interval = "" if low is None or high is None else f"[{notebook.figure(low)}, {notebook.figure(high)}]"
        return Markup('{} <span class="quiet">{}</span> <span class="{verdict}">{verdict}</span>').format(
            notebook.figure(figure["value"]), interval, verdict=self.verdict(group, metric)
        )


def load_report(path: str | Path) -> Report:
    """Read a ``report.json``, from this machine or from the hub: ``hf://OWNER/NAME/report.json``.

    Raises ``FileError`` if it is missing, of another kind or damaged; ``VersionError`` if this release does not read
    its version.
    """
    path = local_path(path)
    data = read_json(path)
    check_schema(path, data, SCHEMA, *READ_VERSIONS)
    require_fields(path, data, _SHOWN_FIELDS, _HINT)
    return Report(data)


_HEADLINE = ("fvu", "l0", "ce_recovered", "mi_bits")  # figures of a run that are described


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of a report; raises ``FileError`` if a field is missing. Nothing can be verified."""
    data = read_json(path)
    check_schema(path, data, SCHEMA, *range(1, SCHEMA_VERSION + 1))
    require_fields(path, data, _SHOWN_FIELDS if data["schema_version"] in READ_VERSIONS else _FIELDS, _HINT)
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
