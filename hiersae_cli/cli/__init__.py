"""The command line: the table of verbs, their flags and help, and the only place where an error becomes an exit.

Nothing heavy is imported here; a verb imports its workflow when it runs.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from hiersae_cli.errors import EXIT_INTERRUPTED, HierSAEError, from_os_error, unexpected


def main(before: Callable[[], object] | None = None) -> None:
    """Run ``hiersae``; never returns. ``before`` is called first; its errors end the command in the same way."""
    from hiersae_cli.console import steady_streams

    steady_streams()
    try:
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
        full = isinstance(error, RuntimeError) and ("out of memory" in str(error) or "can't allocate" in str(error))
        if full:
            _stop(HierSAEError(f"out of memory: {str(error).splitlines()[0]}", "Use a smaller --batch."))
        _stop(unexpected(error))


def _stop(error: HierSAEError) -> None:
    """Print why the command ends and exit; an interruption is not reported as an error.

    If ``HIERSAE_DEBUG`` is set, the traceback comes first.
    """
    if os.environ.get("HIERSAE_DEBUG"):
        traceback.print_exc()
    print(error if error.exit_code == EXIT_INTERRUPTED else f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
