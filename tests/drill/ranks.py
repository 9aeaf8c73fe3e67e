"""Trainings under ``torchrun --max-restarts 1`` in which one rank is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import warm
from tests.drill import rank
from tests.drill.contents import contents, left_over
from tests.drill.outcomes import Budget, Counts, Ended
from tests.helpers import environment
from tests.ranks import torchrun

_TRAIN = "train --synth toy --widths 4,12 --k 1,2 --tokens 1500 --batch 128 --log-every 5 --checkpoint-seconds 0"
WAYS = {
    "data": (2, "--parallel data"),
    "tree": (2, "--parallel tree"),
    "both": (4, "--tree-ranks 2"),
}
# Rank and moment, see ``rank.arrange``; "state" and "part" are files of a checkpoint.
MOMENTS = (
    ("data", "0@start"),
    ("data", "1@connecting"),
    ("tree", "0@connecting"),
    ("tree", "1@start"),
    ("tree", "1@agreement:1"),
    ("data", "0@agreement:2"),
    ("data", "1@message:1"),
    ("tree", "0@message:1"),
    ("tree", "1@message:30"),
    ("data", "0@message:40"),
    ("both", "3@message:20"),
    ("both", "0@message:50"),
    ("data", "0@open:state:1"),
    ("data", "0@os.rename:state:2"),
    ("tree", "1@open:part:1"),
    ("tree", "0@os.rename:index:2"),
    ("both", "1@os.rename:part:1"),
    ("tree", "1@last"),
    ("data", "0@os.remove:state:1"),
    ("data", "1@end"),
)
_LIMIT = 600.0  # seconds for a launch, its restart included
_HANG = 60.0  # seconds within which the other ranks must end


@dataclass(frozen=True)
class Launched(Ended):
    """How a launch ended; ``survived`` is for how many seconds other ranks went on after the first one had ended."""

    survived: float = 0.0


def kill_ranks(counts: Counts, budget: Budget, work: Path) -> None:
    """Kill one rank of a training at each of ``MOMENTS``, and compare the run with an undisturbed one."""
    warm.import_all()
    references: dict[str, dict[str, Any]] = {}
    longest = 0.0
    for number, _ in enumerate(budget.trials()):
        way, moment = MOMENTS[(number + budget.seed) % len(MOMENTS)]
        if way not in references:
            folder = work / "undisturbed" / f"ranks-{way}"
            ended = launch(way, folder)
            assert ended.code == 0, ended.errors
            references[way] = _contents(folder)
        folder = work / "trials" / f"ranks-{number}"
        ended = launch(way, folder, {"HIERSAE_KILL_RANK": moment})
        longest = max(longest, ended.survived)
        counts.add(f"train {WAYS[way][1]}", *judged(ended, folder, references[way]), f"{moment}\n{ended.errors}")
    counts.note = f"other ranks ended within {longest:.1f} s"


def launch(way: str, folder: Path, env: Mapping[str, str] | None = None) -> Launched:
    """Train in ``folder`` with the ranks of ``way``."""
    folder.mkdir(parents=True, exist_ok=True)
    ranks, flags = WAYS[way]
    args = (*_TRAIN.split(), *flags.split(), "-o", "run")
    words = torchrun(ranks, *args, restarts=1)[3:]
    began = time.monotonic()
    with (folder.parent / f"{folder.name}.log").open("w+") as log:
        pid = os.fork()
        if not pid:
            _be_the_launcher(words, folder, log.fileno(), environment(env))
        survived, limit = _watch(pid, ranks), ""
        while _is_running(pid):
            if time.monotonic() - began > _LIMIT:
                limit = "hang"
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log.seek(0)
        return Launched(code, log.read(), limit, time.monotonic() - began, survived)


def _be_the_launcher(words: list[str], folder: Path, output: int, env: dict[str, str]) -> None:
    code = 1
    try:
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ.update(env)
        os.chdir(folder)
        rank.launch(words)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _watch(launcher: int, ranks: int) -> float:
    """Seconds from the end of the first rank of the first start to that of the last one."""
    pids: list[int] = []
    ends: list[float] = []
    deadline = time.monotonic() + _LIMIT
    while _is_running(launcher) and len(ends) < ranks and time.monotonic() < deadline:
        if len(pids) < ranks:
            pids = _children(launcher)
        else:
            ends += [time.monotonic()] * (sum(not _is_running(pid) for pid in pids) - len(ends))
        time.sleep(0.02)
    return ends[-1] - ends[0] if ends else 0.0


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def judged(ended: Launched, folder: Path, reference: dict[str, Any]) -> tuple[str, str]:
    """The outcome of a launch, and what is wrong."""
    if ended.limit or ended.survived > _HANG:
        return "hang", f"other ranks ended after {ended.survived:.0f} s"
    if "Traceback" in ended.errors:
        return "traceback", ""
    if ended.code:
        return "not resumed", ""
    if ended.errors.count("error: ") > 1:
        return "unclear", "more than one rank reports the error"
    written = _contents(folder)
    if extra := left_over(set(written), set(reference)):
        return "left over", ", ".join(extra)
    different = [name for name in sorted(written.keys() | reference) if written.get(name) != reference.get(name)]
    return ("differs", ", ".join(different)) if different else ("resumed", "")


def _contents(folder: Path) -> dict[str, Any]:
    """What a run holds, without the times and memory of its ranks."""
    files = contents(folder)
    for line in files.get("run/metrics.jsonl", []):
        line.pop("ranks", None)
    return files
