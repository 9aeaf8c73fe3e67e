"""``hiersae join``: shards of a cache -> one file that refers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiersae_cli.config.cache import JoinConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import SCHEMA, SCHEMA_VERSION, Activations, join_shards
from hiersae_cli.formats.activations.summary import summary_of
from hiersae_cli.formats.atomic import refuse_existing
from hiersae_cli.formats.provenance import header
from hiersae_cli.workflows.cache.agreement import require_same


def run(config: JoinConfig, console: Console | None = None) -> dict[str, Any]:
    """Join shards; raises ``FileError`` if they are not all the shards of one cache."""
    console = console or Console.silent()
    refuse_existing(config.out, config.overwrite)
    if Path(config.out).resolve() in (Path(shard).resolve() for shard in config.shards):
        raise UsageError(f"--out {config.out}: is one of the shards", "The joined file refers to them: choose another.")
    shards = sorted((Activations(path) for path in config.shards), key=lambda acts: acts.header["first_row"])
    whole = dict(shards[0].header)
    for acts in shards:
        if acts.truth is not None:
            raise FileError(f"{acts.path}: made by 'hiersae synth', not a shard of a cache", "Give only shards.")
    saved = {key: value for key, value in whole["config"].items() if key != "shard"}
    expected = 0
    for acts in shards:
        same = {**acts.header, "config": {key: value for key, value in acts.header["config"].items() if key != "shard"}}
        require_same(acts.path, f"not a shard of the same cache as {shards[0].path}", {**whole, "config": saved}, same)
        first = acts.header["first_row"]
        if first != expected:
            raise FileError(
                f"{acts.path}: begins at row {first:,}, but the shards before it end at {expected:,}",
                "Give every shard of the cache once.",
            )
        expected += acts.rows
    if expected != whole["total_rows"]:
        raise FileError(
            f"{shards[-1].path}: the shards end at row {expected:,} of {whole['total_rows']:,}",
            "Give every shard of the cache once.",
        )
    base = header(SCHEMA, SCHEMA_VERSION, config, {str(acts.path): acts.fingerprint for acts in shards})
    join_shards(config.out, shards, {**whole, **base, "config": {**saved, "shard": ""}, "inputs": base["inputs"]})
    for acts in shards:
        acts.close()
    with Activations(config.out) as acts:
        console.say(f"{config.out}: {acts.rows:,} rows joined from {len(shards)} shards; keep them where they are")
        return summary_of(acts)
