"""Kills a process at a chosen operation on files, as ``kill -9`` might.

``kill_at("EVENT:NAME:COUNT")`` kills this process just before its COUNT-th operation EVENT on a path that contains
NAME. EVENT is one of ``EVENTS``, or ``any``. ``EVENT:NAME:COUNT:SIGNAL`` sends the signal of this number instead.
``count_into`` writes how many operations a process has carried out.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable

EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate")  # of Python's audit


def kill_at(place: str) -> None:
    """Arrange that this process is killed at ``place``."""
    event_name, name, count, number = (*place.split(":"), signal.SIGKILL)[:4]
    remaining = int(count)

    def note(event: str, paths: str) -> None:
        nonlocal remaining
        if event_name in (event, "any") and name in paths:
            remaining -= 1
            if not remaining:
                os.kill(os.getpid(), int(number))

    _watch(note)


def count_into(file: str) -> None:
    """Arrange that ``file`` gets the number of operations of this process when it ends."""
    count = 0

    def note(event: str, paths: str) -> None:
        nonlocal count
        count += 1

    def write() -> None:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)
        os.write(handle, str(count).encode())
        os.close(handle)

    _watch(note)
    atexit.register(write)


def _watch(note: Callable[[str, str], None]) -> None:
    """Call ``note`` with each operation of ``EVENTS`` that changes files, and with its paths."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in EVENTS:
            return
        if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
            return
        note(event, " ".join(map(str, arguments[:2])))

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
