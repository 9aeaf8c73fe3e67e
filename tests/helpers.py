"""What several test files need."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from hiersae_cli.console import Console

PATIENCE = 600.0  # seconds that a command may take: a busy machine is slow, and no failure

# One thread: the models of the tests are so small that more of them only wait for each other.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "PYTHONUTF8": "1",
}
# Read when they are needed; a process that has imported everything may have read others.
_READ_LATE = {"COLUMNS", "LINES", "PYTEST_CURRENT_TEST", "HIERSAE_KILL_AT", "HIERSAE_COUNT_INTO"}
_READ_LATE |= {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"}


def command(*args: object) -> list[str]:
    """The command line ``hiersae ARGS`` with the Python that runs the tests."""
    return [sys.executable, "-m", "hiersae_cli", *map(str, args)]


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, offline and with one thread, and ``env`` on top."""
    return {**os.environ, **ENVIRONMENT, **(env or {})}


def hiersae(
    *args: object,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: object = None,
    timeout: float = PATIENCE,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run ``hiersae ARGS`` in a process of its own, with ``input`` on standard input; output comes as text.

    The process is a fork of one that has imported everything, as of ``start``. It begins with nothing imported if it is
    to be ``fresh``, if ``env`` has what is read on import, or if ``HIERSAE_FRESH`` is set.
    """
    data = input.encode() if isinstance(input, str) else input or b""
    whole = environment(env)
    if not fresh and "HIERSAE_FRESH" not in whole and _warm().suits(whole):
        started = Started(args, data, whole, cwd)
        try:
            out, err = started.communicate(timeout)
        finally:
            started.kill()
        return subprocess.CompletedProcess(command(*args), started.wait(), out, err)
    done = subprocess.run(
        command(*args),
        input=data,
        capture_output=True,
        env=whole,
        cwd=None if cwd is None else str(cwd),
        timeout=timeout,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def killed(at: str, *args: object) -> bool:
    """Run ``hiersae ARGS`` and kill it at ``at``, as in ``kills.py``; whether it got there before it ended."""
    started = Started(args, b"", environment({"HIERSAE_KILL_AT": at}), None)
    started.communicate()
    return started.wait() == -signal.SIGKILL


class Said(Console):
    """A console that keeps what a command says and warns of in ``text``."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.text = ""

    def say(self, message: str = "") -> None:
        self.text += message + "\n"

    def warn(self, message: str) -> None:
        self.text += f"warning: {message}\n"


def start(*args: object, env: Mapping[str, str] | None = None, cwd: object = None) -> Started:
    """Start ``hiersae ARGS`` as a fork of a process that has imported everything, which saves seconds."""
    return Started(args, b"", environment(env), cwd)


class Started:
    """A command that is running, or has ended: as much of ``subprocess.Popen`` as the tests need.

    Attributes:
        pid: of the process.
        returncode: once it is known that the process has ended.
    """

    def __init__(self, args: Sequence[object], data: bytes, env: Mapping[str, str], cwd: object):
        self.returncode: int | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="hiersae-test")
        files = {name: Path(self._folder.name) / name for name in ("stdin", "stdout", "stderr", "status")}
        for name in ("stdin", "stdout", "stderr"):
            files[name].write_bytes(data if name == "stdin" else b"")
        os.mkfifo(files["status"])
        self._out, self._err = files["stdout"], files["stderr"]
        paths = {name: str(file) for name, file in files.items()}
        _warm().ask({"args": list(map(str, args)), "env": dict(env), "cwd": str(cwd or os.getcwd()), **paths})
        self._status = os.open(files["status"], os.O_RDONLY | os.O_NONBLOCK)  # there is no writer yet
        self.pid = self._number()

    def _number(self) -> int:
        """The next line of the status, which is written at once."""
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([self._status], [], [], PATIENCE)[0] or not (byte := os.read(self._status, 1)):
                raise RuntimeError("tests/warm.py does not answer")
            text += byte
        return int(text)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; ``subprocess.TimeoutExpired`` if there is none in time."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = self._number()
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while the command is running."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def errors(self) -> str:
        """Standard error so far."""
        return self._err.read_text(encoding="utf-8", errors="replace")

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and standard error, when the command has ended."""
        self.wait(timeout)
        return self._out.read_text(encoding="utf-8"), self._err.read_text(encoding="utf-8")


class _Warm:
    """The process of ``warm.py``, which ends with this one."""

    def __init__(self) -> None:
        self._environment = environment()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=Path(__file__).parent.parent,
            env=self._environment,
            stdin=subprocess.PIPE,
        )

    def suits(self, env: Mapping[str, str]) -> bool:
        """Whether a command may run in an environment that was another one when the process was started."""
        before = self._environment
        return {name for name in {*env, *before} if env.get(name) != before.get(name)} <= _READ_LATE

    def ask(self, request: Mapping[str, object]) -> None:
        """Have a command started."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()


@cache
def _warm() -> _Warm:
    return _Warm()
