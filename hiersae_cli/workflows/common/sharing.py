"""Work on the rows of caches that ranks share: each takes some of the batches, and the first one writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from hiersae_cli.console import Console, Mute
from hiersae_cli.distributed.launch import Launch, launched

T = TypeVar("T")


class Sharing:
    """A process by itself, which takes all batches.

    Attributes:
        rank, count: the number of this rank, and how many there are.
        local_rank: its number on this machine.
    """

    rank, count, local_rank = 0, 1, 0

    @property
    def writes(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    def takes(self, number: int) -> bool:
        """Whether this rank works on the batch of this number."""
        return number % self.count == self.rank

    def console(self, console: Console | None) -> Console:
        """The console of this rank."""
        return console or Console.silent()

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank; if it fails on any, it fails on all."""
        return work()

    def of_all(self, value: T) -> list[T]:
        """The value of every rank."""
        return [value]

    def at_first(self, value: T) -> list[T]:
        """On the first rank the value of every rank; nothing on the others."""
        return [value]

    def add_up(self, *sums: Any) -> None:
        """Replace sums over the rows of this rank by those over the rows of all, in place.

        Each has an attribute ``summed``: the names of its numbers, arrays and tensors on the CPU that are sums, of
        lists and dictionaries of them, and of objects that have such an attribute too.
        """


class RanksSharing(Sharing):
    """One of several ranks, see ``Sharing``."""

    def __init__(self, place: Launch):
        from hiersae_cli.distributed.group import Job

        self.rank, self.count, self.local_rank = place.rank, place.ranks, place.local_rank
        self._job: Job = Job(place, torch.device("cpu"))

    def console(self, console: Console | None) -> Console:
        return super().console(console) if self.writes else Mute()

    def together(self, work: Callable[[], T]) -> T:
        return self._job.together(work)

    def of_all(self, value: T) -> list[T]:
        return self._job.said_by_all(value)

    def at_first(self, value: T) -> list[T]:
        return self._job.told_to_first(value)

    def add_up(self, *sums: Any) -> None:
        for value in sums:
            self._total(value)

    def _total(self, value: Any) -> Any:
        """The sum of a value over the ranks; arrays, tensors and objects are changed in place."""
        if isinstance(value, torch.Tensor):
            return value.copy_(self._job.sum_slowly(value))
        if isinstance(value, np.ndarray):
            value[...] = self._job.sum_slowly(torch.from_numpy(value.copy())).numpy()
        elif isinstance(value, (int, float)):
            return type(value)(self._job.sum_slowly(torch.tensor(float(value), dtype=torch.float64)).item())
        elif isinstance(value, (list, dict)):
            for part in value.values() if isinstance(value, dict) else value:
                self._total(part)
        else:
            for name in value.summed:
                setattr(value, name, self._total(getattr(value, name)))
        return value


def sharing() -> Sharing:
    """The ranks that this process works with, as its launcher says."""
    place = launched()
    return RanksSharing(place) if place else Sharing()
