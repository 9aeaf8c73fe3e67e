"""``hiersae cache`` under ``torchrun``: each rank writes one shard, and the first joins them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiersae_cli.config.cache import CacheConfig, JoinConfig
from hiersae_cli.console import Console, Mute
from hiersae_cli.distributed.launch import Launch
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import Activations
from hiersae_cli.formats.atomic import refuse_existing
from hiersae_cli.host.text import fingerprints
from hiersae_cli.workflows.cache.join import run as join

# Writes one shard. The third argument chooses the batch of all ranks, given the batch that this rank would take.
Shard = Callable[[CacheConfig, Console, Callable[[int, bool], int]], dict[str, Any]]


def run_by_ranks(config: CacheConfig, console: Console, place: Launch, write_shard: Shard) -> dict[str, Any]:
    """Cache in as many shards as there are ranks; resumes where each of them stopped.

    Raises ``UsageError`` with ``--shard``, and what ``write_shard`` and ``join`` raise.
    """
    import torch

    from hiersae_cli.distributed.group import Job

    if config.shard:
        raise UsageError(f"--shard {config.shard}: under torchrun each rank writes one shard", "Leave --shard out.")
    job, console = Job(place, torch.device("cpu")), console if place.rank == 0 else Mute()
    job.together(lambda: refuse_existing(config.out, config.overwrite) if place.rank == 0 else None)
    shards = [shard_path(config.out, rank, place.ranks) for rank in range(place.ranks)]
    own = replace(config, out=str(shards[place.rank]), shard=f"{place.rank + 1}/{place.ranks}")

    def batch_of_all(batch: int, chosen: bool) -> int:
        """The batch of all shards: that of one begun earlier, else the smallest that a rank has memory for."""
        batches = job.said_by_all((batch, chosen))
        return min([batch for batch, chosen in batches if chosen] or [batch for batch, _ in batches])

    def write() -> None:
        header = _finished(own)
        if header:
            console.say(f"{own.out}: done already")
            batch_of_all(header["batch"], True)
        else:
            write_shard(own, console, batch_of_all)

    job.together(write)
    joined = JoinConfig(shards=[str(path) for path in shards], out=config.out, overwrite=config.overwrite)
    return job.said_by_first(job.together(lambda: join(joined, console) if place.rank == 0 else {}))


def shard_path(out: str, rank: int, ranks: int) -> Path:
    """The file of a rank's shard: ``acts-1-of-4.h5`` for ``acts.h5``."""
    path = Path(out)
    return path.with_name(f"{path.stem}-{rank + 1}-of-{ranks}{path.suffix}")


def _finished(config: CacheConfig) -> dict[str, Any] | None:
    """The header of the shard that the same command has finished, if it has."""
    if config.overwrite or not Path(config.out).exists():
        return None
    with suppress(FileError), Activations(config.out) as acts:
        header: dict[str, Any] = acts.header
        saved = {key: value for key, value in header["config"].items() if key in config.recorded()}
        if saved == config.recorded() and list(header["inputs"].values()) == list(fingerprints(config.texts).values()):
            return header
    return None
