"""A fork of this process that runs commands one after another: damaged files need many, and each takes little time."""

from __future__ import annotations

import functools
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

from tests.drill.outcomes import MEMORY, Ended
from tests.helpers import ENVIRONMENT


class Worker:
    """Runs commands under limits of time and memory; a command that ends its process gets a new one for the next."""

    def __init__(self) -> None:
        self._pid = 0
        self._errors = Path(tempfile.mkstemp(prefix="hiersae-drill")[1])

    def run(self, args: tuple[str, ...], folder: Path, seconds: float) -> Ended:
        """Run ``hiersae ARGS`` in ``folder``; end it after ``seconds``, or if it takes more than 2 GB."""
        if not self._pid:
            self._start()
        began = time.monotonic()
        os.write(self._requests, json.dumps([args, str(folder)]).encode() + b"\n")
        waited, limit = _waited(self._pid), ""
        while not select.select([self._replies], [], [], 0.05)[0]:
            # Time in the queue for a processor does not count: a busy machine is no hang.
            late = time.monotonic() - began - (_waited(self._pid) - waited) > seconds
            limit = "memory" if _memory(self._pid) > MEMORY else "hang" if late else ""
            if limit:
                os.kill(self._pid, signal.SIGKILL)
                break
        reply = b"" if limit else os.read(self._replies, 100)
        passed, errors = time.monotonic() - began, self._errors.read_text(encoding="utf-8", errors="replace")
        if not reply:
            return Ended(self._end(), errors, limit, passed)
        code, peak = map(int, reply.split())
        if peak > MEMORY:
            self.close()
        return Ended(code, errors, "memory" if peak > MEMORY else "", passed)

    def close(self) -> None:
        """End the process."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._end()
        self._errors.unlink(missing_ok=True)

    def _start(self) -> None:
        request, self._requests = os.pipe()
        self._replies, reply = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._requests)
            os.close(self._replies)
            _serve(request, reply, self._errors)
        os.close(request)
        os.close(reply)

    def _end(self) -> int:
        """Wait for the end of the process; returns its code."""
        pid, self._pid = self._pid, 0
        os.close(self._requests)
        os.close(self._replies)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _waited(pid: int) -> float:
    """Seconds that a process has waited for a processor."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def _memory(pid: int) -> int:
    """Bytes of memory that a process has."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0


def _serve(requests: int, replies: int, errors: Path) -> None:
    """Be the process; never returns."""
    try:
        os.environ.update(ENVIRONMENT)
        import typer.main

        from hiersae_cli.cli import main

        typer.main.get_command = functools.cache(typer.main.get_command)  # type: ignore[assignment]
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        gc.freeze()
        for line in os.fdopen(requests):
            args, folder = json.loads(line)
            opened = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, 2)
            os.close(opened)
            os.chdir(folder)
            sys.argv = ["hiersae", *args]
            code = 1
            try:
                main()
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            gc.collect()  # files that an error holds open
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            os.write(replies, f"{code} {peak}\n".encode())
    finally:
        os._exit(1)
