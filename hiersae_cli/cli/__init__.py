"""The command line: the table of verbs, their flags and help, and the only place where an error becomes an exit.

Nothing heavy is imported here; a verb imports its workflow when it runs.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from hiersae_cli.errors import EXIT_INTERRUPTED, FileError, HierSAEError, from_os_error, unexpected
from hiersae_cli.interrupt import Interrupted, begin_interruptible, end_interruptible, was_interrupted


def main(before: Callable[[], object] | None = None) -> None:
    """Run ``hiersae``; never returns. ``before`` is called first; its errors end the command in the same way."""
    try:
        try:
            begin_interruptible()
            _run(before)
        finally:
            end_interruptible()
    except KeyboardInterrupt:
        _stop(Interrupted("interrupted"))


def _run(before: Callable[[], object] | None) -> None:
    try:
        from hiersae_cli.console import steady_streams

        steady_streams()
        if before:
            before()
        from hiersae_cli.cli.app import app

        app(prog_name="hiersae", standalone_mode=True)
    except HierSAEError as error:
        _stop(error)
    except BrokenPipeError:
        # The reader of our output has gone (… | head), so there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        _stop(from_os_error(error))
    except MemoryError:
        _stop(HierSAEError("out of memory", "Use a smaller --batch or --buffer."))
    except Exception as error:
        if _is_from_interrupt(error) or was_interrupted():
            _stop(Interrupted("interrupted"))
        if isinstance(error, ImportError) and any(words in str(error) for words in _NO_ROOM_FOR_LIBRARIES):
            _stop(
                HierSAEError("out of memory while the libraries were loaded", "Raise the limit: ulimit -v unlimited.")
            )
        if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from "):  # of pathlib
            _stop(FileError(str(error), "Check the path."))
        if isinstance(error, _KINDS) and any(words in str(error) for words in _OUT_OF_MEMORY):
            _stop(HierSAEError(f"out of memory: {str(error).splitlines()[0]}", "Use a smaller --batch."))
        _stop(unexpected(error))


_NO_ROOM_FOR_LIBRARIES = ("failed to map segment", "annot allocate memory")
_KINDS = (RuntimeError, ValueError, OverflowError)
_OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory"),
    *("Maximum allowed dimension exceeded", "array is too big", "too large to convert", "too big to convert"),
)


def _is_from_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C is behind an error: Python reports one that comes during an import in other words."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _stop(error: HierSAEError) -> None:
    """Print why the command ends and exit; an interruption is not reported as an error.

    If ``HIERSAE_DEBUG`` is set, the traceback comes first.
    """
    from hiersae_cli.console import write_line
    from hiersae_cli.distributed.launch import reports

    if os.environ.get("HIERSAE_DEBUG"):
        traceback.print_exc()
    if reports(error):
        write_line(str(error) if error.exit_code == EXIT_INTERRUPTED else f"error: {error}", sys.stderr)
    sys.exit(error.exit_code)
