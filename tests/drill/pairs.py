"""Two processes at once that write the same model."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from tests.drill.chain import PATIENCE, VERBS
from tests.drill.kills import References, judged
from tests.drill.outcomes import Budget, Counts, finish, run
from tests.helpers import start

_NAMES = ("train", "lm", "train --overwrite", "lm --overwrite")


def pair(counts: Counts, budget: Budget, references: References, work: Path) -> None:
    """Start a command twice, in half of the trials while the first one stands still, and compare what they wrote.

    One of them may be refused. If both are, the command must succeed when it runs once more.
    """
    verbs = {verb.name: verb for verb in VERBS}
    for number, draw in enumerate(budget.trials()):
        verb = verbs[_NAMES[number % len(_NAMES)]]
        reference = references.of(verb)
        folder = work / "trials" / f"pair-{number}"
        verb.prepare(references.base, folder)
        first = start(*verb.args(references.base), cwd=folder)
        delay, stops = draw.uniform(0, reference.seconds), draw.random() < 0.5
        time.sleep(delay)
        if stops:
            first.send_signal(signal.SIGSTOP)
        second = start(*verb.args(references.base), cwd=folder)
        if stops:
            time.sleep(0.5)
            first.send_signal(signal.SIGCONT)
        both = [finish(started, PATIENCE) for started in (first, second)]
        what = f"second after {delay:.2f} s{', first stopped' if stops else ''}"
        for ended in both:
            if ended.outcome not in ("accepted", "refused"):
                counts.add(verb.name, ended.outcome, what, ended.errors)
        last = next((ended for ended in both if ended.code == 0), None) or run(
            verb.args(references.base), folder, PATIENCE
        )
        outcome, _, detail = judged(verb, last, folder, reference, what)
        refused = outcome == "resumed" and any(ended.outcome == "refused" for ended in both)
        counts.add(verb.name, "refused" if refused else outcome, what, detail)
        shutil.rmtree(folder)
