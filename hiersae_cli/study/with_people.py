"""How far a language model's answers agree with those of people, item by item.

Legend of shapes: V values of an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hiersae_cli.formats.numbers import finite_or_none
from hiersae_cli.formats.study import Item, StudyFiles
from hiersae_cli.metrics.two_raters import cohen_kappa, confusion, gwet_ac1, resampled_tables
from hiersae_cli.study.protocol import CHILD, EDGE, EDGE_ANSWERS, EXAMPLE
from hiersae_cli.study.store import Answer

_TASKS = (EXAMPLE, CHILD, EDGE)  # those in which everybody sees the same
_COEFFICIENTS = {"kappa": cohen_kappa, "ac1": gwet_ac1}


def agreement_with_people(
    study: StudyFiles, people: Sequence[Answer], model: Sequence[Answer], confidence: float, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Agreement of a model with the commonest answer of people, for each task, over all conditions.

    An item counts if the model and people have answered it and one answer of people is the commonest. Intervals are
    percentiles of a bootstrap over items. ``people`` of a row is the same AC1 for a person and the commonest answer of
    the others, averaged over people: how well a model can be expected to do.
    """
    rows = []
    for task in _TASKS:
        items = {item.id: item for item in study.items.values() if item.task == task}
        by_people = _by_item(people, items)
        pairs = [
            (answer.value, common)
            for answer in model
            if answer.item in items and (common := _commonest(by_people.get(answer.item, {})))
        ]
        if not pairs:
            continue
        count_VV = _table(pairs, items)
        row: dict[str, Any] = {"task": task, "items": len(pairs), "same": sum(a == b for a, b in pairs) / len(pairs)}
        tables_nVV = resampled_tables(count_VV, resamples, seed)
        for name, coefficient in _COEFFICIENTS.items():
            draws = coefficient(tables_nVV)
            draws = draws[np.isfinite(draws)]
            tail = (1 - confidence) / 2
            low, high = np.quantile(draws, (tail, 1 - tail)).tolist() if len(draws) else (None, None)
            value = finite_or_none(float(coefficient(count_VV[None])[0]))
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append({**row, "people": _among_people(by_people, items)})
    return rows


def _by_item(answers: Sequence[Answer], items: Mapping[str, Item]) -> dict[str, dict[int, str]]:
    """The answer of each rater, by item."""
    by_item: dict[str, dict[int, str]] = {}
    for answer in answers:
        if answer.item in items:
            by_item.setdefault(answer.item, {})[answer.rater] = answer.value
    return by_item


def _commonest(by_rater: Mapping[int, str], but: int | None = None) -> str:
    """The commonest answer, leaving out one rater; "" without answers, or if several are equally common."""
    common = Counter(value for rater, value in by_rater.items() if rater != but).most_common(2)
    if not common or (len(common) == 2 and common[0][1] == common[1][1]):
        return ""
    return common[0][0]


def _among_people(by_people: Mapping[str, Mapping[int, str]], items: Mapping[str, Item]) -> float | None:
    """The mean over people of the AC1 of a person and the commonest answer of the others; None with one person."""
    coefficients = []
    for rater in sorted({rater for by_rater in by_people.values() for rater in by_rater}):
        pairs = [
            (by_rater[rater], common)
            for by_rater in by_people.values()
            if rater in by_rater and (common := _commonest(by_rater, but=rater))
        ]
        if pairs:
            coefficients.append(float(gwet_ac1(_table(pairs, items)[None])[0]))
    return float(np.mean(coefficients)) if coefficients else None


def _table(pairs: Sequence[tuple[str, str]], items: Mapping[str, Item]) -> Any:
    """How often each pair of answers occurs, (V, V)."""
    item = next(iter(items.values()))
    values = list(EDGE_ANSWERS) if item.task == EDGE else [str(number) for number in range(len(item.options))]
    first, second = np.array([[values.index(value) for value in pair] for pair in pairs]).T
    return confusion(first, second, len(values))
