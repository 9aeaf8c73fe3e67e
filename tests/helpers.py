"""What several test files need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from hiersae_cli.console import Console

# One thread: the models of the tests are so small that more of them only wait for each other.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "PYTHONUTF8": "1",
}


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
) -> subprocess.CompletedProcess[str]:
    """Run ``hiersae ARGS`` in a process of its own, with ``input`` on standard input; output comes as text."""
    data = input.encode() if isinstance(input, str) else input
    done = subprocess.run(
        command(*args),
        input=b"" if data is None else data,
        capture_output=True,
        env=environment(env),
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
