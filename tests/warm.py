"""Runs commands in forks of a process that has imported torch and every workflow, which saves seconds for each.

    python -m tests.warm

reads a line of JSON for each command: ``args``, ``env``, ``cwd``, the files ``stdin``, ``stdout`` and ``stderr``, and
the named pipe ``status``, which gets the process id when the command starts and its exit code (negative for a signal)
when it ends. Commands may run at the same time. See ``helpers``.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import threading
import traceback
from typing import Any, NoReturn

from tests.kills import count_into, kill_at


def serve() -> None:
    """Answer requests until standard input ends."""
    import_all()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a command has words for it, as in hiersae_cli/__main__.py
    for line in sys.stdin:
        while _ended():
            pass
        if not os.fork():
            _watch(json.loads(line))


def import_all() -> None:
    """Import every workflow, and what they import."""
    import transformers.models.gpt2.modeling_gpt2

    import hiersae_cli

    assert transformers
    for module in pkgutil.walk_packages(hiersae_cli.__path__, "hiersae_cli."):
        if module.name not in ("hiersae_cli.__main__", "hiersae_cli.saelens", "hiersae_cli.sae.kernels.grouped_triton"):
            importlib.import_module(module.name)
    _parse_flags()
    gc.freeze()


def _parse_flags() -> None:
    """Have typer make the commands and import what it parses flags with, which takes it longer than many commands."""
    import typer.main

    from hiersae_cli.cli.app import app
    from hiersae_cli.errors import UsageError

    typer.main.get_command = functools.cache(typer.main.get_command)  # type: ignore[assignment]
    with contextlib.suppress(UsageError):
        app(["info", "no such file"], standalone_mode=False)


def _ended() -> bool:
    """Whether a command has ended that had not been waited for."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def _watch(request: dict[str, Any]) -> None:
    """Start a command, and end when it ends."""
    pid = os.fork()
    if not pid:
        _run(request)
    with open(request["status"], "w") as status:
        print(pid, file=status, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=status)
    os._exit(0)


def _run(request: dict[str, Any]) -> None:
    """Be the command, and end this process as it would end."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY if number else os.O_RDONLY), number)
    sys.stdin = os.fdopen(0, encoding="utf-8")
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["hiersae", *request["args"]]
    if "HIERSAE_KILL_AT" in os.environ:
        kill_at(os.environ["HIERSAE_KILL_AT"])
    if "HIERSAE_COUNT_INTO" in os.environ:
        count_into(os.environ["HIERSAE_COUNT_INTO"])
    run_and_exit()


def run_and_exit() -> NoReturn:
    """Run the command of ``sys.argv``, and end this process as it would end."""
    from hiersae_cli.cli import main

    code = 1
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
