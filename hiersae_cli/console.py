"""All output to the user: data on standard output, everything else on standard error."""

from __future__ import annotations

import codecs
import json as jsonlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from hiersae_cli.layout import table_lines

_STYLES = {"better": "1;32", "worse": "1;31", "no evidence": "2", "heading": "1"}  # terminal styles, by kind of text
_LOG_WIDTH = 120  # of tables if there is no terminal
_NARROWEST = 40
_BAR, _SHORT_BAR, _WIDE = 24, 10, 100  # characters of a progress bar; the long one is for wide terminals
PLAIN_INTERVAL = 10.0  # seconds between progress lines if there is no terminal to redraw
# ASCII for the special characters in our own texts, for outputs that cannot encode them.
_PLAIN = str.maketrans(
    {"↑": "^", "↓": "v", "−": "-", "–": "-", "—": "-", "─": "-", "━": "=", "·": "|", "…": "...", "↳": ">", "→": "->"}
    | {"“": '"', "”": '"', "’": "'", "α": "alpha", "⟪": "<<", "⟫": ">>", "‖": "||", "×": "x"}
)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Replace our own characters with ASCII and all others with question marks, so that printing never fails."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "replace").decode(), error.end


codecs.register_error("hiersae", _replace_unencodable)


def steady_streams() -> None:
    """Make standard output and error accept any character, whatever their encoding, and anything if they are closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would get its number, and messages
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="hiersae")


def write_line(text: str, stream: TextIO) -> None:
    """Print text and a line end. A closed pipe (``… | head``) or a full disk does not stop the command."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        _discard(stream)


def _discard(stream: TextIO) -> None:
    """Discard the content of a stream's buffer, and everything written later."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Progress:
    """A running count with a rate, the remaining time, and a few changing figures."""

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
        """Units per second since this progress began, not counting units done before."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def line(self, unit: str, figures: Mapping[str, str]) -> str:
        """Everything in one line of text."""
        texts = "  ".join(f"{name} {value}" for name, value in figures.items())
        return f"{self.done:,}/{self.total:,} {unit}  {_rate(self.rate)}/s  {self._remaining()} left  {texts}".rstrip()

    def short_line(self, figures: Mapping[str, str], room: int) -> str:
        """The same in at most ``room`` characters; the last parts are left out if they do not fit."""
        parts = [f"{_abbreviated(self.done)}/{_abbreviated(self.total)}", f"{_rate(self.rate)}/s", self._remaining()]
        parts += [f"{name} {value}" for name, value in figures.items()]
        while len(parts) > 1 and len(" · ".join(parts)) > room:
            parts.pop()
        return " · ".join(parts)

    def _remaining(self) -> str:
        return _duration((self.total - self.done) / self.rate if self.rate else float("inf"))


class Console:
    """The output of one command; ``Console.silent()`` is for use from Python."""

    def __init__(self, json: bool = False, quiet: bool = False):
        self.json = json
        self.quiet = quiet

    @classmethod
    def silent(cls) -> Console:
        """A console that shows only warnings."""
        return cls(quiet=True)

    def say(self, message: str = "") -> None:
        """Show a message about what the command is doing or has done."""
        if not self.quiet:
            write_line(message, sys.stderr)

    def warn(self, message: str) -> None:
        """Show something that the user should know about the result, even when quiet."""
        write_line(f"warning: {message}", sys.stderr)

    def result(self, data: Mapping[str, Any], text: str) -> None:
        """Print the command's result: JSON on standard output with ``--json``, else text.

        If the JSON cannot be written, this is an error, unless the pipe is closed.
        """
        if self.json:
            utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            text = jsonlib.dumps(data, indent=2, ensure_ascii=not utf8, allow_nan=False)
            try:
                print(text, flush=True)
            except BrokenPipeError:
                _discard(sys.stdout)
        elif text and not self.quiet:
            write_line(text, sys.stdout)

    def next(self, *commands: str) -> None:
        """Suggest commands to run next."""
        if not self.json:
            for command in commands:
                self.say(f"next: {command}")

    def show(self, text: str) -> None:
        """Print text for people on standard output, but not with ``--json``."""
        if not self.json and not self.quiet:
            write_line(text, sys.stdout)

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        spare: Sequence[int] = (),
        together: int = 1,
    ) -> None:
        """Print a table for people on standard output, but not with ``--json``.

        A row of one cell is the heading of the rows below it. Verdicts are coloured on a terminal. The table fits the
        width of the terminal, or ``COLUMNS``; for ``spare`` and ``together`` see ``layout.table_lines``.
        """
        width = max(_NARROWEST, shutil.get_terminal_size((_LOG_WIDTH, 0)).columns)
        self.show("\n".join(table_lines(title, columns, rows, width, spare, together, _styled)))

    @contextmanager
    def progress(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
        """Show progress towards ``total``: one redrawn line on a terminal, a line now and then elsewhere."""
        if self.quiet:
            yield Progress(total, done)
        elif sys.stderr.isatty():
            with _rich_progress(title, total, unit, done) as progress:
                yield progress
        else:
            plain = _PlainProgress(title, total, unit, done)
            yield plain
            plain.finish()


class Mute(Console):
    """A console that shows nothing, for all ranks of a job but the first."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def warn(self, message: str) -> None:
        pass

    def result(self, data: Mapping[str, Any], text: str) -> None:
        pass


class _PlainProgress(Progress):
    def __init__(self, title: str, total: int, unit: str, done: int):
        super().__init__(total, done)
        self._title, self._unit, self._printed = title, unit, time.monotonic()
        self._figures: dict[str, str] = {}
        self._printed_at = -1  # units done when a line was last printed

    def advance(self, amount: int, **figures: str) -> None:
        super().advance(amount)
        self._figures.update(figures)
        if time.monotonic() - self._printed > PLAIN_INTERVAL:
            self._printed = time.monotonic()
            self._print()

    def finish(self) -> None:
        if self._printed_at != self.done:
            self._print()

    def _print(self) -> None:
        self._printed_at = self.done
        write_line(f"{self._title}: {self.line(self._unit, self._figures)}", sys.stderr)


@contextmanager
def _rich_progress(title: str, total: int, unit: str, done: int) -> Iterator[Progress]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    terminal = RichConsole(stderr=True, highlight=False)
    # The title and the bar are never cut; the line gets the remaining width.
    bar = _BAR if terminal.width >= _WIDE else _SHORT_BAR
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=bar), TextColumn("{task.fields[line]}"))
    with RichProgress(*columns, console=terminal) as bars:
        task = bars.add_task(title, total=total, completed=done, line="")
        latest: dict[str, str] = {}

        class DrawnProgress(Progress):
            def advance(self, amount: int, **figures: str) -> None:
                super().advance(amount)
                latest.update(figures)
                room = terminal.width - len(title) - bar - 2
                bars.update(task, completed=self.done, line=self.short_line(latest, room))

        yield DrawnProgress(total, done)


def _styled(text: str, kind: str) -> str:
    """``text`` in the style of its kind, if the terminal has colours."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or kind not in _STYLES else f"\x1b[{_STYLES[kind]}m{text}\x1b[0m"


def _rate(rate: float) -> str:
    return f"{rate:.1g}" if 0 < rate < 1 else _abbreviated(round(rate))


def _abbreviated(number: int) -> str:
    """``438k`` for 438,272."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        scaled = number / size
        if scaled >= 0.9995:  # so that nothing is shown as 1000 of the smaller unit
            return f"{scaled:,.0f}{unit}" if scaled >= 999.5 else f"{scaled:.3g}{unit}"
    return str(number)


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
