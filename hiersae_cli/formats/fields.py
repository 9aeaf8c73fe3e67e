"""Types of the fields of JSON, checked when a file is opened.

A kind is

- ``str``, ``bool``, ``int`` (of 64 bits), ``float`` (any finite number), ``None``, ``dict``, ``list``, or ``object``,
  which is anything;
- a ``range`` of whole numbers;
- a list of one kind: a list of such values;
- a dictionary of names and kinds: an object with these fields. Names that end in ``?`` may be missing, and fields that
  are not named may hold anything;
- ``{str: kind}``: an object whose values are all of one kind;
- a tuple of kinds: any of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError

Kind = Any

SIZE = range(1, 1 << 31)  # of anything that there is at least one of
COUNT = range(1 << 63)

# The fields of every file of ours. Older files, and those in the making, lack some of them.
COMMON: dict[str, Kind] = {
    "hiersae_version?": str,
    "created?": str,
    "config": dict,
    "inputs": {str: str},
    "versions?": {str: str},
}
HOST: dict[str, Kind] = {
    "name": str,
    "fingerprint": str,
    "tokenizer?": (str, None),
    "dtype?": (str, None),
    "device?": (str, None),
    "context?": (int, None),
    "bos?": (int, None),
}
RUN: dict[str, Kind] = {"name": str, "arch": str, "module": str, "widths?": [SIZE], "hard?": bool, "step?": COUNT}

_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    dict: "an object",
    list: "a list",
    None: "null",
}
_PLAIN: dict[Kind, frozenset[type]] = {
    str: frozenset({str}),
    float: frozenset({float, int}),
    bool: frozenset({bool}),
    None: frozenset({type(None)}),
}


def require_fields(path: str | Path, data: Any, kind: Kind, hint: str = "Make it again.") -> None:
    """Raise ``FileError`` with the first field of ``data`` that is missing or not of its kind."""
    if problem := _problem(data, kind, ""):
        raise FileError(f"{path}: damaged: {problem}", hint)


def _problem(value: Any, kind: Kind, name: str) -> str:
    """What is wrong with a value; empty if it is of a kind."""
    if isinstance(kind, tuple):
        problems = [_problem(value, option, name) for option in kind]
        return "" if "" in problems else _unlike(value, kind, name)
    if isinstance(kind, list):
        if not isinstance(value, list):
            return _unlike(value, kind, name)
        return _problem_of_members(value, kind[0], name)
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return _unlike(value, kind, name)
        if str in kind:
            if _all_plain(value.values(), kind[str]):
                return ""
            return next(filter(None, (_problem(value[key], kind[str], _inner(name, key)) for key in value)), "")
        return _problem_of_fields(value, kind, name)
    return "" if _fits(value, kind) else _unlike(value, kind, name)


def _problem_of_members(values: list[Any], kind: Kind, name: str) -> str:
    if _all_plain(values, kind):
        return ""
    return next(filter(None, (_problem(v, kind, f"{name}[{place}]") for place, v in enumerate(values))), "")


def _all_plain(values: Collection[Any], kind: Kind) -> bool:
    """Whether all of many values are texts, numbers and the like of a kind: quicker than one by one.

    False if that would take a closer look.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if any(isinstance(option, (list, dict)) for option in kinds):
        return False
    types = _plain_types(kinds)
    if not types.issuperset(map(type, values)):
        return False
    # A sum of finite numbers may be infinite; then they are looked at one by one.
    return float not in types or (str not in types and _is_finite(sum(map(abs, filter(None, values)))))


@lru_cache
def _plain_types(kinds: tuple[Kind, ...]) -> frozenset[type]:
    if any(option not in _PLAIN for option in kinds):
        return frozenset()
    return frozenset().union(*(_PLAIN[option] for option in kinds))


def _problem_of_fields(value: dict[str, Any], kinds: dict[str, Kind], name: str) -> str:
    for field, kind in kinds.items():
        key = field.removesuffix("?")
        if key not in value:
            if key == field:
                return f"{_inner(name, key)!r} is missing"
        elif problem := _problem(value[key], kind, _inner(name, key)):
            return problem
    return ""


def _fits(value: Any, kind: Kind) -> bool:
    if kind is object:
        return True
    if kind is None:
        return value is None
    if isinstance(kind, range):
        return type(value) is int and value in kind
    if kind is int:
        return type(value) is int and -(1 << 63) <= value < 1 << 63
    if kind is float:
        return type(value) in (int, float) and _is_finite(value)
    return type(value) is kind


def _is_finite(value: float) -> bool:
    return abs(value) <= sys.float_info.max  # False for not-a-number too; math.isfinite fails for large whole numbers


def _inner(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _unlike(value: Any, kind: Kind, name: str) -> str:
    shown = (
        "an object"
        if isinstance(value, dict)
        else "a list"
        if isinstance(value, list)
        else json.dumps(value, default=repr)[:40]
    )
    return f"{name!r} is {shown}, not {_in_words(kind)}" if name else f"it is {shown}, not {_in_words(kind)}"


def _in_words(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return " or ".join(map(_in_words, kind))
    if isinstance(kind, range):
        return f"a whole number from {kind.start} up"
    if isinstance(kind, (dict, list)):
        kind = type(kind)
    return _WORDS.get(kind, "another value")
