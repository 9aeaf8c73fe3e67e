"""The drill itself: it finds what it looks for, and a small part of it goes well."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from tests.drill.chain import VERBS
from tests.drill.contents import contents
from tests.drill.damage import CASES, damage
from tests.drill.kills import Reference, References, judged, kill
from tests.drill.outcomes import Budget, Counts, Ended, table
from tests.drill.raters import rate
from tests.drill.worker import Worker
from tests.fixtures_chain import sentences
from tests.helpers import hiersae

GET = next(verb for verb in VERBS if verb.name == "data get")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "play.txt").write_text("First Citizen:\n" + sentences(1000))
    return tmp_path


@pytest.mark.parametrize(
    ("code", "errors", "limit", "outcome"),
    [
        (0, "", "", "accepted"),
        (1, "error: acts.h5: no such file\nCheck the path.", "", "refused"),
        (130, "interrupted", "", "refused"),
        (1, "", "", "unclear"),
        (1, "error: unexpected KeyError: 'x'\nPlease report it.", "", "traceback"),
        (1, "Traceback (most recent call last):\nKeyError", "", "traceback"),
        (-11, "", "", "signal"),
        (-9, "", "hang", "hang"),
    ],
)
def test_how_a_command_ended(code: int, errors: str, limit: str, outcome: str) -> None:
    assert Ended(code, errors, limit, 1.0).outcome == outcome


def test_what_a_rerun_wrote_is_compared_with_an_undisturbed_run(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"created": "2026-01-02T03:04:05", "fvu": 0.5}')
    reference = Reference(contents(tmp_path), 0, 0.0, 0)
    (tmp_path / "report.json").write_text('{"created": "2027-01-02T03:04:05", "fvu": 0.5}')
    done, refused = Ended(0, "", "", 0.0), Ended(1, "error: already exists", "", 0.0)
    assert judged(GET, done, tmp_path, reference, "")[0] == "resumed"
    assert judged(GET, refused, tmp_path, reference, "")[0] == "was done"
    (tmp_path / "report.json").write_text('{"fvu": 0.25}')
    assert judged(GET, done, tmp_path, reference, "")[0] == "differs"
    assert judged(GET, refused, tmp_path, reference, "")[0] == "not resumed"
    (tmp_path / ".report.json.4711.tmp").touch()
    assert judged(GET, done, tmp_path, reference, "")[0] == "left over"


def test_a_killed_command_is_run_again(work: Path) -> None:
    counts = Counts("kills")
    kill(counts, Budget("kills", 4, inf, 0), References(work), work, (GET,))
    assert not counts.problems and sum(counts.total.values()) == 4
    assert counts.total.keys() <= {"resumed", "was done"}


def test_damaged_files_are_refused_or_accepted(work: Path) -> None:
    assert hiersae(*GET.args(work / "base"), cwd=work / "base").returncode == 0
    counts = Counts("mutations")
    cases = tuple(case for case in CASES if case.name == "data set")
    damage(counts, Budget("mutations", 5, inf, 0), work / "base", work, cases)
    assert not counts.problems and counts.total["refused"]


@pytest.mark.parametrize(
    ("main", "seconds", "outcome"),
    [(lambda: os.kill(os.getpid(), signal.SIGKILL), inf, "signal"), (lambda: time.sleep(600), 0.1, "hang")],
)
def test_the_end_of_a_worker_is_the_outcome_of_its_command(
    main: Callable[[], None], seconds: float, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    with monkeypatch.context() as patched:
        patched.setattr("hiersae_cli.cli.main", main)
        assert worker.run(("--version",), tmp_path, seconds).outcome == outcome
    assert worker.run(("--version",), tmp_path, inf).outcome == "accepted"
    worker.close()


def test_raters_lose_no_answer_when_their_server_is_killed(tmp_path: Path) -> None:
    counts = Counts("raters")
    rate(counts, Budget("raters", 3, inf, 0), tmp_path)
    assert not counts.problems and counts.total == {"resumed": 3}
    assert counts.note.startswith("3 kills of the server")


def test_a_drill_stops_when_its_time_is_over() -> None:
    budget = Budget("kills", 100, -inf, 0)
    assert not list(budget.trials()) and budget.done == 0


def test_the_table_has_the_outcomes_of_each_part() -> None:
    counts = Counts("kills", {"lm": Counter(resumed=2, differs=1), "train": Counter(resumed=1)}, note="stopped")
    assert "| kills (stopped) | 4 | 3 |" in table([counts], details=False)
    assert "| lm | 3 | 2 |" in table([counts], details=True)
