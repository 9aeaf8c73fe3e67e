"""What ``torchrun`` tells a process about the job it belongs to. Nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from hiersae_cli.errors import EXIT_USAGE, HierSAEError

_NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """The place of this process.

    Attributes:
        rank, ranks: its number and how many there are.
        local_rank: its number on this machine.
        restarts: how often the launcher has started all ranks again.
    """

    rank: int
    ranks: int
    local_rank: int
    restarts: int


def launched() -> Launch | None:
    """The place that a launcher such as ``torchrun`` gave this process; None for a process by itself."""
    if not all(os.environ.get(name) for name in _NAMES):
        return None
    try:
        rank, ranks, local_rank, restarts = (
            int(os.environ.get(name) or 0)
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
        )
    except ValueError:
        return None
    return Launch(rank, ranks, local_rank, restarts) if ranks > 1 else None


class RankLostError(HierSAEError):
    """Another rank has ended or does not answer."""


# Set once the ranks are connected: whether this rank is the first to report an error.
claims: list[Callable[[], bool]] = []


def reports(error: HierSAEError) -> bool:
    """Whether this process is the one to print an error that ends all ranks."""
    place = launched()
    if place is None:
        return True
    if claims:
        return claims[-1]()
    return place.rank == 0 or error.exit_code != EXIT_USAGE  # all ranks have the same flags
