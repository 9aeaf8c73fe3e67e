"""Several reports in one table, and as frontiers of error against sparsity and price."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hiersae_cli.render.svg import STYLE, svg

# The columns: metric of the report, heading. Flat dictionaries have a post-hoc tree.
COLUMNS = {
    "fvu": "FVU ↓",
    "ce_recovered": "CE recovered ↑",
    "bits_per_token": "bits ↓",
    "bits_per_token_tree": "bits, tree ↓",
    "hierarchy_score": "hierarchy score ↑",
    "p_parent_given_child": "P(parent\\|child) ↑",
    "lift": "lift ↑",
    "sibling_overlap": "sibling overlap ↓",
    "nested_firings": "inside a parent",
    "dead": "dead ↓",
}
_CONTROL = "control"

Row = dict[str, Any]


def rows_of(report: dict[str, Any]) -> list[Row]:
    """A row for each group of a report but the controls: architecture, first run, sizes, seeds and the figures."""
    rows = []
    for group in report["groups"].values():
        subject = report["subjects"][group["subjects"][0]]
        if subject["arch"] != _CONTROL:
            sizes = {"latents": subject["latents"], "k": round(sum(subject["k"])), "seeds": len(group["subjects"])}
            rows.append({"arch": subject["arch"], "path": subject.get("path"), **sizes, **group["figures"]})
    return rows


def table(rows: list[Row], columns: dict[str, str]) -> str:
    """The rows in Markdown."""
    heads = ["", "latents", "L0", "seeds", *columns.values()]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        sizes = [row["arch"], f"{row['latents']:,}", str(row["k"]), str(row["seeds"])]
        lines.append([*sizes, *(_cell(row.get(metric)) for metric in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def frontiers(rows: list[Row]) -> str:
    """FVU against L0, and against bits per token under the tree, of each architecture, as SVG."""
    with matplotlib.rc_context(STYLE):
        plot = Figure(figsize=(8, 3.2), layout="constrained")
        panels = {"l0": "L0", "bits_per_token_tree": "bits per token under the tree"}
        for axes, (metric, label) in zip(plot.subplots(1, 2, sharey=True), panels.items(), strict=True):
            for arch in dict.fromkeys(row["arch"] for row in rows):
                points = sorted((row[metric]["value"], row["fvu"]["value"]) for row in rows if row["arch"] == arch)
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=arch)
            axes.set(xlabel=label, ylabel="FVU" if metric == "l0" else "")
        axes.legend(frameon=False)
        return svg(plot)


def _cell(figure: dict[str, Any] | None) -> str:
    """``.138 ± .002``; only the mean if there is no interval."""
    if figure is None or figure["value"] is None:
        return ""
    half = (figure["high"] - figure["low"]) / 2 if figure["low"] is not None and "of_seeds" in figure else None
    return _short(figure["value"]) + (f" ± {_short(half, figure['value'])}" if half is not None else "")


def _short(number: float, like: float | None = None) -> str:
    """Three decimals below 10, one above; as many for a half width as for its mean."""
    return f"{number:.1f}" if abs(like if like is not None else number) >= 10 else f"{number:.3f}".removeprefix("0")
