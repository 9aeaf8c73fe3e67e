"""Items that another tool made, of any dictionaries: the file of ``hiersae study new --items``, checked.

Its format is in ``docs/file-formats.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json
from hiersae_cli.formats.fields import COUNT, Kind, require_fields
from hiersae_cli.formats.marked_text import STEPS, step
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.study import Excerpt
from hiersae_cli.study.draw import Draft
from hiersae_cli.study.protocol import CHILD, EDGE, EXAMPLE, LABEL, LONGEST_LABEL, MATCH, MOST_OPTIONS

SCHEMA = "hiersae.items"
SCHEMA_VERSION = 1

_TASKS = (EXAMPLE, CHILD, EDGE, LABEL, MATCH)
_SHOWN = {EDGE: 2, LABEL: 1}  # groups above the choice
_LONGEST_NAME, _LONGEST_TEXT, _MOST_CONDITIONS = 40, 2000, 6  # characters of a name and of a text
_HINT = "The format is in docs/file-formats.md, 'Items of other tools'."
_EXCERPTS: Kind = [[{"tokens": [str], "activations?": [float], "steps?": [range(STEPS + 1)]}]]
_FILE: Kind = {
    "conditions": [str],
    "items": [
        {
            "task": str,
            "condition": str,
            "set": COUNT,
            "latents?": [str],
            "rate?": float,
            "shown?": _EXCERPTS,
            "options?": _EXCERPTS,
            "key?": COUNT,
            "words?": str,
        }
    ],
}


def read_items(path: str | Path, seed: int) -> tuple[list[Draft], list[str]]:
    """The items of a file, the options of each in random order, sets numbered from 0 within each task; the conditions.

    Raises ``FileError`` that names the first item that cannot be asked, or cannot be compared.
    """
    content = read_json(path)
    check_schema(path, content, SCHEMA, SCHEMA_VERSION)
    require_fields(path, content, _FILE, _HINT)
    conditions, items = content["conditions"], content["items"]
    if not 1 <= len(conditions) <= _MOST_CONDITIONS or len(set(conditions)) < len(conditions):
        raise _wrong(path, f"'conditions' must be 1 to {_MOST_CONDITIONS} different names")
    for name in conditions:
        if not (0 < len(name) <= _LONGEST_NAME and name.isprintable() and name == name.strip()):
            raise _wrong(path, f"the condition {name!r} is not a name of 1 to {_LONGEST_NAME} printable characters")
    if not items:
        raise _wrong(path, "there are no items")
    for number, item in enumerate(items):
        if problem := _problem(item, conditions):
            raise _wrong(path, f"items[{number}], {ascii(item['task'])[1:-1]}: {problem}")
    if problem := _problem_of_sets(items, conditions):
        raise _wrong(path, problem)
    random = np.random.default_rng((seed, 11))
    place_of = {task: sorted({item["set"] for item in items if item["task"] == task}) for task in _TASKS}
    drafts = [_draft(item, place_of[item["task"]].index(item["set"]), random) for item in items]
    return drafts, conditions


def _draft(item: Mapping[str, Any], place: int, random: np.random.Generator) -> Draft:
    options, key = _stepped(item, "options"), item.get("key")
    if options:
        order = random.permutation(len(options)).tolist()
        options, key = [options[number] for number in order], order.index(key)
    return {
        "task": item["task"],
        "condition": item["condition"],
        "set": place,
        "latents": item.get("latents", []),
        "rate": item.get("rate", 0.0),
        "decile": 0,
        "shown": _stepped(item, "shown"),
        "options": options,
        "key": key,
        "words": item.get("words", ""),
    }


def _stepped(item: Mapping[str, Any], part: str) -> list[list[Excerpt]]:
    """Groups of excerpts with steps of the ramp, which is that of a group; of an example intruder, of all texts."""
    groups = item.get(part, [])
    largest = [max((max(excerpt.get("activations", [0])) for excerpt in group), default=0) for group in groups]
    if item["task"] == EXAMPLE:
        largest = [max(largest, default=0)] * len(groups)
    return [
        [
            {
                "tokens": excerpt["tokens"],
                "steps": excerpt.get("steps") or [step(value, most) for value in excerpt["activations"]],
            }
            for excerpt in group
        ]
        for group, most in zip(groups, largest, strict=True)
    ]


def _problem(item: Mapping[str, Any], conditions: list[str]) -> str:
    """What is wrong with a single item; "" if nothing is."""
    task, shown, options = item["task"], item.get("shown", []), item.get("options", [])
    if task not in _TASKS:
        return f"the task is not one of {', '.join(_TASKS)}"
    if item["condition"] not in conditions:
        return f"the condition {item['condition']!r} is not in 'conditions'"
    if len(shown) != _SHOWN.get(task, 0):
        return f"'shown' has {len(shown)} groups, not {_SHOWN.get(task, 0)}"
    if task in _SHOWN and (options or "key" in item):
        return "it has 'options' or a 'key', but nothing to choose from"
    if task not in _SHOWN and not 2 <= len(options) <= MOST_OPTIONS:
        return f"'options' has {len(options)} groups, not 2 to {MOST_OPTIONS}"
    if task not in _SHOWN and item.get("key", -1) not in range(len(options)):
        return f"'key' must be the number of the right option, 0 to {len(options) - 1}"
    if task == EXAMPLE and any(len(group) != 1 for group in options):
        return "each of the 'options' must have a single text"
    words = item.get("words", "")
    if words and (task != MATCH or not words.isprintable() or len(words) > LONGEST_LABEL or words != words.strip()):
        return f"'words' are for the task match, a line of at most {LONGEST_LABEL} printable characters"
    for part, groups in (("shown", shown), ("options", options)):
        for place, group in enumerate(groups):
            if not group:
                return f"{part}[{place}] has no texts"
            for number, excerpt in enumerate(group):
                if problem := _problem_of_excerpt(excerpt):
                    return f"{part}[{place}][{number}]: {problem}"
    return ""


def _problem_of_excerpt(excerpt: Mapping[str, Any]) -> str:
    if ("activations" in excerpt) == ("steps" in excerpt):
        return "give either 'activations' or 'steps'"
    name = "steps" if "steps" in excerpt else "activations"
    marks = excerpt[name]
    if len(marks) != len(excerpt["tokens"]):
        return f"{len(excerpt['tokens'])} tokens, but {len(marks)} {name}"
    if min(marks, default=0) < 0:
        return "an activation is negative"
    if not any(mark and token for mark, token in zip(marks, excerpt["tokens"], strict=True)):
        return "no token is marked"
    length = sum(map(len, excerpt["tokens"]))
    return f"{length:,} characters, more than {_LONGEST_TEXT:,}" if length > _LONGEST_TEXT else ""


def _problem_of_sets(items: list[dict[str, Any]], conditions: list[str]) -> str:
    """What keeps the conditions from being compared; "" if nothing does."""
    for task in _TASKS:
        of_task = [item for item in items if item["task"] == task]
        named = [name for name in conditions if any(item["condition"] == name for item in of_task)]
        if len({len(item.get("options", [])) for item in of_task}) > 1:
            return f"the items of the task {task} have different numbers of options, so guessing differs"
        for number in sorted({item["set"] for item in of_task}):
            present = sorted(item["condition"] for item in of_task if item["set"] == number)
            if present != sorted(named):
                return (
                    f"set {number} of the task {task} has items of {', '.join(present)}; it needs one of each of "
                    f"{', '.join(named)}"
                )
    labels, matches = (
        {(item["set"], item["condition"]): item.get("words", "") for item in items if item["task"] == task}
        for task in (LABEL, MATCH)
    )
    if labels and (set(labels) != set(matches) or any(matches.values())):
        return "every label needs a match without 'words' of the same set and condition, and every match a label"
    if not labels and not all(matches.values()):
        return "a match needs 'words', or a label of the same set and condition"
    return ""


def _wrong(path: str | Path, problem: str) -> FileError:
    return FileError(f"{path}: {problem}", _HINT)
