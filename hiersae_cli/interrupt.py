"""Stop a long loop between two steps, not in the middle of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hiersae_cli.errors import EXIT_INTERRUPTED, HierSAEError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what schedulers send before they kill


class Interrupted(HierSAEError):
    """The user or the scheduler asked to stop; the work so far is saved."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str):
        super().__init__(message, "Run the same command again to resume.")


@contextmanager
def stoppable(second_stops: bool = True) -> Iterator[Callable[[], bool]]:
    """Within this context, a first Ctrl-C or SIGTERM only makes the returned function true; a second stops at once.

    Without ``second_stops`` it does not: a launcher such as ``torchrun`` passes on a Ctrl-C that the process has
    received already, and kills it if it does not end.
    """
    stop_requested = False

    def request_stop(number: int, frame: FrameType | None) -> None:
        nonlocal stop_requested
        stop_requested = True
        if second_stops:
            restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, request_stop) for number in _SIGNALS}
    try:
        yield lambda: stop_requested
    finally:
        restore()
