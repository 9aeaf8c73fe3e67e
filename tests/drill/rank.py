"""``torchrun`` whose ranks are forks, which saves the imports, and one of which is killed at a chosen moment.

``HIERSAE_KILL_RANK`` is RANK@MOMENT: this rank is killed at this moment, unless the launcher has started it again.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests import warm
from tests.kills import kill_at


def arrange(moment: str) -> None:
    """Arrange that this process is killed at ``moment``.

    That is ``start``, ``connecting``, ``last`` (the messages after the last step), ``end`` (when all is done),
    ``message:COUNT``, ``agreement:COUNT``, or an operation on files as for ``kill_at``.
    """
    event, _, count = moment.partition(":")
    if moment == "start":
        _die()
    elif moment == "connecting":
        _on_call("init_process_group", 1)
    elif moment == "last":
        from hiersae_cli.sae.training import Trainer

        Trainer.calibrate = _die  # type: ignore[method-assign]
    elif moment == "end":
        atexit.register(_die)  # what is registered first is called last
    elif event in ("message", "agreement"):
        _on_call("all_reduce" if event == "message" else "all_gather_object", int(count))
    else:
        kill_at(moment)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _on_call(name: str, count: int) -> None:
    """Die at the ``count``-th call of a function of ``torch.distributed``."""
    import torch.distributed

    function: Callable[..., Any] = getattr(torch.distributed, name)
    remaining = count

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal remaining
        remaining -= 1
        if not remaining:
            _die()
        return function(*args, **options)

    setattr(torch.distributed, name, counted)


class Forked(subprocess.Popen[bytes]):
    """A fork of this process that runs ``hiersae ARGS`` as a rank; the launcher takes it for a command."""

    def __init__(self, words: tuple[str, ...], env: dict[str, str]):
        self.args, self.returncode = words, None
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock, self._sigint_wait_secs = threading.Lock(), 0.0
        self._child_created, self._communication_started = True, False
        self.pid = os.fork()
        if not self.pid:
            _be_a_rank(words[words.index("-m") + 2 :], env)


def _be_a_rank(args: tuple[str, ...], env: dict[str, str]) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # the launcher has its own
        signal.signal(number, signal.SIG_DFL)
    atexit._clear()
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["hiersae", *args]
    victim, _, moment = env.get("HIERSAE_KILL_RANK", "").partition("@")
    if victim == env["RANK"] and env["TORCHELASTIC_RESTART_COUNT"] == "0":
        arrange(moment)
    warm.run_and_exit()


def launch(words: list[str]) -> None:
    """Be ``torchrun WORDS``."""
    import torch.distributed.run
    from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

    SubprocessHandler._popen = lambda self, args, env: Forked(args, env)  # type: ignore[method-assign]
    torch.distributed.run.main(words)
