"""Stopping between two steps of a long loop instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hiersae_cli.errors import EXIT_INTERRUPTED, HierSAEError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what schedulers send before they kill


class Interrupted(HierSAEError):
    """The user or the scheduler asked to stop; what was done is kept."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str):
        super().__init__(message, "Run the same command again to resume.")


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Within the block, a first Ctrl-C or SIGTERM only makes the given function return True; a second acts as ever."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield lambda: asked
    finally:
        restore()
