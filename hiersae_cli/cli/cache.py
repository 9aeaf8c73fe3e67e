"""``hiersae cache`` and ``hiersae join``."""

from __future__ import annotations

from hiersae_cli.config import CacheConfig, JoinConfig
from hiersae_cli.console import Console


def cache(config: CacheConfig, console: Console) -> None:
    """Write a language model's activations on a text. They go to an HDF5 file."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.cache import run

    result = run(config, console)
    console.result(result, "")
    if not config.shard:
        console.next(advice.after_cache(config.out, result))


def join(config: JoinConfig, console: Console) -> None:
    """Join the shards of a cache. The file that is written reads as one."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.cache import run_join

    result = run_join(config, console)
    console.result(result, "")
    console.next(advice.after_cache(config.out, result))
