"""Kills a process at a chosen operation on files, as a power cut or ``kill -9`` might.

``kill_at("EVENT:NAME:COUNT")`` kills this process just before its COUNT-th operation EVENT on a path that contains
NAME. EVENT is one of ``EVENTS``, or ``any``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate")  # of Python's audit


def kill_at(place: str) -> None:
    """Arrange that this process is killed at ``place``."""
    event_name, name, count = place.rsplit(":", 2)
    remaining = int(count)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal remaining
        if event not in EVENTS or event_name not in (event, "any"):
            return
        if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
            return
        if name in " ".join(map(str, arguments[:2])):
            remaining -= 1
            if not remaining:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def was_killed(place: str, work: Callable[[], object]) -> bool:
    """Do ``work`` in a fork of this process that is killed at ``place``; whether it got there before it ended."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            kill_at(place)
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0
