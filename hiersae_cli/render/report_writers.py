"""A report as Markdown, and its edges as CSV: for people and spreadsheets, never read back."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hiersae_cli.render.report_tables import Table, doubts, lines, tables, title


def markdown(report: Mapping[str, Any]) -> str:
    """Doubts, then the same tables as in the terminal."""
    parts = [f"# {_plain(title(report))}", *(f"> **Warning.** {_plain(doubt)}" for doubt in doubts(report))]
    for table in tables(report):
        parts += [f"## {_plain(table.title)}", _markdown_table(table)]
    parts += [_plain(line) for line in lines(report)]
    parts.append(f"hiersae {report['hiersae_version']}, {report['created']}")
    return "\n\n".join(parts) + "\n"


def edges_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """A header and a row for each edge; undefined values are empty."""
    text = io.StringIO()
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n", restval="")
            writer.writeheader()
        writer.writerow({name: _number(value) for name, value in row.items()})
    return text.getvalue()


def _markdown_table(table: Table) -> str:
    rows = [table.columns, ["---", *(["---:"] * (len(table.columns) - 1))]]
    for row in table.rows:
        heading = len(row) == 1
        rows.append([f"**{row[0]}**", *([""] * (len(table.columns) - 1))] if heading else row)
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows)


def _plain(text: str) -> str:
    """Text without the characters that Markdown reads as a table's border, a tag or a line end."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return str(value)
