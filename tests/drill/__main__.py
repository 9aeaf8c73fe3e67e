"""``python -m tests.drill``: kills, damaged files, full disks and rivals; ends with 1 if something was lost."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.drill import damage, disks, interrupts, kills, pairs, ranks, raters
from tests.drill.chain import make_base
from tests.drill.kills import References
from tests.drill.outcomes import Budget, Counts, as_json, table

PARTS = ("kills", "mutations", "disks", "pairs", "raters", "interrupts", "ranks")


def main() -> None:
    """Disturb a tiny chain in many ways chosen by a seed, and print a table of what came of it.

    Ends with 1 after a traceback, a signal, a hang, too much memory, a difference, or a file left over.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=100, help="commands that are killed")
    parser.add_argument("--mutations", type=int, default=1500, help="damaged files")
    parser.add_argument("--disks", type=int, default=20, help="commands on a full or read-only disk")
    parser.add_argument("--pairs", type=int, default=8, help="commands that are started twice at once")
    parser.add_argument("--raters", type=int, default=40, help="raters of a study whose server is killed three times")
    parser.add_argument("--interrupts", type=int, default=30, help="short commands that get Ctrl-C")
    parser.add_argument("--ranks", type=int, default=20, help="trainings by torchrun of which one process is killed")
    parser.add_argument("--seconds", type=float, default=900, help="parts share this time, and stop when it is over")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other trials")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--details", action="store_true", help="a row for each command and kind of file")
    parser.add_argument("--json", type=Path, help="file for the outcomes and problems")
    parser.add_argument("--work", type=Path, help="folder to keep the inputs in for the next drill, best in memory")
    options = parser.parse_args()
    # Shells start jobs in the background without Ctrl-C, and their commands would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = [part for part in PARTS if options.only in (None, part) and getattr(options, part)]
    with tempfile.TemporaryDirectory(prefix="hiersae-drill") as folder:
        trials = {part: getattr(options, part) for part in chosen}
        parts = drill(trials, options.seconds, options.seed, (options.work or Path(folder)).absolute())
    print(table(parts, options.details))
    if options.json:
        options.json.write_text(as_json(parts))
    raise SystemExit(any(part.problems for part in parts))


def drill(trials: dict[str, int], seconds: float, seed: int, work: Path) -> list[Counts]:
    """The outcomes of that many trials of each part, with files in the folder ``work``.

    The parts share ``seconds``; each stops when its share is over. Making the inputs and references comes on top.
    """
    if trials.keys() - {"raters", "ranks"}:
        print("making the inputs", file=sys.stderr)
        make_base(work / "base")
    for folder in ("trials", "damaged"):
        shutil.rmtree(work / folder, ignore_errors=True)
    references = References(work)
    end, parts = time.monotonic() + seconds, []
    for number, (part, count) in enumerate(trials.items()):
        counts = Counts(part)
        parts.append(counts)
        now = time.monotonic()
        budget = Budget(part, count, now + (end - now) / (len(trials) - number), seed)
        if part == "kills":
            kills.kill(counts, budget, references, work)
        elif part == "mutations":
            damage.damage(counts, budget, work / "base", work)
        elif part == "pairs":
            pairs.pair(counts, budget, references, work)
        elif part == "interrupts":
            interrupts.interrupt(counts, budget, work / "base")
        elif part == "ranks":
            ranks.kill_ranks(counts, budget, work)
        elif part == "raters":
            raters.rate(counts, budget, work)
        elif reason := disks.why_not():
            counts.note = reason
            continue
        else:
            disks.fill(counts, budget, references, work)
        if budget.done < count:
            counts.note = f"stopped by the time after {budget.done} of {count}"
        print(table([counts], details=False), file=sys.stderr)
    return parts


if __name__ == "__main__":
    main()
