"""What every step's configuration shares: declaring a flag, parsing its text, checking its value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from hiersae_cli.errors import UsageError

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

    ``names`` replaces the name derived from the field; ``parse`` turns the flag's text into the value;
    ``choices`` are the values allowed; ``recorded=False`` keeps a flag that cannot change the result
    (an output path, a display setting) out of the configuration that files carry; ``group`` is the heading that
    ``--help`` shows it under, after the options without one; ``only_for`` names the values of other fields that it
    has an effect with, as ``{"arch": ["hier"]}``.
    """
    metadata = {
        "kind": "option",
        "names": names,
        "help": help,
        "parse": parse,
        "metavar": metavar,
        "choices": choices,  # as they are: a registry may grow
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


@dataclass(kw_only=True)
class Config:
    """Base of the step configurations. ``__post_init__`` checks; cross-field checks go in ``check``."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            allowed = field.metadata.get("choices")
            value = getattr(self, field.name)
            if allowed and value not in allowed:
                # "" stands for leaving the flag away.
                raise UsageError(f"{flag_name(field)} {value!r} is not one of: {', '.join(filter(None, allowed))}")
        self.check()

    GROUPS: ClassVar[tuple[str, ...]] = ()  # the order of the groups of its options in help; others follow

    def check(self) -> None:
        """Raise ``UsageError`` where values do not fit together."""

    def check_command_line(self) -> None:
        """Raise ``UsageError`` where a command lacks what only it needs: a configuration read back may lack it."""

    def recorded(self) -> dict[str, Any]:
        """The fields that decide the result, as plain JSON values: what files carry and resuming compares."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.metadata.get("recorded", True)
        }

    def refuse_unused(self, given: Iterable[str]) -> None:
        """Raise ``UsageError`` where a field among ``given`` has no effect: it is for another architecture, say.

        Only for what somebody asks for: a configuration that was read back records every field.
        """
        for field in dataclasses.fields(self):
            for name, values in field.metadata.get("only_for", {}).items():
                if field.name in given and getattr(self, name) not in values:
                    decides = flag_name(next(f for f in dataclasses.fields(self) if f.name == name))
                    raise UsageError(
                        f"{flag_name(field)}: is for {decides} {' or '.join(values)}, not {getattr(self, name)}",
                        "Leave it out: it would have no effect.",
                    )

    def require(self, condition: bool, field_name: str, message: str, hint: str = "") -> None:
        """Raise a ``UsageError`` that names the flag of ``field_name`` unless ``condition`` holds."""
        if not condition:
            field = next(f for f in dataclasses.fields(self) if f.name == field_name)
            given = f"{flag_name(field)} {_shown(getattr(self, field_name))}".rstrip()
            raise UsageError(f"{given}: {message}", hint)

    def require_at_least(self, least: float, *names: str) -> None:
        """Raise a ``UsageError`` where one of the fields ``names`` is below ``least``, 0 or 1."""
        for name in names:
            message = f"must be at least {least}" if least else "must not be negative"
            self.require(getattr(self, name) >= least, name, message)


def flag_name(field: dataclasses.Field[Any]) -> str:
    """How the command line calls a field: ``--drop-positions``, or ``ACTS`` for an argument."""
    if field.metadata.get("kind") == "argument":
        return str(field.metadata.get("metavar") or field.name.upper())
    names = field.metadata.get("names") or ()
    return next((n for n in names if n.startswith("--")), "--" + field.name.replace("_", "-")).split("/")[0]


def first_difference(saved: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """Say which key differs between two recorded configurations, or None where they agree."""
    for key in sorted(set(saved) | set(wanted)):
        if saved.get(key) != wanted.get(key):
            was, is_now = _told_apart(saved.get(key), wanted.get(key))
            return f"{key} was {was} and is now {is_now}"
    return None


def typed(value: Any) -> str:
    """A value as it would be typed: 2000000 reads as 2M, (64, 960) as 64,960."""
    if isinstance(value, tuple):
        return ",".join(typed(item) for item in value)
    if isinstance(value, int):
        for unit, size in (("M", 10**6), ("k", 10**3)):
            if value and value % size == 0:
                return f"{value // size}{unit}"
    return str(value)


def parse_count(text: str) -> int:
    """A whole number, with ``k``, ``M`` or ``B`` for thousands, millions, billions: ``250k``, ``1.5M``, ``2e6``."""
    body, factor = text.strip().replace("_", ""), 1
    if body and body[-1] in "kKmMbBgG":
        factor = _MULTIPLIERS[body[-1].lower() if body[-1] in "kK" else body[-1].upper()]
        body = body[:-1]
    try:
        value = float(body) * factor
    except ValueError:
        raise ValueError(f"{text!r} is not a number; write 250000, 250k or 1.5M") from None
    if not 0 <= value < 2**53 or value != int(value):
        raise ValueError(f"{text!r} is not a whole number of things")
    return int(value)


def parse_counts(text: str) -> tuple[int, ...]:
    """A comma-separated list of whole numbers: ``64,960``; "" is none."""
    return tuple(parse_count(part) for part in text.split(",")) if text else ()


def parse_numbers(text: str) -> tuple[float, ...]:
    """A comma-separated list of numbers: ``8,8`` or ``3.7,3.4,2.9``; "" is none."""
    if not text:
        return ()
    try:
        return tuple(int(part) if float(part).is_integer() else float(part) for part in text.split(","))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a list of numbers; write 8,8 or 3.7,3.4,2.9") from None


def _told_apart(one: Any, other: Any) -> tuple[str, str]:
    """Two values in words, numbers rounded as far as they still differ."""
    short = [f"{value:g}" if isinstance(value, float) else repr(value) for value in (one, other)]
    return (short[0], short[1]) if short[0] != short[1] else (repr(one), repr(other))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
