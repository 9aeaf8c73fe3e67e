"""The results of a study in sentences, one for each comparison of two conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiersae_cli.study.protocol import EDGE, TASKS


def sentences(data: Mapping[str, Any]) -> list[str]:
    """The comparisons of people, then those of each language model.

    Args:
        data: of ``analysis.analyse``.
    """
    of_people = [f"SIMULATED. {text}" if data["simulated"] else text for text in of_figures(data)]
    of_models = [f"{name}. {text}" for name, figures in data["models"].items() for text in of_figures(figures)]
    return of_people + of_models


def of_figures(figures: Mapping[str, Any]) -> list[str]:
    """The same for one group of raters.

    Such as ``Child intruder: hierarchy 81 %, flat 64 %, +17 points [7, 27], p = .011 (Holm .022).``

    Args:
        figures: of ``analysis.figures``.
    """
    share = {(row["task"], row["condition"]): row["value"] for row in figures["shares"]}
    texts = []
    for row in figures["differences"]:
        task = row["task"]
        pair = [f"{name} {_percent(share[task, name])}" for name in (row["first"], row["other"])]
        affirmed = ", “yes”" if task == EDGE else ""
        texts.append(f"{TASKS[task].title}{affirmed}: {', '.join(pair)}, {_difference(row)}.")
    return texts


def p_text(p: float | None) -> str:
    """A p-value as papers print it: ``.011``, ``<.001``."""
    return "–" if p is None else "<.001" if p < 0.001 else f"{p:.3f}"[1:] if p < 0.9995 else "1"


def _difference(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "nobody answered both conditions of a set"
    points = f"{_points(row['value'], '+')} points"
    if row["low"] is None:
        return f"{points}, too few raters or sets for an interval"
    interval = f"[{_points(row['low'])}, {_points(row['high'])}]"
    p, corrected = p_text(row["p"]), p_text(row["p_holm"])
    text = f"p {p[0]} {p[1:]}" if p.startswith("<") else f"p = {p}"
    return f"{points} {interval}, {text}" + ("" if p == corrected else f" (Holm {corrected})")


def _percent(share: float | None) -> str:
    return "no answers" if share is None else f"{100 * share:.0f} %"


def _points(difference: float, sign: str = "") -> str:
    """A difference of shares in points, without a decimal; a minus sign that is no hyphen."""
    text = f"{100 * difference:{sign}.0f}".replace("-", "−")
    return "0" if text in ("+0", "−0") else text
