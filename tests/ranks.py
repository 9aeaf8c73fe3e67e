"""Several ranks for tests: forks of this process that run a function, or forks of ``warm`` that run a command."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.helpers import PATIENCE, Started, start


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def places(ranks: int) -> list[dict[str, str]]:
    """The environment that a launcher would give each rank."""
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def on_ranks(ranks: int, function: Callable[[], Any]) -> list[Any]:
    """What a function returns on each rank; fails if it raises on any."""
    with tempfile.TemporaryDirectory(prefix="hiersae-test") as folder:
        pids = []
        for rank, place in enumerate(places(ranks)):
            pid = os.fork()
            if not pid:
                _be(place, function, Path(folder) / str(rank))
            pids.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert codes == [0] * ranks, codes
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(ranks)]


def _be(place: dict[str, str], function: Callable[[], Any], answer: Path) -> None:
    """Be a rank, and end this process."""
    code = 1
    try:
        os.environ.update(place)
        torch.set_num_threads(1)
        answer.write_bytes(pickle.dumps(function()))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def torchrun(ranks: int, *args: object, restarts: int = 0, module: str = "hiersae_cli") -> list[str]:
    """The command line that has the real launcher run ``hiersae ARGS`` as several ranks."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launch, "--max-restarts", str(restarts), "-m", module, *map(str, args)]


def start_ranks(ranks: int, *args: object, env: dict[str, str] | None = None) -> list[Started]:
    """Start ``hiersae ARGS`` as several ranks."""
    return [start(*args, env={**place, **(env or {})}) for place in places(ranks)]


def run_ranks(ranks: int, *args: object) -> list[tuple[int, str, str]]:
    """Run ``hiersae ARGS`` as several ranks; the exit code, standard output and standard error of each."""
    processes = start_ranks(ranks, *args)
    answers = []
    for process in processes:
        out, err = process.communicate(PATIENCE)
        answers.append((process.wait(), out, err))
    return answers
