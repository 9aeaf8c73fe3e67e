"""Ranks that are connected by ``torch.distributed``: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from hiersae_cli.distributed.launch import Launch, RankLostError, claims
from hiersae_cli.distributed.ranks import ALONE, Mesh, Ranks
from hiersae_cli.errors import HierSAEError

_PATIENCE = timedelta(seconds=50)  # for a rank that does not answer within a step
_START = timedelta(minutes=10)  # for a rank that has not started yet
_LONG = timedelta(days=7)  # for a rank that reads or writes files; one that has died is noticed at once

T = TypeVar("T")


class Job:
    """All ranks of a job: the connection, what they agree on, and how long they wait for each other.

    Attributes:
        place: of this rank.
        seconds: spent in messages so far, waiting for other ranks included.
        sent: bytes of the messages of training so far: of each that is added up, and of each that all collect from all.
    """

    def __init__(self, place: Launch, device: torch.device):
        self.place, self.seconds, self.sent = place, 0.0, 0
        self._device, self._events = device, list[tuple[Any, Any]]()
        backend = "nccl" if device.type == "cuda" else "gloo"
        with _losses():
            store, *_ = next(rendezvous("env://", place.rank, place.ranks, timeout=_START))
            # The launcher may keep the store over a restart; the addresses of the ranks before must not be read again.
            store = PrefixStore(f"start-{place.restarts}", store)
            dist.init_process_group(backend, store=store, timeout=_START, rank=place.rank, world_size=place.ranks)
            self._fast = dist.new_group(timeout=_PATIENCE)
            self._slow = dist.new_group(backend="gloo", timeout=_LONG)
        claims.append(partial(_is_first, store, "hiersae-error"))
        atexit.register(_leave)

    def mesh(self, latent_ranks: int) -> Mesh:
        """The mesh whose ranks are split ``latent_ranks`` times over latents and otherwise over rows."""
        ranks, axes = self.place.ranks, []
        by_latent = [list(range(first, first + latent_ranks)) for first in range(0, ranks, latent_ranks)]
        by_row = [list(range(first, ranks, latent_ranks)) for first in range(latent_ranks)]
        for lines in (by_row, by_latent):
            axis = ALONE
            for line in lines if len(lines[0]) > 1 else []:
                whole = len(line) == ranks
                with _losses():
                    group = self._fast if whole else dist.new_group(line, timeout=_PATIENCE)
                if self.place.rank in line:
                    axis = Group(self, group, line)
            axes.append(axis)
        return Mesh(*axes)

    def together(self, work: Callable[[], T]) -> T:
        """Do something on every rank, which may take long; if it fails on any, it fails on all."""
        error, result, own = "", None, None
        try:
            result = work()
        except RankLostError:
            raise
        except HierSAEError as failure:
            error, own = str(failure), failure
        errors = self._exchange(error)
        if own:
            raise own
        for rank, text in enumerate(errors):
            if text and isinstance(text, str):
                raise HierSAEError(f"rank {rank}: {text}")
        return result  # type: ignore[return-value]

    def said_by_first(self, value: T) -> T:
        """A value of the first rank, on all ranks."""
        return self.said_by_all(value)[0]

    def said_by_all(self, value: T) -> list[T]:
        """The value of every rank; raises ``HierSAEError`` if a rank has failed and says why instead."""
        said = self._exchange((value,))
        for rank, answer in enumerate(said):
            if isinstance(answer, str):
                raise HierSAEError(f"rank {rank}: {answer}")
        return [value for (value,) in said]

    def _exchange(self, said: Any) -> list[Any]:
        """What every rank says: a value in a tuple, or as a text why its work has failed."""
        answers: list[Any] = [None] * self.place.ranks
        with self._timed(), _losses():
            dist.all_gather_object(answers, said, group=self._slow)
        return answers

    def told_to_first(self, value: T) -> list[T]:
        """On the first rank the value of every rank; nothing on the others."""
        answers: list[Any] | None = None if self.place.rank else [None] * self.place.ranks
        with self._timed(), _losses():
            dist.gather_object(value, answers, group=self._slow)
        return answers or []

    def sum_slowly(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks of a tensor on the CPU, which changes; they may have to wait long for each other."""
        with self._timed(), _losses():
            dist.all_reduce(tensor, group=self._slow)
        return tensor

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number on all ranks."""
        tensor = torch.tensor(numbers, dtype=torch.int64, device=self._device)
        with self._timed(), _losses():
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._fast)
        return tensor.tolist()

    def at_first(self, tensor: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
        """On the first rank the tensor of every rank, one after the other; nothing on the others.

        Args:
            tensor: on the CPU; its first dimension may differ from rank to rank.
            sizes: the first dimension on every rank.
        """
        with self._timed(), _losses():
            if self.place.rank:
                dist.send(tensor.contiguous(), 0, group=self._slow)
                return []
            others = [tensor.new_empty(size, *tensor.shape[1:]) for size in sizes[1:]]
            for rank, other in enumerate(others, 1):
                dist.recv(other, rank, group=self._slow)
        return [tensor, *others]

    def time_in_messages(self) -> float:
        """Seconds spent in messages since the last call."""
        if self._events:
            torch.cuda.synchronize()
            self.seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events = []
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    @contextmanager
    def _timed(self) -> Iterator[None]:
        if self._device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((start, end))
            return
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


class Group(Ranks):
    """The ranks of one line of a mesh.

    Args:
        job: the job they belong to.
        group: of ``torch.distributed``.
        line: their numbers in the job.
    """

    def __init__(self, job: Job, group: Any, line: list[int]):
        self._job, self._group, self._line = job, group, line
        self.rank, self.count = line.index(job.place.rank), len(line)

    @torch.no_grad()
    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.contiguous()
        self._job.sent += tensor.nbytes
        with self._job._timed(), _losses():
            dist.all_reduce(tensor, group=self._group)
        return tensor

    @torch.no_grad()
    def sums(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        whole = self.sum(torch.cat([tensor.reshape(-1).float() for tensor in tensors.values()]))
        parts = whole.split([tensor.numel() for tensor in tensors.values()])
        return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}

    @torch.no_grad()
    def parts(self, tensor_n: torch.Tensor) -> list[torch.Tensor]:
        tensor_n = tensor_n.contiguous()
        sizes = tensor_n.new_zeros(self.count, dtype=torch.int64)
        sizes[self.rank] = len(tensor_n)
        lengths = self.sum(sizes).tolist()
        padded = tensor_n.new_zeros(max(lengths), *tensor_n.shape[1:])
        padded[: len(tensor_n)] = tensor_n
        gathered = [torch.empty_like(padded) for _ in lengths]
        if padded.numel():
            self._job.sent += self.count * padded.nbytes
            with self._job._timed(), _losses():
                dist.all_gather(gathered, padded, group=self._group)
        return [part[:length] for part, length in zip(gathered, lengths, strict=True)]

    def copied(self, tensor: torch.Tensor) -> torch.Tensor:
        return _Copied.apply(tensor, self)

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        return _Summed.apply(tensor, self, 1.0)

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        return _Summed.apply(tensor, self, 1 / self.count)

    @torch.no_grad()
    def from_first(self, tensor: torch.Tensor) -> None:
        with self._job._timed(), _losses():
            dist.broadcast(tensor, self._line[0], group=self._group)


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks, ctx.dtype = ranks, _message_type(tensor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.ranks.sum(gradients[0].to(ctx.dtype, copy=True)).to(gradients[0].dtype), None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, ranks: Ranks, factor: float) -> torch.Tensor:
        total = ranks.sum(tensor.to(_message_type(tensor), copy=True)).to(tensor.dtype)
        return total if factor == 1 else total * factor

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0], None, None


def _message_type(tensor: torch.Tensor) -> torch.dtype:
    """The type in which a sum is sent: that of autocast, if it is on, for all but single numbers."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if tensor.dim() and torch.is_autocast_enabled(device) else tensor.dtype


@contextmanager
def _losses() -> Iterator[None]:
    """Turn the errors of ``torch.distributed`` into one that says what has happened."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # DistBackendError, DistNetworkError and gloo's own
        if isinstance(error, RuntimeError) and "out of memory" in str(error):
            raise
        if os.environ.get("HIERSAE_DEBUG"):
            raise
        raise RankLostError(
            "another rank has ended, or has not answered for a minute", "Run the same command again to resume."
        ) from error


def _is_first(store: Any, key: str) -> bool:
    try:
        return int(store.add(key, 1)) == 1
    except RuntimeError:  # the rank that has the store has ended
        return True


def _leave() -> None:
    if dist.is_initialized():
        claims.clear()
        dist.destroy_process_group()
