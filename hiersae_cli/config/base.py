"""What all configurations share: declaring a flag, parsing its text, checking its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from types import MappingProxyType, UnionType
from typing import Any, ClassVar, get_args, get_origin

from hiersae_cli.errors import UsageError

HUB = "hf://"  # begins the name of something on the Hugging Face hub
_MULTIPLIERS = {"k": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}


def option(
    default: Any = MISSING,
    *names: str,
    help: str,
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    choices: Collection[str] = (),
    recorded: bool = True,
    group: str = "",
    only_for: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> Any:
    """Declare a field that the command line offers as an option.

    ``names`` replaces the name derived from the field. ``parse`` turns the flag's text into the value. ``choices`` are
    the allowed values. ``recorded=False`` keeps a flag that cannot change the result (an output path, a display
    setting) out of the configuration that files record. ``group`` is the flag's heading in ``--help``; options without
    one come first. ``only_for`` gives the values of other fields with which the flag has an effect, such as
    ``{"arch": ["hier"]}``.
    """
    metadata = {
        "kind": "option",
        "names": names,
        "help": help,
        "parse": parse,
        "metavar": metavar,
        "choices": choices,  # not copied: a registry may grow
        "recorded": recorded,
        "group": group,
        "only_for": {name: tuple(values) for name, values in only_for.items()},
    }
    return dataclasses.field(default=default, metadata=metadata)


def argument(default: Any = MISSING, *, help: str, metavar: str | None = None, recorded: bool = True) -> Any:
    """Declare a field that the command line takes by position (a list field takes any number)."""
    metadata = {"kind": "argument", "help": help, "metavar": metavar, "recorded": recorded}
    if default is MISSING or not isinstance(default, list):
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)


def options(*names: str, help: str, metavar: str | None = None, recorded: bool = True, group: str = "") -> Any:
    """Declare a list field whose option may be given several times."""
    metadata = {
        "kind": "options",
        "names": names,
        "help": help,
        "metavar": metavar,
        "recorded": recorded,
        "group": group,
    }
    return dataclasses.field(default_factory=list, metadata=metadata)


class OnHub(str):
    """The local copy of something on the hub; ``name`` is what the user wrote, which files record."""

    name: str

    def __new__(cls, path: str, name: str) -> OnHub:
        text = super().__new__(cls, path)
        text.name = name
        return text


@dataclass(kw_only=True)
class Config:
    """Base of the step configurations. ``__post_init__`` checks; cross-field checks go in ``check``."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            allowed = field.metadata.get("choices")
            value = getattr(self, field.name)
            if allowed and value not in allowed:
                # "" means that the flag was not given.
                raise UsageError(f"{flag_name(field)} {value!r} is not one of: {', '.join(filter(None, allowed))}")
        self.check()

    GROUPS: ClassVar[tuple[str, ...]] = ()  # the order in which help shows the groups of options; others follow

    def check(self) -> None:
        """Raise ``UsageError`` if values do not fit together."""

    def check_command_line(self) -> None:
        """Raise ``UsageError`` if something is missing that only a command needs, not a configuration read back."""

    def recorded(self) -> dict[str, Any]:
        """The fields that can change the result, as plain JSON values. Files record them and resuming compares them."""
        return {
            field.name: _as_json(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.metadata.get("recorded", True)
        }

    @classmethod
    def flags_of_inputs(cls, config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
        """The fields that a file records as its inputs, not in its configuration."""
        return {}

    def names_hub(self) -> bool:
        """Whether a field names something on the hub, such as ``hf://OWNER/NAME``."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        names = (name for value in values for name in (value if isinstance(value, list) else [value]))
        return any(isinstance(name, str) and name.startswith(HUB) for name in names)

    def refuse_unused(self, names: Iterable[str]) -> None:
        """Raise ``UsageError`` if one of the fields ``names`` has no effect, such as a flag of another architecture.

        Only for flags that a person gave: a configuration that was read back records every field.
        """
        for field, other_name, values in self._unused():
            if field.name in names:
                other = flag_name(next(f for f in dataclasses.fields(self) if f.name == other_name))
                raise UsageError(
                    f"{flag_name(field)}: is for {other} {' or '.join(values)}, not {getattr(self, other_name)}",
                    "Leave it out: it would have no effect.",
                )

    def unused(self) -> set[str]:
        """The names of the fields that have no effect, such as the flags of other architectures."""
        return {field.name for field, _, _ in self._unused()}

    def _unused(self) -> Iterator[tuple[dataclasses.Field[Any], str, tuple[str, ...]]]:
        """Each field without effect, with the field that decides it and the values with which it would have one."""
        for field in dataclasses.fields(self):
            for other_name, values in field.metadata.get("only_for", {}).items():
                if getattr(self, other_name) not in values:
                    yield field, other_name, values

    def require(self, condition: bool, field_name: str, message: str, hint: str = "") -> None:
        """Raise a ``UsageError`` that names the flag of ``field_name`` unless ``condition`` holds."""
        if not condition:
            field = next(f for f in dataclasses.fields(self) if f.name == field_name)
            flag = f"{flag_name(field)} {_joined(getattr(self, field_name))}".rstrip()
            raise UsageError(f"{flag}: {message}", hint)

    def part_of(self, name: str) -> tuple[int, int]:
        """The part ``i/n`` in the field ``name``, counted from 0, and the number of parts; "" is the whole."""
        text = getattr(self, name)
        if not text:
            return 0, 1
        part, _, count = text.partition("/")
        valid = part.isdigit() and count.isdigit() and 1 <= int(part) <= int(count)
        self.require(valid, name, f"write part/parts, counted from 1: --{name} 1/4 … --{name} 4/4")
        return int(part) - 1, int(count)

    def require_at_least(self, least: float, *names: str) -> None:
        """Raise a ``UsageError`` if one of the fields ``names`` is below ``least``, 0 or 1."""
        for name in names:
            message = f"must be at least {least}" if least else "must not be negative"
            self.require(getattr(self, name) >= least, name, message)


def flag_name(field: dataclasses.Field[Any]) -> str:
    """The name of a field on the command line: ``--drop-positions``, or ``ACTS`` for an argument."""
    if field.metadata.get("kind") == "argument":
        return str(field.metadata.get("metavar") or field.name.upper())
    names = field.metadata.get("names") or ()
    return next((n for n in names if n.startswith("--")), "--" + field.name.replace("_", "-")).split("/")[0]


def first_difference(saved: dict[str, Any], requested: dict[str, Any]) -> str | None:
    """The first difference between two recorded configurations, in words, or None if they agree."""
    for key in sorted(set(saved) | set(requested)):
        if saved.get(key) != requested.get(key):
            before, now = _distinct_texts(saved.get(key), requested.get(key))
            return f"{key} was {before} and is now {now}"
    return None


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value of JSON or TOML, where tuples are lists, has the type of a field; a whole number is a number."""
    if get_origin(hint) in (tuple, list):
        return isinstance(value, list) and all(has_type(member, get_args(hint)[0]) for member in value)
    if get_origin(hint) is UnionType:  # int | None: TOML has no None, and leaves the field out
        return any(has_type(value, kind) for kind in get_args(hint))
    return type(value) is hint or (hint is float and type(value) is int)


def typed(value: Any) -> str:
    """A value as one would type it: 2M for 2000000, 64,960 for (64, 960)."""
    if isinstance(value, tuple):
        return ",".join(typed(item) for item in value)
    if isinstance(value, int):
        for unit, size in (("M", 10**6), ("k", 10**3)):
            if value and value % size == 0:
                return f"{value // size}{unit}"
    return str(value)


def parse_count(text: str) -> int:
    """Parse a whole number; ``k``, ``M`` and ``B`` are thousand, million and billion: ``250k``, ``1.5M``, ``2e6``."""
    body, factor = text.strip().replace("_", ""), 1
    if body and body[-1] in "kKmMbBgG":
        factor = _MULTIPLIERS[body[-1].lower() if body[-1] in "kK" else body[-1].upper()]
        body = body[:-1]
    try:
        value = float(body) * factor
    except ValueError:
        raise ValueError(f"{text!r} is not a number; write 250000, 250k or 1.5M") from None
    if not 0 <= value < 2**53 or value != int(value):
        raise ValueError(f"{text!r} is not a whole number")
    return int(value)


def parse_counts(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of whole numbers, such as ``64,960``; "" is an empty list."""
    return tuple(parse_count(part) for part in text.split(",")) if text else ()


def parse_numbers(text: str) -> tuple[float, ...]:
    """Parse a comma-separated list of numbers, such as ``8,8`` or ``3.7,3.4,2.9``; "" is an empty list."""
    if not text:
        return ()
    try:
        return tuple(int(part) if float(part).is_integer() else float(part) for part in text.split(","))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a list of numbers; write 8,8 or 3.7,3.4,2.9") from None


def _distinct_texts(first: Any, second: Any) -> tuple[str, str]:
    """Two values as text; numbers are rounded if they still differ."""
    short = [f"{value:g}" if isinstance(value, float) else repr(value) for value in (first, second)]
    return (short[0], short[1]) if short[0] != short[1] else (repr(first), repr(second))


def _as_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, OnHub):
        return value.name
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
