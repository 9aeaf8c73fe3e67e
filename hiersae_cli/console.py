"""The one place that talks to the person: data on standard output, everything else on standard error."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_STYLES = {"better": "bold green", "worse": "bold red", "no evidence": "dim"}
PLAIN_INTERVAL = 10.0  # seconds between progress lines where there is no terminal to redraw


class Progress:
    """A running count with a rate, the time left, and a few figures that change as it goes."""

    def __init__(self, total: int, done: int = 0):
        self.total = total
        self.done = done
        self._first = done
        self._started = time.monotonic()

    def advance(self, amount: int, **figures: str) -> None:
        """Count ``amount`` more units done and show ``figures``."""
        self.done += amount

    @property
    def rate(self) -> float:
        """Units per second since this progress began (what was already done before does not count)."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def line(self, unit: str, figures: Mapping[str, str]) -> str:
        """One line of text that says it all."""
        left = (self.total - self.done) / self.rate if self.rate else float("inf")
        shown = "  ".join(f"{name} {value}" for name, value in figures.items())
        return f"{self.done:,}/{self.total:,} {unit}  {self.rate:,.0f}/s  {_clock(left)} left  {shown}".rstrip()


class Console:
    """Output of one command; ``Console.silent()`` is for use from Python."""

    def __init__(self, json: bool = False, quiet: bool = False):
        self.json = json
        self.quiet = quiet

    @classmethod
    def silent(cls) -> Console:
        """A console that shows nothing but warnings."""
        return cls(quiet=True)

    def say(self, message: str = "") -> None:
        """A message about what happens or has happened."""
        if not self.quiet:
            print(message, file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Something the user should know about the result; shown even when quiet."""
        print(f"warning: {message}", file=sys.stderr, flush=True)

    def result(self, data: Mapping[str, Any], text: str) -> None:
        """The command's answer: JSON on standard output if asked for, else text."""
        if self.json:
            print(jsonlib.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
        elif text and not self.quiet:
            print(text)

    def next(self, *commands: str) -> None:
        """Show what the user would likely run next."""
        if not self.json:
            for command in commands:
                self.say(f"next: {command}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for people, on standard output; left out where JSON was asked for.

        A row of one cell is the heading of those below it. Verdicts are coloured on a terminal.
        """
        if self.json or self.quiet:
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
        for row in rows:
            if len(row) == 1:
                table.add_section()
            table.add_row(*(Text(cell, "bold" if len(row) == 1 else _STYLES.get(cell, "")) for cell in row))
        terminal = sys.stdout.isatty()
        RichConsole(file=sys.stdout, width=None if terminal else 160, highlight=False).print(table)

    @contextmanager
    def progress(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
        """Show progress towards ``total``: redrawn on a terminal, a line now and then elsewhere."""
        if self.quiet:
            yield Progress(total, done)
        elif sys.stderr.isatty():
            with _rich_progress(title, total, unit, done) as progress:
                yield progress
        else:
            plain = _PlainProgress(title, total, unit, done)
            yield plain
            plain.finish()


class _PlainProgress(Progress):
    def __init__(self, title: str, total: int, unit: str, done: int):
        super().__init__(total, done)
        self._title, self._unit, self._shown = title, unit, time.monotonic()
        self._figures: dict[str, str] = {}

    def advance(self, amount: int, **figures: str) -> None:
        super().advance(amount)
        self._figures.update(figures)
        if time.monotonic() - self._shown > PLAIN_INTERVAL:
            self._shown = time.monotonic()
            self._print()

    def finish(self) -> None:
        self._print()

    def _print(self) -> None:
        print(f"{self._title}: {self.line(self._unit, self._figures)}", file=sys.stderr, flush=True)


@contextmanager
def _rich_progress(title: str, total: int, unit: str, done: int) -> Iterator[Progress]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[line]}"))
    with RichProgress(*columns, console=RichConsole(stderr=True, highlight=False)) as bars:
        task = bars.add_task(title, total=total, completed=done, line="")
        latest: dict[str, str] = {}

        class Shown(Progress):
            def advance(self, amount: int, **figures: str) -> None:
                super().advance(amount)
                latest.update(figures)
                bars.update(task, completed=self.done, line=self.line(unit, latest))

        yield Shown(total, done)


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
