"""Commands under limits of time and memory, what became of them, and how many trials had each outcome."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import Started, start

GOOD = ("resumed", "was done", "refused", "accepted")
BAD = ("not resumed", "differs", "left over", "traceback", "signal", "hang", "memory", "unclear")
OUTCOMES = (*GOOD, *BAD)

MEMORY = 2 * 1000**3  # bytes that a command may take
_CODES = (1, 2, 130)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code, negative for a signal.
        errors: its standard error.
        limit: "hang" or "memory" if it was killed for that, else empty.
        seconds: how long it took.
    """

    code: int
    errors: str
    limit: str
    seconds: float

    @property
    def outcome(self) -> str:
        """One of ``accepted``, ``refused``, and what a command must never do."""
        if self.limit:
            return self.limit
        if "Traceback" in self.errors or "error: unexpected " in self.errors:
            return "traceback"
        if self.code < 0:
            return "signal"
        if self.code == 0:
            return "accepted"
        clear = self.code in _CODES and ("error: " in self.errors or self.code == 130)
        return "refused" if clear else "unclear"


def run(args: tuple[str, ...], folder: Path, seconds: float, env: Mapping[str, str] | None = None) -> Ended:
    """Run ``hiersae ARGS`` in ``folder``; end it after ``seconds``, or if it takes more than 2 GB."""
    return finish(start(*args, env=env, cwd=folder), seconds)


def finish(started: Started, seconds: float, kill_after: float = float("inf"), number: int = 9) -> Ended:
    """Wait for a command under the limits; after ``kill_after`` seconds it gets the signal ``number``."""
    began, waited, limit = time.monotonic(), 0.0, ""
    while started.poll() is None:
        with suppress(OSError, ValueError, IndexError):
            # Time in the queue for a processor does not count: a busy machine is no hang.
            waited = int(Path(f"/proc/{started.pid}/schedstat").read_text().split()[1]) / 1e9
            pages = int(Path(f"/proc/{started.pid}/statm").read_text().split()[1])
            limit = "memory" if pages * 4096 > MEMORY else limit
        passed = time.monotonic() - began
        limit = limit or ("hang" if passed - waited > seconds else "")
        if limit:
            started.kill()
        elif passed > kill_after:
            started.send_signal(number)
            kill_after = float("inf")
        with suppress(subprocess.TimeoutExpired):
            started.wait(0.01)
    errors = started.communicate()[1]
    return Ended(started.wait(), errors, limit, time.monotonic() - began)


@dataclass
class Counts:
    """Outcomes of the trials of one part, by subject (a command or a kind of file)."""

    part: str
    by_subject: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, subject: str, outcome: str, what: str, detail: str = "") -> None:
        """Count a trial, and keep what happened if it must not happen."""
        self.by_subject.setdefault(subject, Counter())[outcome] += 1
        if outcome in BAD:
            self.problems.append(f"{self.part}, {subject}, {what}: {outcome}\n{detail.strip()}")
            print(self.problems[-1], file=sys.stderr)

    @property
    def total(self) -> Counter[str]:
        """Outcomes of all subjects."""
        return sum(self.by_subject.values(), Counter())


@dataclass
class Budget:
    """How many trials a part may make, and until when; says on standard error how far it is."""

    part: str
    count: int
    deadline: float
    seed: int
    done: int = 0

    def trials(self) -> Iterator[random.Random]:
        """A generator of random numbers for each trial, which depends only on the seed and the trial's number."""
        for number in range(self.count):
            if time.monotonic() > self.deadline:
                break
            yield random.Random(f"{self.part} {self.seed} {number}")
            self.done += 1
            print(f"\r{self.part}: {self.done} of {self.count} trials", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)


def table(parts: list[Counts], details: bool) -> str:
    """The outcomes of all parts in Markdown; with ``details`` also those of every subject."""
    columns = [name for name in OUTCOMES if name != "unclear" or any(part.total[name] for part in parts)]
    lines = [f"| | trials | {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) + 1)}"]
    for part in parts:
        name = f"{part.part} ({part.note})" if part.note else part.part
        rows = [(name, part.total), *(sorted(part.by_subject.items()) if details else [])]
        for name, counts in rows:
            cells = [sum(counts.values()), *(counts[column] for column in columns)]
            lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def as_json(parts: list[Counts]) -> str:
    """The outcomes of every subject, and what must not happen."""
    return json.dumps({part.part: {"outcomes": part.by_subject, "problems": part.problems} for part in parts}, indent=1)
