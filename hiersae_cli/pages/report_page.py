"""The report: its content for a template, the same in the dashboard and in the HTML file of ``hiersae eval``."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hiersae_cli.browse.index import summary
from hiersae_cli.browse.tree_model import ReportSummary
from hiersae_cli.layout import split_interval
from hiersae_cli.metrics.catalogue import Term, term
from hiersae_cli.pages.environment import environment
from hiersae_cli.pages.text import asset_text

# The figures next to the map and at the top of the report, by their names; the tables have all of them.
HEADLINES = (
    "fvu",
    "l0",
    "dead",
    "ce_recovered",
    "kl",
    "mi_bits",
    "mi_over_max",
    "p_parent_given_child",
    "lift",
    "bits_per_token",
)
VERDICTS = ("better", "worse", "no evidence")


@dataclass(frozen=True)
class Headline:
    """A row of the report's first table without its intervals; ``other`` is empty without a baseline."""

    term: Term
    ours: str
    other: str
    verdict: str


def headlines(report: ReportSummary | None) -> list[Headline]:
    """The most important rows of the report's first table."""
    if report is None or not report.tables:
        return []
    _, columns, rows = report.tables[0]
    lines = []
    for row in rows:
        metric = row[0].split(" ")[0]
        if len(row) > 1 and metric in HEADLINES:
            cells = [split_interval(cell)[0] for cell in row[1:]]
            verdict = row[-1] if row[-1] in VERDICTS else ""
            lines.append(Headline(term(metric), cells[0], cells[1] if len(columns) > 2 else "", verdict))
    return lines


def html(report: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """A self-contained page: doubts, tables, plots (SVG by title) and inputs.

    Everything from the report is escaped; plots are embedded as images, which run no scripts.
    """
    content = summary(dict(report))
    return (
        environment()
        .get_template("report_file.html.jinja")
        .render(
            report=content,
            headlines=headlines(content),
            images={name: base64.b64encode(svg.encode()).decode() for name, svg in plots.items()},
            source=report,
            style=asset_text("dashboard.css"),
        )
    )
