"""Every verb on a disk that is too small or read-only, and again with room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.drill.chain import PATIENCE, VERBS, Verb
from tests.drill.kills import References, judged
from tests.drill.outcomes import Budget, Counts, run

_SHARES = (0.0, 0.15, 0.5, 0.9, None)  # of the room that the output needs; None: read-only
_ROOM = 256 * 1024**2


def why_not() -> str:
    """Why no small disk can be made here; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "skipped: this needs Linux"
    if os.geteuid() != 0 or not shutil.which("mount"):
        return "skipped: this needs root"
    folder = Path(f"/tmp/drill-{os.getpid()}")
    folder.mkdir()
    try:
        with _disk(folder):
            return ""
    except subprocess.CalledProcessError:
        return "skipped: no disk can be mounted here"
    finally:
        folder.rmdir()


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    _mount("-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True, capture_output=True)


def fill(counts: Counts, budget: Budget, references: References, work: Path, verbs: tuple[Verb, ...] = VERBS) -> None:
    """Run verbs in turn without the room that they need, then with it, and compare what they wrote."""
    for number, draw in enumerate(budget.trials()):
        verb = verbs[(number + budget.seed) % len(verbs)]
        reference, share = references.of(verb), draw.choice(_SHARES)
        folder = work / "trials" / f"disk-{number}"
        folder.mkdir(parents=True)
        with _disk(folder):
            verb.prepare(references.base, folder)
            used = shutil.disk_usage(folder).used
            size = used + int((share or 0) * reference.bytes) // 4096 * 4096
            what = "read-only" if share is None else f"{share:.0%} of the room"
            _mount("-o", "remount,ro" if share is None else f"remount,size={max(size, 4096)}", str(folder))
            ended = run(verb.args(references.base), folder, PATIENCE)
            _mount("-o", f"remount,rw,size={_ROOM}", str(folder))
            if ended.outcome not in ("accepted", "refused"):
                counts.add(verb.name, ended.outcome, what, ended.errors)
            again = run(verb.args(references.base), folder, PATIENCE)
            counts.add(verb.name, *judged(verb, again, folder, reference, what))
        folder.rmdir()
