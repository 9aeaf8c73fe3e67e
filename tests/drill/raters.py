"""Many raters of a study at once, while its server is killed again and again."""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from hiersae_cli.formats.study import Links, load_study
from hiersae_cli.study.protocol import EDGE, EXAMPLE
from hiersae_cli.workflows.study.run import open_store
from tests.drill.chain import PATIENCE
from tests.drill.outcomes import Budget, Counts
from tests.fake_study import make_study
from tests.helpers import Started, start
from tests.test_study_web import rate_at_once

KILLS = 3
_ATTEMPTS = 100  # servers close idle connections, and a browser then opens another one


def rate(counts: Counts, budget: Budget, work: Path) -> None:
    """Have as many raters as there are trials answer all items, each answer sent twice.

    The server gets SIGKILL when a quarter, a half and three quarters of the answers are acknowledged. In the end, every
    rater must have one answer to each item, and so the acknowledged ones among them.
    """
    folder = work / "trials" / "raters"
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_study(folder, sets=2, raters=budget.count, tasks=(EXAMPLE, EDGE), checks=1)
    tokens, study = Links(folder).raters, load_study(folder)
    expected = len(tokens) * len(study.items)
    acknowledged: list[tuple[str, str]] = []
    one_at_a_time = threading.Lock()
    for phase in range(1, KILLS + 2):
        server, address = _serve(folder)
        enough = expected * phase // (KILLS + 1)

        def note(
            token: str, item: str, server: Started = server, enough: int = enough, last: bool = phase > KILLS
        ) -> None:
            with one_at_a_time:
                acknowledged.append((token, item))
                if len(acknowledged) >= enough and not last:
                    server.kill()

        for _ in range(_ATTEMPTS):
            failed = rate_at_once(address, tokens, note)
            if not failed or server.poll() is not None:
                break
        if phase <= KILLS:
            server.kill()
            server.wait(PATIENCE)
    server.send_signal(signal.SIGTERM)
    server.communicate(PATIENCE)
    store = open_store(study, "")
    kept = Counter((tokens[answer.rater], answer.item) for answer in store.answers())
    store.close()
    for token in tokens:
        lost = {place for place in acknowledged if place[0] == token} - kept.keys()
        numbers = [kept[token, item] for item in study.items]
        outcome = "resumed" if not lost and set(numbers) == {1} else "differs"
        counts.add("study serve", outcome, f"rater {tokens.index(token)}", f"{numbers}, lost: {sorted(lost)}\n{failed}")
    budget.done = len(tokens)
    counts.note = f"{KILLS} kills of the server, {len(acknowledged):,} acknowledged answers"
    shutil.rmtree(folder)


def _serve(folder: Path) -> tuple[Started, str]:
    """A server of the study, and its address."""
    server, end = start("study", "serve", folder, "--port", 0), time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        if address := re.search(r"serving at (http://\S+?)/? ", server.errors()):
            return server, address[1]
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {server.errors()}")
