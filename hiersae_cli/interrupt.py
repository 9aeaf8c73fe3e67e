"""Ctrl-C: stop a long loop between two steps, not in the middle of a step, and end a command without a traceback."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from hiersae_cli.errors import EXIT_INTERRUPTED, HierSAEError

_RETRY_AFTER = 0.01  # seconds
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


def begin_interruptible() -> None:
    """Make the first Ctrl-C of this process raise ``KeyboardInterrupt``, and the second one end it at once.

    So a clean-up after the first one is never cut off by a second exception, whose traceback Python would print. A
    process that ignores Ctrl-C, such as one in the background, goes on doing so.
    """
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _repeat_interrupt


def was_interrupted() -> bool:
    """Whether the first Ctrl-C has come. NumPy and others can turn its exception into one of their own."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def end_interruptible() -> None:
    """Ignore Ctrl-C from now on: the work is done, and Python would print a traceback while it shuts down."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _torch_is_starting():  # its C++ code ends the process at a Python exception
        _interrupt_later()
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _torch_is_starting() -> bool:
    return getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False)


def _repeat_interrupt(error: sys.UnraisableHookArgs) -> None:
    """Raise ``KeyboardInterrupt`` again a little later if Python discarded it, as in ``__del__``."""
    if not issubclass(error.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(error)
    elif signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, _interrupt)
        _interrupt_later()


def _interrupt_later() -> None:
    again = threading.Timer(_RETRY_AFTER, _send_interrupt)
    again.daemon = True
    again.start()


def _send_interrupt() -> None:
    if hasattr(signal, "pthread_kill"):  # which ends a wait, too
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:  # Windows
        _thread.interrupt_main()
