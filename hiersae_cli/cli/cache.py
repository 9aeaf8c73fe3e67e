"""``hiersae cache`` and ``hiersae join``."""

from __future__ import annotations

from hiersae_cli.config import CacheConfig, JoinConfig
from hiersae_cli.console import Console


def cache(config: CacheConfig, console: Console) -> None:
    """Run a language model over a text and write its activations to an HDF5 file."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.cache import run

    result = run(config, console)
    console.result(result, "")
    if not config.shard:
        console.next(advice.after_cache(config.out, result))


def join(config: JoinConfig, console: Console) -> None:
    """Put the shards of one cache together into a file that reads as one."""
    from hiersae_cli.workflows import advice
    from hiersae_cli.workflows.cache import run_join

    result = run_join(config, console)
    console.result(result, "")
    console.next(advice.after_cache(config.out, result))
