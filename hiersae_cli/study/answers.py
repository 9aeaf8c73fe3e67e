"""Answers as one table, each with what it answers: for the administrator, and for publication."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from hiersae_cli.formats.study import StudyFiles
from hiersae_cli.formats.text import cell
from hiersae_cli.study.protocol import LABEL, correct
from hiersae_cli.study.store import Answer


def rows(study: StudyFiles, answers: Sequence[Answer], blind: bool = False) -> list[dict[str, Any]]:
    """A row for each answer: who, to which item of which task and condition, and whether it is right.

    Args:
        blind: leave out conditions, latents and right answers, for a study that is not over.
    """
    table = []
    for answer in answers:
        item = study.items[answer.item]
        outcome = None if item.task == LABEL else correct(item, answer.value)
        table.append(
            {
                "kind": answer.kind,
                "rater": answer.rater,
                "name": answer.name,
                "item": answer.item,
                "task": item.task,
                "set": item.set,
                **({} if blind else {"condition": item.condition, "latents": " ".join(item.latents)}),
                "value": answer.value,
                **({} if blind else {"key": item.key, "correct": None if outcome is None else int(outcome)}),
                "ms": answer.ms,
                "label_of": answer.label_of,
            }
        )
    return table


def to_publish(study: StudyFiles, answers: Sequence[Answer], counts: Sequence[bool]) -> str:
    """All answers as CSV without the times of day: they could tell who a rater was.

    Args:
        counts: whether each answer is analysed.
    """
    table = rows(study, answers)
    return _csv([row | {"included": int(whether)} for row, whether in zip(table, counts, strict=True)])


def to_watch(study: StudyFiles, answers: Sequence[Answer], blind: bool) -> str:
    """All answers as CSV with the time of each, as the administrator's page exports them."""
    table = rows(study, answers, blind)
    return _csv([row | {"time": answer.time} for row, answer in zip(table, answers, strict=True)])


def _csv(table: list[dict[str, Any]]) -> str:
    """No cell is one that a spreadsheet would take for a formula."""
    output = io.StringIO()
    if table:
        writer = csv.DictWriter(output, list(table[0]), lineterminator="\n")
        writer.writeheader()
        texts = ("name", "value", "latents", "condition")
        writer.writerows({**row, **{key: cell(row[key]) for key in texts if key in row}} for row in table)
    return output.getvalue()
