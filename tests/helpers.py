"""What several test files need."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hiersae_cli.console import Console

# One thread: the models of the tests are so small that more of them only wait for each other.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "PYTHONUTF8": "1",
}
# Read when they are needed; a process that has imported everything may have read others.
_READ_LATE = {"COLUMNS", "LINES", "PYTEST_CURRENT_TEST"}


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
    timeout: float = 120,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run ``hiersae ARGS`` in a process of its own, with ``input`` on standard input; output comes as text.

    The process is a fork of one that has imported everything (``warm.py``), which saves seconds. It is started from
    nothing if it is to be ``fresh``, ``env`` has what is read on import, or ``HIERSAE_FRESH`` is set.
    """
    data = input.encode() if isinstance(input, str) else input or b""
    whole = environment(env)
    if not fresh and "HIERSAE_FRESH" not in whole and _warm().suits(whole):
        return _warm().run(list(map(str, args)), data, whole, str(cwd or os.getcwd()), timeout)
    done = subprocess.run(
        command(*args),
        input=data,
        capture_output=True,
        env=whole,
        cwd=None if cwd is None else str(cwd),
        timeout=timeout,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


class Said(Console):
    """A console that keeps what a command says and warns of in ``text``."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.text = ""

    def say(self, message: str = "") -> None:
        self.text += message + "\n"

    def warn(self, message: str) -> None:
        self.text += f"warning: {message}\n"


class _Warm:
    """The process of ``warm.py``, which ends with this one."""

    def __init__(self) -> None:
        self._environment = environment()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=Path(__file__).parent.parent,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def suits(self, env: Mapping[str, str]) -> bool:
        """Whether a command may run in an environment that was another one when the process was started."""
        before = self._environment
        return {name for name in {*env, *before} if env.get(name) != before.get(name)} <= _READ_LATE

    def run(
        self, args: list[str], data: bytes, env: Mapping[str, str], cwd: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        with self._lock, tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / name for name in ("stdin", "stdout", "stderr")}
            for file in files.values():
                file.write_bytes(data if file.name == "stdin" else b"")
            request = {"args": args, "env": env, "cwd": cwd, **{name: str(file) for name, file in files.items()}}
            assert self._process.stdin and self._process.stdout
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
            late = not select.select([self._process.stdout], [], [], timeout)[0]
            if late:
                os.kill(pid, signal.SIGKILL)
            code = int(self._process.stdout.readline())
            out, err = (files[name].read_bytes().decode() for name in ("stdout", "stderr"))
        if late:
            raise subprocess.TimeoutExpired(args, timeout, out, err)
        return subprocess.CompletedProcess(command(*args), code, out, err)


@cache
def _warm() -> _Warm:
    return _Warm()
