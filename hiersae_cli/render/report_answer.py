"""A report in about a dozen lines of at most 72 characters: the figures that show whether a run is good."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from hiersae_cli.metrics.catalogue import BY_NAME, CHOW_LIU, SHARE, SHUFFLED, SOFT, TREE, metric_of
from hiersae_cli.metrics.spectrum import rank_in_words
from hiersae_cli.render.report_tables import Figure, compared, sample_in_words

WIDTH = 72
_ROWS = (
    ("reconstruction", "fvu"),
    ("faithfulness", "ce_recovered"),
    ("tree", "p_parent_given_child"),
    ("", "nested_firings"),
    ("specificity", "lift"),
    ("price", "bits_per_token"),
    ("", "bits_per_token_tree"),
)
_TRAINED_FOR = ("p_parent_given_child", "bits_per_token_tree")  # of a learned tree, whose gate decides them
_MARKS = {"better": "+", "worse": "-", "no evidence": "="}
_MOST_BASELINES = 3
_MOST_LINES = 13
_NAME = 9  # most characters of a name at the head of a column


def answer(report: Mapping[str, Any]) -> list[str]:
    """The lines: what was compared, on what rows if there is room, a line per question, and what is not shown."""
    first, baselines = compared(report)
    others = baselines[:_MOST_BASELINES]
    lines = textwrap.wrap(_heading(report, first, others), WIDTH, subsequent_indent="  ")
    heading, activations = len(lines), _activations(report, first)
    rows = [row for row in _ROWS if _figure(report, first, row[1])]
    if len(others) > 1:
        lines += _several(report, first, others, rows)
    elif others:
        lines += _pair(report, first, others[0], rows)
    else:
        lines += _single(report, first, rows)
    lines += textwrap.wrap(" ".join(_notes(report, first, baselines, rows)), WIDTH)
    if len(lines) + len(activations) <= _MOST_LINES:
        lines[heading:heading] = activations
    return lines


def _pair(report: Mapping[str, Any], first: str, other: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    heads = (first, other) if max(len(first), len(other)) <= _NAME else ("this run", "baseline")
    yield f"{'':39} {heads[0]:>{_NAME}} {heads[1]:>{_NAME}}"
    for part, metric in rows:
        values = [_value(metric, _figure(report, name, metric)) for name in (first, other)]
        verdict = _verdict(report, other, metric)
        verdict = verdict if verdict in _MARKS else ""  # a note below says why there is none
        yield f"{_row_head(report, first, part, metric)} {values[0]:>{_NAME}} {values[1]:>{_NAME}}  {verdict}".rstrip()


def _several(report: Mapping[str, Any], first: str, others: list[str], rows: list[tuple[str, str]]) -> Iterator[str]:
    short = all(len(name) <= _NAME for name in (first, *others))
    heads = [first, *others] if short else ["this run", *(f"({number})" for number in range(1, len(others) + 1))]
    yield f"{'':25}" + "".join(f" {head:>{_NAME}}  " for head in heads).rstrip()
    for _, metric in rows:
        cells = [(_value(metric, _figure(report, first, metric)), "")]
        for name in others:
            mark = _MARKS.get(_verdict(report, name, metric), "")
            cells.append((_value(metric, _figure(report, name, metric)), mark))
        label = _row_head(report, first, "", metric).strip()
        yield (f"{label:25}" + "".join(f" {value:>{_NAME}} {mark:1}" for value, mark in cells)).rstrip()


def _single(report: Mapping[str, Any], first: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    for part, metric in rows:
        figure = _figure(report, first, metric)
        ends = [] if figure is None or figure["low"] is None else [figure["low"], figure["high"]]
        interval = f"  [{', '.join(_number(metric, end) for end in ends)}]" if ends else ""
        yield f"{_row_head(report, first, part, metric)} {_value(metric, figure):>{_NAME}}{interval}"


def _heading(report: Mapping[str, Any], first: str, others: list[str]) -> str:
    numbered = len(others) > 1 and any(len(name) > _NAME for name in (first, *others))
    names = [
        f"{f'({number}) ' if numbered else ''}{name}{' (not matched)' if report['mismatches'][name] else ''}"
        for number, name in enumerate(others, 1)
    ]
    against = f" against {', '.join(names)}" if others else ""
    counts = [len(report["groups"][name]["subjects"]) for name in (first, *others)]
    seeds = f"{counts[0]} seed{'s' * (counts[0] > 1)}" + (" each" if others else "")
    if len(set(counts)) > 1:
        seeds = f"{', '.join(map(str, counts))} seeds"
    return f"{first}{against}: {sample_in_words(report)}, {seeds}"


def _activations(report: Mapping[str, Any], first: str) -> list[str]:
    """How many dimensions the rows fill, and what the principal components leave unexplained."""
    spectrum, subject = report.get("spectrum"), report["subjects"][report["groups"][first]["subjects"][0]]
    if not spectrum:
        return []
    words = f"rows: {rank_in_words(spectrum)}; FVU of PCA at this L0 {_number('fvu', subject['pca_fvu'])}"
    return textwrap.wrap(words, WIDTH, subsequent_indent="  ")


def _notes(report: Mapping[str, Any], first: str, baselines: list[str], rows: list[tuple[str, str]]) -> Iterator[str]:
    if any(_starred(report, first, metric) for _, metric in rows):
        yield "* What the run is trained for."
    figures = report["groups"][first]["figures"]
    if "stability_cosine" in figures:
        cosine, chance = (f"{figures[f'stability_cosine{ending}']['value']:.2f}" for ending in ("", "_chance"))
        live = _value("stability_live", figures["stability_live"])
        yield f"Between seeds: best cosine {cosine}, {chance} by chance; {live} of live latents recur."
    verdicts = {_verdict(report, name, metric) for name in baselines for _, metric in rows} - {"", *_MARKS}
    if verdicts:
        yield f"No verdicts: {', '.join(sorted(verdicts))}."
    elif len(baselines) > 1:
        yield "+ The run is better, - worse, = no evidence."
    elif not baselines:
        yield "Nothing to compare with: add --baseline RUN."
    missing = [] if report["sample"]["loss_tokens"] else ["loss (--model)"]
    missing += [] if "tasks" in report else ["tasks (--tasks all)"]
    if missing:
        yield f"Not measured: {', '.join(missing)}."
    more = sum(metric in BY_NAME or not metric.endswith((CHOW_LIU, SHUFFLED)) for metric in figures) - len(rows)
    left_out = [f"{more} more figures", *baselines[_MOST_BASELINES:]]
    left_out += ["other trees"] if report["control_trees"].get(first) else []
    controls = [name for name in report["groups"] if name not in (first, *baselines)]
    left_out += [f"{len(controls)} controls"] if controls else []
    yield f"Not shown: {', '.join(left_out)}."


def _row_head(report: Mapping[str, Any], first: str, part: str, metric: str) -> str:
    return f"{part:14} {metric_of(metric).label + '*' * _starred(report, first, metric):24}"


def _starred(report: Mapping[str, Any], first: str, metric: str) -> bool:
    learned = report["subjects"][report["groups"][first]["subjects"][0]]["tree"] == "learned"
    return learned and metric in _TRAINED_FOR


def _figure(report: Mapping[str, Any], name: str, metric: str) -> Figure:
    """A group's figure; for edges of a hardened tree, on soft firing: hard firing would follow from the tree."""
    figures = report["groups"][name]["figures"]
    soft = figures.get(f"{metric}{SOFT}") if metric_of(metric).section == TREE else None
    figure: Figure = soft or figures.get(metric)
    return figure


def _verdict(report: Mapping[str, Any], other: str, metric: str) -> str:
    paired = report["paired"][other]
    return str((paired.get(metric) or paired.get(f"{metric}{SOFT}") or {}).get("verdict", ""))


def _value(metric: str, figure: Figure) -> str:
    return "-" if figure is None or figure["value"] is None else _number(metric, figure["value"])


def _number(metric: str, value: float) -> str:
    """A value with three digits; shares in per cent."""
    if metric_of(metric).range == SHARE or metric == "ce_recovered":
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
