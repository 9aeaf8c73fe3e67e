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
from hiersae_cli.formats.text import counted
from hiersae_cli.study.protocol import EDGE, TASKS
from hiersae_cli.study.sentences import p_text

SCHEMA = "hiersae.study.analysis"
SCHEMA_VERSION = 1

_FILES = {"analysis.json", "answers.csv", "report.md"}
_TABLES = ("shares", "differences", "equations", "agreement", "seconds")
_PLOTS = ("shares", "differences")
_COLOURS = ("#a33b1c", "#4c6a92", "#8a8378", "#5f7d3a", "#7a4f86", "#b98a1e")  # of the conditions, in their order
_GREY = "#8a8378"
_STYLE: Any = {"svg.hashsalt": "hiersae", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


_MARK = "SIMULATED"  # in every name, title and table of a rehearsal


def is_ours(name: str) -> bool:
    """Whether a file of this name is written here."""
    return name.removeprefix(f"{_MARK}-") in _FILES | {f"{table}.csv" for table in _TABLES} | {
        f"{plot}.svg" for plot in _PLOTS
    }


def write(folder: Path, data: Mapping[str, Any], answers: str) -> None:
    """Write all results and replace older ones; ``answers`` are the single answers as CSV.

    Results of simulated raters say so in the name of every file, in titles and tables.
    """
    with replacing_folder(folder) as temporary:
        write_json(temporary / file_name(data, "analysis.json"), data)
        write_text(temporary / file_name(data, "answers.csv"), answers)
        for name in _TABLES:
            if data[name]:
                write_text(temporary / file_name(data, f"{name}.csv"), _csv(data[name], data["simulated"]))
        write_text(temporary / file_name(data, "report.md"), markdown(data))
        for name, svg in plots(data).items():
            write_text(temporary / file_name(data, f"{name}.svg"), svg)


def file_name(data: Mapping[str, Any], name: str) -> str:
    """The name of a file of the results."""
    return f"{_MARK}-{name}" if data["simulated"] else name


def tables(data: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of each table, as texts: of people, then of each language model."""
    marked = f"{_MARK} · " if data["simulated"] else ""
    return [(f"{marked}{title}", columns, rows) for title, columns, rows in _tables(data)] + [
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
            p_text(row["p"]),
            p_text(row["p_holm"]),
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
            p_text(row["p"]),
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
    candidates: list[tuple[str, list[str], list[list[str]]]] = [
        ("Shares", ["task", "condition", "outcome", "share (Wilson)", "clustered", "chance", "answers"], shares),
        ("Paired differences", ["task", "comparison", "difference", "p", "p (Holm)", "pairs"], differences),
        ("Generalised estimating equations", ["task", "odds of", "clusters", "odds ratio", "p"], equations),
        ("Krippendorff's α", ["task", "condition", "α", "items"], agreement),
        ("Seconds an answer, median and quartiles", ["task", "condition", "seconds", "answers"], seconds),
    ]
    return [(title, columns, rows) for title, columns, rows in candidates if rows]


def markdown(data: Mapping[str, Any]) -> str:
    """The report."""
    simulated = data["simulated"]
    lines = [f"# {_MARK} answers: the rehearsal of a human study" if simulated else "# Human study", ""]
    if simulated:
        lines += ["**No person gave any of these answers.** They rehearse the analysis and say nothing else.", ""]
    lines += [f"- {sentence}" for sentence in data["sentences"]] or ["No answers are left to compare."]
    if data["departures"]:
        lines += ["", "**Departs from the pre-registration:**", "", *(f"- {text}" for text in data["departures"])]
    else:
        lines += ["", "As pre-registered."]
    lines += ["", account(data), "", *(f"- Excluded: {text}" for text in excluded(data)), ""]
    marked = f"{_MARK} · " if simulated else ""
    for title, columns, rows in tables(data):
        lines += [f"## {title}", "", _row(columns), _row(["---"] * len(columns)), *map(_row, rows), ""]
        plot = {f"{marked}Shares": "shares", f"{marked}Paired differences": "differences"}.get(title)
        if plot:
            lines += [f"![{title}]({file_name(data, f'{plot}.svg')})", ""]
    lines += [
        "## Method",
        "",
        f"Conditions were blinded and mixed. {data['materials']} "
        f"“{TASKS[EDGE].title}” counts “yes”; “unsure” is not affirmed. Shares have Wilson's interval, which takes "
        "answers as independent; the clustered interval and all differences are by a cluster bootstrap over raters and "
        "matched sets, with Student's t. α is of nominal values; its interval is a bootstrap over items. Language "
        "models are reported by themselves. "
        f"{file_name(data, 'answers.csv')} has all answers and holds nothing that tells who a rater is, except what "
        "raters wrote as labels.",
        "",
    ]
    return "\n".join(lines)


def account(data: Mapping[str, Any]) -> str:
    """How many raters and answers there are, and how many are left."""
    raters = counted(data["raters"], "simulated rater" if data["simulated"] else "rater")
    out, fast = len(data["excluded"]), data["answers_too_fast"]
    return (
        f"{raters} gave {counted(data['answers'], 'answer')}. {counted(out, 'rater')} {'was' if out == 1 else 'were'} "
        f"excluded by the registered rules, and {counted(fast, 'single answer')} {'was' if fast == 1 else 'were'} too "
        f"fast; {counted(data['answers_analysed'], 'answer')} {'is' if data['answers_analysed'] == 1 else 'are'} "
        "analysed."
    )


def excluded(data: Mapping[str, Any]) -> list[str]:
    """Each excluded rater and the reason, such as ``rater 3, passed 0 of 4 attention checks``."""
    return [f"rater {exclusion['rater']}, {exclusion['why']}" for exclusion in data["excluded"]]


def plots(data: Mapping[str, Any]) -> dict[str, str]:
    """SVG texts by name."""
    with matplotlib.rc_context(_STYLE):
        drawings = {"shares": _draw_shares, "differences": _draw_differences}
        title = f"{_MARK} answers" if data["simulated"] else ""
        return {name: _svg(draw, data[name], title) for name, draw in drawings.items() if data[name]}


def _svg(draw: Any, rows: Sequence[Mapping[str, Any]], title: str) -> str:
    figure = Figure(figsize=(6.4, 1.0 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, rows)
    if title:
        axes.set_title(title, color="#a33b1c", fontweight="bold")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _draw_shares(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    for place, row in enumerate(rows):
        if row["value"] is None:
            continue
        colour = _COLOURS[conditions.index(row["condition"]) % len(_COLOURS)]
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axes.plot([row["value"]], [place], "o", color=colour, markersize=5)
        if row["chance"] is not None:
            axes.plot([row["chance"]] * 2, [place - 0.4, place + 0.4], color=_GREY, linewidth=1, linestyle=":")
    _label_rows(axes, [f"{TASKS[row['task']].title}, {row['condition']}" for row in rows])
    axes.set(xlim=(0, 1), xlabel="share, Wilson's interval; dotted: guessing")


def _draw_differences(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(rows):
        if row["value"] is None:
            continue
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=_COLOURS[0], linewidth=2)
        axes.plot([row["value"]], [place], "o", color=_COLOURS[0], markersize=5)
    _label_rows(axes, [f"{TASKS[row['task']].title}, {row['first']} − {row['other']}" for row in rows])
    axes.set(xlabel="difference of shares, clustered interval")


def _label_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _csv(rows: Sequence[Mapping[str, Any]], simulated: bool) -> str:
    mark = {"answers": _MARK} if simulated else {}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*mark, *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**mark, **row} for row in rows)
    return text.getvalue()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _interval(value: float | None, low: float | None, high: float | None, form: str = ".3f") -> str:
    return "–" if value is None else f"{value:{form}} {_ends(low, high, form)}".rstrip(" –")


def _ends(low: float | None, high: float | None, form: str = ".3f") -> str:
    return "–" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"
