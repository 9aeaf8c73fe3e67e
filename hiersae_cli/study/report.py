"""The results of a study as files: JSON, CSV, plots, and a Markdown report for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiersae_cli.formats.atomic import replacing_folder, write_json, write_text
from hiersae_cli.study.protocol import EDGE, HIERARCHY, TASKS

SCHEMA = "hiersae.study.analysis"
SCHEMA_VERSION = 1

_FILES = {"analysis.json", "answers.csv", "report.md"}
_TABLES = ("shares", "differences", "equations", "agreement", "seconds")
_PLOTS = ("shares", "differences")
_COLOURS = {"hierarchy": "#a33b1c", "flat": "#4c6a92", "shuffled": "#8a8378"}
_STYLE: Any = {"svg.hashsalt": "hiersae", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def is_ours(name: str) -> bool:
    """Whether a file of this name is written here."""
    return name in _FILES | {f"{table}.csv" for table in _TABLES} | {f"{plot}.svg" for plot in _PLOTS}


def write(folder: Path, data: Mapping[str, Any], answers: str) -> None:
    """Write all results and replace older ones; ``answers`` are the raw answers as CSV."""
    with replacing_folder(folder) as temporary:
        write_json(temporary / "analysis.json", data)
        write_text(temporary / "answers.csv", answers)
        for name in _TABLES:
            if data[name]:
                write_text(temporary / f"{name}.csv", _csv(data[name]))
        write_text(temporary / "report.md", markdown(data))
        for name, svg in plots(data).items():
            write_text(temporary / f"{name}.svg", svg)


def tables(data: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of each table, as texts: of people, then of each language model."""
    return _tables(data) + [
        (f"{title} · {name}", columns, rows)
        for name, figures in data["models"].items()
        for title, columns, rows in _tables(figures)
    ]


def _tables(data: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    shares = [
        [
            TASKS[row["task"]].title,
            row["condition"],
            row["outcome"],
            _interval(row["value"], row["low"], row["high"]),
            _ends(row["clustered_low"], row["clustered_high"]),
            "–" if row["chance"] is None else f"{row['chance']:.2f}",
            f"{row['n']:,}",
        ]
        for row in data["shares"]
    ]
    differences = [
        [
            TASKS[row["task"]].title,
            f"{row['first']} − {row['other']}",
            _interval(row["value"], row["low"], row["high"], "+.3f"),
            _p(row["p"]),
            _p(row["p_holm"]),
            f"{row['pairs']:,} of {row['raters']} raters, {row['sets']} sets",
        ]
        for row in data["differences"]
    ]
    equations = [
        [
            TASKS[row["task"]].title,
            f"{row['first']} : {row['other']}",
            row["clusters"],
            _interval(row["odds_ratio"], row["low"], row["high"], ".2f"),
            _p(row["p"]),
        ]
        for row in data["equations"]
    ]
    agreement = [
        [
            TASKS[row["task"]].title,
            row["condition"],
            _interval(row["alpha"], row["low"], row["high"]),
            str(row["items"]),
        ]
        for row in data["agreement"]
    ]
    seconds = [
        [
            TASKS[row["task"]].title,
            row["condition"],
            f"{row['median']:.1f} [{row['low']:.1f}, {row['high']:.1f}]",
            f"{row['n']:,}",
        ]
        for row in data["seconds"]
    ]
    with_people = [
        [
            TASKS[row["task"]].title,
            _interval(row["kappa"], row["kappa_low"], row["kappa_high"]),
            _interval(row["ac1"], row["ac1_low"], row["ac1_high"]),
            f"{row['same']:.0%}",
            "–" if row["people"] is None else f"{row['people']:.3f}",
            f"{row['items']:,}",
        ]
        for row in data.get("with_people", ())
    ]
    columns = ["task", "Cohen's κ", "Gwet's AC1", "same answer", "AC1 of a person with the others", "items"]
    candidates: list[tuple[str, list[str], list[list[str]]]] = [
        ("Shares", ["task", "condition", "outcome", "share (Wilson)", "clustered", "chance", "answers"], shares),
        ("Paired differences", ["task", "comparison", "difference", "p", "p (Holm)", "pairs"], differences),
        ("Generalised estimating equations", ["task", "odds of", "clusters", "odds ratio", "p"], equations),
        ("Krippendorff's α", ["task", "condition", "α", "items"], agreement),
        ("Agreement with the commonest answer of people", columns, with_people),
        ("Seconds an answer, median and quartiles", ["task", "condition", "seconds", "answers"], seconds),
    ]
    return [(title, columns, rows) for title, columns, rows in candidates if rows]


def markdown(data: Mapping[str, Any]) -> str:
    """The report."""
    lines = ["# Human study", ""]
    if data["departures"]:
        lines += ["**Departs from the pre-registration:**", "", *(f"- {text}" for text in data["departures"]), ""]
    else:
        lines += ["As pre-registered.", ""]
    lines += [
        f"{data['raters']} raters gave {data['answers']:,} answers. {len(data['excluded'])} raters were excluded by "
        f"the registered rules, and {data['answers_too_fast']} single answers were too fast; "
        f"{data['answers_analysed']:,} answers are analysed.",
        "",
        *(f"- Excluded: rater {exclusion['rater']}, {exclusion['why']}" for exclusion in data["excluded"]),
        "",
    ]
    for title, columns, rows in tables(data):
        lines += [f"## {title}", "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]
        if title == "Shares":
            lines += ["![Shares by task and condition](shares.svg)", ""]
        if title == "Paired differences":
            lines += ["![Paired differences](differences.svg)", ""]
    lines += [
        "## Method",
        "",
        "Conditions were blinded and mixed. Items of a set are matched on firing rate. Texts are from held-out rows. "
        f"“{TASKS[EDGE].title}” counts “yes”; “unsure” is not affirmed. Shares have Wilson's interval, which takes "
        "answers as independent; the clustered interval and all differences are by a cluster bootstrap over raters and "
        "matched sets, with Student's t. α is of nominal values; its interval is a bootstrap over items. Language "
        "models are reported by themselves.",
        "",
    ]
    return "\n".join(lines)


def plots(data: Mapping[str, Any]) -> dict[str, str]:
    """SVG texts by name."""
    with matplotlib.rc_context(_STYLE):
        drawings = {"shares": _draw_shares, "differences": _draw_differences}
        return {name: _svg(draw, data[name]) for name, draw in drawings.items() if data[name]}


def _svg(draw: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    figure = Figure(figsize=(6.4, 1.0 + 0.32 * len(rows)), layout="constrained")
    draw(figure.add_subplot(), rows)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _draw_shares(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, row in enumerate(rows):
        if row["value"] is None:
            continue
        axes.plot([row["low"], row["high"]], [place, place], color=_COLOURS[row["condition"]], linewidth=2)
        axes.plot([row["value"]], [place], "o", color=_COLOURS[row["condition"]], markersize=5)
        if row["chance"] is not None:
            axes.plot([row["chance"]] * 2, [place - 0.4, place + 0.4], color="#8a8378", linewidth=1, linestyle=":")
    _label_rows(axes, [f"{TASKS[row['task']].title}, {row['condition']}" for row in rows])
    axes.set(xlim=(0, 1), xlabel="share, Wilson's interval; dotted: guessing")


def _draw_differences(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(rows):
        if row["value"] is None:
            continue
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=_COLOURS[HIERARCHY], linewidth=2)
        axes.plot([row["value"]], [place], "o", color=_COLOURS[HIERARCHY], markersize=5)
    _label_rows(axes, [f"{TASKS[row['task']].title}, {row['first']} − {row['other']}" for row in rows])
    axes.set(xlabel="difference of shares, clustered interval")


def _label_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _interval(value: float | None, low: float | None, high: float | None, form: str = ".3f") -> str:
    return "–" if value is None else f"{value:{form}} {_ends(low, high, form)}".rstrip(" –")


def _ends(low: float | None, high: float | None, form: str = ".3f") -> str:
    return "–" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def _p(p: float | None) -> str:
    return "–" if p is None else "<.001" if p < 0.001 else f"{p:.3f}"[1:] if p < 0.9995 else "1"
