"""Ctrl-C at any moment of short commands in fresh processes, which spend most of their time in imports."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from tests.drill.chain import PATIENCE
from tests.drill.outcomes import Budget, Counts, Ended
from tests.helpers import command, environment

_COMMANDS = (
    ("--help",),
    ("info", "acts.h5"),
    ("data", "get", "shakespeare_char", "--from", "play.txt", "--prefix", "--overwrite"),
)
_PACKAGE = "hiersae_cli"
_WORDS = "interrupted\nRun the same command again to resume.\n"


def interrupt(counts: Counts, budget: Budget, base: Path) -> None:
    """Send SIGINT to a command at a random time. Python's own start, before any file of ours, is not counted."""
    seconds = {args: _run(args, base, PATIENCE)[1] for args in _COMMANDS}
    for number, draw in enumerate(budget.trials()):
        args = _COMMANDS[number % len(_COMMANDS)]
        after = draw.uniform(0, seconds[args])
        ended, _ = _run(args, base, after)
        outcome = ended.outcome
        if outcome == "traceback" and f"/{_PACKAGE}/" not in ended.errors:
            counts.note = "some in the start of Python"
            continue
        # By the signal itself before the command has words for it, or if Python was within the text of a dataclass.
        if ended.code == -signal.SIGINT and (not ended.errors or ended.errors.endswith(_WORDS)):
            outcome = "refused"
        counts.add(args[0], outcome, f"after {after:.2f} s", ended.errors)


def _run(args: tuple[str, ...], base: Path, after: float) -> tuple[Ended, float]:
    """How a command ends that gets SIGINT ``after`` seconds, and how long it took."""
    began = time.monotonic()
    process = subprocess.Popen(
        command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=base, env=environment()
    )
    try:
        errors = process.communicate(timeout=after)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=PATIENCE)[1]
    passed = time.monotonic() - began
    return Ended(process.returncode, errors, "", passed), passed
