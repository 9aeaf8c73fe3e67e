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
    """Whether a file is one of those written here."""
    return name in _FILES | {f"{one}.csv" for one in _TABLES} | {f"{one}.svg" for one in _PLOTS}


def write(folder: Path, data: Mapping[str, Any], answers: str) -> None:
    """Write all results in place of those that were there; ``answers`` are the raw ones as CSV."""
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
    """Title, columns and rows of each table of people's figures, as texts."""
    return _of(data) + [
        (f"{title} · {name}", columns, rows)
        for name, one in data["models"].items()
        for title, columns, rows in _of(one)
    ]


def _of(data: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    shares = [
        [
            TASKS[one["task"]].title,
            one["condition"],
            one["outcome"],
            _interval(one["value"], one["low"], one["high"]),
            _ends(one["clustered_low"], one["clustered_high"]),
            "–" if one["chance"] is None else f"{one['chance']:.2f}",
            f"{one['n']:,}",
        ]
        for one in data["shares"]
    ]
    differences = [
        [
            TASKS[one["task"]].title,
            f"{one['first']} − {one['other']}",
            _interval(one["value"], one["low"], one["high"], "+.3f"),
            _p(one["p"]),
            _p(one["p_holm"]),
            f"{one['pairs']:,} of {one['raters']} raters, {one['sets']} sets",
        ]
        for one in data["differences"]
    ]
    equations = [
        [
            TASKS[one["task"]].title,
            f"{one['first']} : {one['other']}",
            one["clusters"],
            _interval(one["odds_ratio"], one["low"], one["high"], ".2f"),
            _p(one["p"]),
        ]
        for one in data["equations"]
    ]
    agreement = [
        [
            TASKS[one["task"]].title,
            one["condition"],
            _interval(one["alpha"], one["low"], one["high"]),
            str(one["items"]),
        ]
        for one in data["agreement"]
    ]
    seconds = [
        [
            TASKS[one["task"]].title,
            one["condition"],
            f"{one['median']:.1f} [{one['low']:.1f}, {one['high']:.1f}]",
            f"{one['n']:,}",
        ]
        for one in data["seconds"]
    ]
    found: list[tuple[str, list[str], list[list[str]]]] = [
        ("Shares", ["task", "condition", "outcome", "share (Wilson)", "clustered", "chance", "answers"], shares),
        ("Paired differences", ["task", "comparison", "difference", "p", "p (Holm)", "pairs"], differences),
        ("Generalised estimating equations", ["task", "odds of", "clusters", "odds ratio", "p"], equations),
        ("Krippendorff's α", ["task", "condition", "α", "items"], agreement),
        ("Seconds an answer, median and quartiles", ["task", "condition", "seconds", "answers"], seconds),
    ]
    return [one for one in found if one[2]]


def markdown(data: Mapping[str, Any]) -> str:
    """The report."""
    lines = ["# Human study", ""]
    if data["departures"]:
        lines += ["**Departs from the pre-registration:**", "", *(f"- {one}" for one in data["departures"]), ""]
    else:
        lines += ["As pre-registered.", ""]
    lines += [
        f"{data['raters']} raters gave {data['answers']:,} answers. {len(data['excluded'])} raters were excluded by "
        f"the registered rules, and {data['answers_too_fast']} single answers were too fast; "
        f"{data['answers_analysed']:,} answers are analysed.",
        "",
        *(f"- Excluded: rater {one['rater']}, {one['why']}" for one in data["excluded"]),
        "",
    ]
    found = {title: (columns, rows) for title, columns, rows in tables(data)}
    for title, (columns, rows) in found.items():
        lines += [f"## {title}", "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]
        if title == "Shares":
            lines += ["![Shares by task and condition](shares.svg)", ""]
        if title == "Paired differences":
            lines += ["![Paired differences](differences.svg)", ""]
    lines += [
        "## Method",
        "",
        "Conditions were blinded and mixed; items of a set are matched on firing rate, and texts are of held-out rows. "
        f"“{TASKS[EDGE].title}” counts “yes”; “unsure” is not affirmed. Shares have Wilson's interval, which takes "
        "answers as independent; the clustered one and all differences are by a cluster bootstrap over raters and "
        "matched sets, with Student's t. α is of nominal values; its interval is a bootstrap over items. Language "
        "models are reported by themselves.",
        "",
    ]
    return "\n".join(lines)


def plots(data: Mapping[str, Any]) -> dict[str, str]:
    """SVG texts by name."""
    with matplotlib.rc_context(_STYLE):
        found = {}
        if data["shares"]:
            found["shares"] = _drawn(_shares, data["shares"])
        if data["differences"]:
            found["differences"] = _drawn(_differences, data["differences"])
        return found


def _drawn(draw: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    figure = Figure(figsize=(6.4, 1.0 + 0.32 * len(rows)), layout="constrained")
    draw(figure.add_subplot(), rows)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _shares(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for place, one in enumerate(rows):
        if one["value"] is None:
            continue
        axes.plot([one["low"], one["high"]], [place, place], color=_COLOURS[one["condition"]], linewidth=2)
        axes.plot([one["value"]], [place], "o", color=_COLOURS[one["condition"]], markersize=5)
        if one["chance"] is not None:
            axes.plot([one["chance"]] * 2, [place - 0.4, place + 0.4], color="#8a8378", linewidth=1, linestyle=":")
    _names(axes, [f"{TASKS[one['task']].title}, {one['condition']}" for one in rows])
    axes.set(xlim=(0, 1), xlabel="share, Wilson's interval; dotted: guessing")


def _differences(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for place, one in enumerate(rows):
        if one["value"] is None:
            continue
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [place, place], color=_COLOURS[HIERARCHY], linewidth=2)
        axes.plot([one["value"]], [place], "o", color=_COLOURS[HIERARCHY], markersize=5)
    _names(axes, [f"{TASKS[one['task']].title}, {one['first']} − {one['other']}" for one in rows])
    axes.set(xlabel="difference of shares, clustered interval")


def _names(axes: Axes, names: list[str]) -> None:
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
