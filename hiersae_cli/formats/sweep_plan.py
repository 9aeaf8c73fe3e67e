"""The plan of ``hiersae sweep``: a grid or a list of runs, their seeds, and how they are measured.

Specified in ``docs/training.md``.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from hiersae_cli.config.architectures import ARCHITECTURES
from hiersae_cli.config.base import Config, has_type, typed
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.reading import read_utf8, reason

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PARTS = ("seeds", "train", "grid", "runs", "eval")
_NOT_TRAIN = ("out", "overwrite", "seed")
_NOT_EVAL = ("runs", "baseline", "out", "markdown", "html", "plots", "edges", "overwrite", "explain", "full")
_HINT = "The parts of a plan are in docs/training.md."
_L0, _SHARES = "l0", "shares"
_MOST_POINTS = 10_000  # of a grid


@dataclass(frozen=True)
class PlannedReport:
    """One comparison of a plan: the runs of one point of its grid.

    Attributes:
        name: of its files, without ending.
        groups: the run names of each group of seeds by its label; the first group is compared with the others.
        options: of ``hiersae eval``.
        in_table: whether its figures go into the table of the sweep: those of the first evaluation do.
    """

    name: str
    groups: dict[str, list[str]]
    options: dict[str, Any]
    in_table: bool


@dataclass(frozen=True)
class Plan:
    """What a sweep makes.

    Attributes:
        runs: the configuration of every run by its name, in the order in which they are trained.
        reports: what is measured.
    """

    runs: dict[str, TrainConfig]
    reports: list[PlannedReport]


def load(path: Path, out: Path) -> Plan:
    """The plan in a TOML file, with the runs in ``out``.

    Raises ``UsageError`` if there is no file, ``FileError`` if it plans nothing that can be done.
    """
    try:
        text = read_utf8(path)
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such plan", "Check the path.") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not a TOML file ({reason(error)})", "Correct it.") from None
    try:
        return _plan(document, out)
    except UsageError as error:
        raise FileError(f"{path}{_lines(text, error.message)}: {error.message}", error.hint or _HINT) from None


def _lines(text: str, message: str) -> str:
    """The line of a plan that a message is about, as ", line 3".

    A message has its option first, as a flag or a name, and then the value, if it says it. If several lines have the
    option, those count that have this value, or else all.
    """
    match = re.match(r"(?:\S+: (?=--))?(?:grid\.|--)?([\w-]+)[\s:]*([^:;]*)", message)
    if not match:
        return ""
    option, said = match[1].replace("-", "_"), set(re.findall(r"\w+", match[2]))
    lines = {}
    for number, line in enumerate(text.splitlines(), 1):
        written = re.match(rf"\s*(?:\[+\s*{option}\s*\]|{option}\s*=([^#]*))", line)
        if written:
            lines[number] = set(re.findall(r"\w+", written[1] or option)) <= said
    numbers = [str(number) for number, same in lines.items() if same] or [str(number) for number in lines]
    return f", line{'s' * (len(numbers) > 1)} {' and '.join(numbers)}" if numbers else ""


def _plan(document: dict[str, Any], out: Path) -> Plan:
    if unknown := sorted(set(document) - set(_PARTS)):
        raise UsageError(f"{unknown[0]} is not part of a plan", f"Parts: {', '.join(_PARTS)}.")
    shared, grid = _table(document, "train"), _table(document, "grid")
    entries, seeds = _entries(document.get("runs", [{}])), document.get("seeds", [0])
    if not has_type(seeds, list[int]) or not seeds or len(set(seeds)) < len(seeds):
        raise UsageError("seeds must be a list of different whole numbers")
    evaluations = document.get("eval", {})
    evaluations = evaluations if isinstance(evaluations, list) else [evaluations]
    plan = Plan({}, [])
    for point in _points("grid", grid):
        groups = {}
        for entry in entries:
            entry_name, options = entry.get("name", ""), {k: v for k, v in entry.items() if k not in ("name", "grid")}
            for own_point in _points("grid", _table(entry, "grid")):
                chosen = {**shared, **point, **options, **own_point}
                series = entry_name or str(chosen.get("arch", TrainConfig.arch))
                both = {**point, **own_point}
                group = ["-".join([series, *_labels(both), str(seed)]) for seed in seeds]
                for name, seed in zip(group, seeds, strict=True):
                    if name in plan.runs:
                        raise UsageError(f"two runs are called {name}", 'Give each of [[runs]] its own name = "…".')
                    plan.runs[name] = _training(name, chosen, seed, out)
                label = "-".join([series, *_labels({key: both[key] for key in both if key != _L0})])
                groups[label] = group
        point_name = "_".join(f"{key}-{_text(value)}" for key, value in point.items()) or "report"
        for number, options in enumerate(evaluations):
            plan.reports.append(_report(point_name, groups, plan.runs, options, in_table=number == 0))
    # Seeds before variants: when a sweep is stopped early, all variants have as many runs.
    order = sorted(plan.runs, key=lambda name: seeds.index(plan.runs[name].seed))
    return Plan({name: plan.runs[name] for name in order}, plan.reports)


def _entries(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise UsageError("runs must be a list of tables", "Write [[runs]] above the options of each.")
    for entry in value:
        if not isinstance(entry.get("name", ""), str) or not re.fullmatch(r"[\w.=+-]*", entry.get("name", "")):
            raise UsageError(f"name {entry['name']!r} is not a name for a folder", "Use letters, digits and dashes.")
    return value


def _table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name} must be a table", f"Write [{name}] above its options.")
    return table


def _points(name: str, grid: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of a grid."""
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{name}.{key} must be a list of values", "A single value belongs in [train].")
    if (count := prod(map(len, grid.values()))) > _MOST_POINTS:
        raise UsageError(f"{name} has {count:,} combinations, more than {_MOST_POINTS:,}", "List fewer values.")
    for combination in product(*grid.values()):
        yield dict(zip(grid, combination, strict=True))


def _labels(point: Mapping[str, Any]) -> list[str]:
    return [_text(value) if key == _L0 else f"{key}={_text(value)}" for key, value in point.items()]


def _text(value: Any) -> str:
    text = typed(tuple(value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.,=+-]", "_", text)


def _training(name: str, options: dict[str, Any], seed: int, out: Path) -> TrainConfig:
    options = {**options}
    l0, shares = options.pop(_L0, None), options.pop(_SHARES, None)
    values = {**_values("a run", TrainConfig, options, _NOT_TRAIN), "seed": seed}
    if l0 is not None:
        values["k"] = _split(l0, shares, values)
    try:
        config = TrainConfig(**values, out=str(out / "runs" / name))
        config.refuse_unused(options)
        config.check_command_line()
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", error.hint) from None
    return config


def _split(l0: Any, shares: Any, values: Mapping[str, Any]) -> tuple[float, ...]:
    """The L0 of each level: ``shares`` of the whole, or equal parts."""
    if not has_type(l0, float) or l0 <= 0:
        raise UsageError(f"{_L0} must be a number above 0, not {l0!r}")
    architecture = ARCHITECTURES.get(values.get("arch", TrainConfig.arch))
    if architecture is None or not architecture.levels:
        return (l0,)
    levels = len(values.get("widths") or architecture.default_sizes()[0])
    shares = shares or [1] * levels
    if not has_type(shares, list[float]) or len(shares) != levels or min(shares) <= 0:
        raise UsageError(f"{_SHARES} must be a list of {levels} numbers above 0, one for each level")
    parts = [l0 * share / sum(shares) for share in shares]
    return tuple(int(part) if part == int(part) else part for part in parts)


def _report(
    point: str, groups: dict[str, list[str]], runs: Mapping[str, TrainConfig], options: Any, in_table: bool
) -> PlannedReport:
    if not isinstance(options, dict):
        raise UsageError("eval must be a table", "Write [eval] above its options, or [[eval]] above those of each.")
    options = {**options}
    prefix = options.pop("name", "")
    name = f"{prefix}-{point}" if prefix else point
    first = runs[next(iter(groups.values()))[0]]
    options = {"acts": first.acts, **options}
    if not options["acts"]:
        raise UsageError("eval.acts: name the caches to measure on, because the runs are trained without one")
    values = _values("eval", EvalConfig, options, _NOT_EVAL)
    EvalConfig(**values, runs=["run"])
    return PlannedReport(name, groups, values, in_table)


def _values(part: str, config_class: type[Config], options: Mapping[str, Any], decided: tuple[str, ...]) -> Any:
    """The fields of a configuration: values of TOML, or texts as on the command line."""
    hints = get_type_hints(config_class)
    parsers = {option.name: option.metadata.get("parse") for option in dataclasses.fields(config_class)}
    values = {}
    for name, value in options.items():
        if name not in parsers or name in decided:
            known = sorted(set(parsers) - set(decided))
            meant = "".join(f"Did you mean {option}? " for option in get_close_matches(name, known, 1))
            raise UsageError(f"{name} is not an option of {part}", f"{meant}Options: {', '.join(known)}.")
        values[name] = _value(name, value, hints[name], parsers[name])
    return values


def _value(name: str, value: Any, hint: Any, parse: Any) -> Any:
    if isinstance(value, str) and hint is not str:
        try:
            if parse:
                return parse(value)
            if hint in (int, float):
                return hint(value)
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from None
        if hint == list[str]:
            return [value]
    if get_origin(hint) is tuple and not isinstance(value, list):
        value = [value]
    if not has_type(value, hint):
        raise UsageError(f"{name} cannot be {value!r}", "It has another type: see docs/commands.md.")
    return tuple(value) if isinstance(value, list) and hint != list[str] else value
