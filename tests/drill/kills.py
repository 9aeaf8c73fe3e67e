"""Kills of every verb, at an operation on files or at any time, and the same command again."""

from __future__ import annotations

import json
import random
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.drill.chain import PATIENCE, VERBS, Verb, undisturbed
from tests.drill.contents import contents, left_over
from tests.drill.outcomes import Budget, Counts, Ended, finish, run
from tests.helpers import start

_SIGNALS = (*[signal.SIGKILL] * 4, signal.SIGTERM, signal.SIGINT)


@dataclass
class Reference:
    """What a verb writes if nothing disturbs it, its bytes, seconds, and number of operations on files."""

    contents: dict[str, Any]
    bytes: int
    seconds: float
    operations: int


class References:
    """The references of all verbs, each made when it is first needed, and kept in ``work``."""

    def __init__(self, work: Path):
        self.base, self._folder = work / "base", work / "undisturbed"
        self._of: dict[str, Reference] = {}

    def of(self, verb: Verb) -> Reference:
        """The reference of a verb."""
        if verb.name not in self._of:
            folder = self._folder / verb.name.replace(" ", "-")
            measured = folder.with_name(f"{folder.name}.json")
            if not measured.exists():
                self._make(verb, folder, measured)
            size = sum(path.stat().st_size for path in folder.rglob("*"))
            self._of[verb.name] = Reference(
                contents(folder, verb.random), size, **json.loads(measured.read_text(encoding="utf-8"))
            )
        return self._of[verb.name]

    def _make(self, verb: Verb, folder: Path, measured: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        count = folder.with_name(f"{folder.name}.count")
        seconds = undisturbed(verb, self.base, folder, {"HIERSAE_COUNT_INTO": str(count)})
        measured.write_text(json.dumps({"seconds": seconds, "operations": int(count.read_text())}))


def kill(counts: Counts, budget: Budget, references: References, work: Path, verbs: tuple[Verb, ...] = VERBS) -> None:
    """Kill verbs in turn, once or twice, run each again, and compare what it wrote with its reference."""
    for number, draw in enumerate(budget.trials()):
        verb = verbs[(number + budget.seed) % len(verbs)]
        reference = references.of(verb)
        folder = work / "trials" / f"kill-{number}"
        verb.prepare(references.base, folder)
        kills = []
        for _ in range(draw.choice((1, 1, 2))):
            ended, what = _killed(verb, references.base, folder, reference, draw)
            kills.append(what)
            if ended.outcome in ("traceback", "hang", "memory"):  # a command that is killed need not say why
                counts.add(verb.name, ended.outcome, what, ended.errors)
        again = run(verb.args(references.base), folder, PATIENCE)
        counts.add(verb.name, *judged(verb, again, folder, reference, " and ".join(kills)))
        shutil.rmtree(folder)


def _killed(verb: Verb, base: Path, folder: Path, reference: Reference, draw: random.Random) -> tuple[Ended, str]:
    number = draw.choice(_SIGNALS)
    if draw.random() < 0.6:
        operation = draw.randint(1, reference.operations)
        place = {"HIERSAE_KILL_AT": f"any::{operation}:{int(number)}"}
        what = f"{number.name} at operation {operation} of {reference.operations}"
        return run(verb.args(base), folder, PATIENCE, place), what
    seconds = draw.uniform(0, reference.seconds)
    return finish(
        start(*verb.args(base), cwd=folder), PATIENCE, seconds, number
    ), f"{number.name} after {seconds:.2f} s"


def judged(verb: Verb, again: Ended, folder: Path, reference: Reference, what: str) -> tuple[str, str, str]:
    """The outcome of a command that ran again, what had been done to it, and what is wrong."""
    if again.outcome not in ("accepted", "refused"):
        return again.outcome, what, again.errors
    written = contents(folder, verb.random)
    if extra := left_over(set(written), set(reference.contents)):
        return "left over", what, f"{', '.join(extra)}\n{again.errors}"
    names = written.keys() | reference.contents.keys()
    absent = object()
    different = [name for name in sorted(names) if written.get(name, absent) != reference.contents.get(name, absent)]
    if different:
        outcome = "differs" if again.outcome == "accepted" else "not resumed"
        return outcome, what, f"{', '.join(different)}\n{again.errors}"
    return ("resumed" if again.outcome == "accepted" else "was done"), what, ""
