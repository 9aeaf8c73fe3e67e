"""``hiersae cache``: text -> acts.h5."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.console import Console
from hiersae_cli.device import free_memory, resolve_device
from hiersae_cli.distributed.launch import launched
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import (
    DROPPED,
    HELD_OUT,
    SCHEMA,
    SCHEMA_VERSION,
    TRAIN,
    Activations,
    ActivationsWriter,
    RowColumns,
)
from hiersae_cli.formats.activations.layout import ROW_BYTES, STORAGE
from hiersae_cli.formats.activations.summary import row_uses, summary_of
from hiersae_cli.formats.activations.writer import partial_path, remove_finished
from hiersae_cli.formats.atomic import human_bytes, refuse_existing, require_space
from hiersae_cli.formats.provenance import header
from hiersae_cli.host.hook_names import module_path
from hiersae_cli.host.model import Host
from hiersae_cli.host.text import documents, fingerprints
from hiersae_cli.host.tokenizer import decoded
from hiersae_cli.host.windows import Windows, choose_held_out, cut_windows
from hiersae_cli.workflows.cache.agreement import require_same
from hiersae_cli.workflows.cache.by_ranks import run_by_ranks
from hiersae_cli.workflows.cache.writing import NotFiniteError, write_rows
from hiersae_cli.workflows.common.outliers import SINKS, FirstLook

_SAMPLE_TOKENS = 64
# Tokens in a forward pass: enough to keep the cores busy. More tokens cost memory, and exceed the caches of a CPU.
_MOST_BATCH_TOKENS = {"cpu": 2048, "cuda": 131_072, "mps": 16_384}


def run(config: CacheConfig, console: Console | None = None) -> dict[str, Any]:
    """Cache activations; resumes an unfinished cache of the same configuration.

    Returns the summary that ``--json`` prints. Raises ``UsageError`` and ``FileError`` for unusable flags and inputs.
    """
    console = console or Console.silent()
    if place := launched():
        return run_by_ranks(config, console, place, _write)
    return _write(config, console)


def _write(
    config: CacheConfig, console: Console, choose_batch: Callable[[int, bool], int] = lambda batch, chosen: batch
) -> dict[str, Any]:
    """Write a cache or a shard; ``choose_batch`` takes a batch and whether it must stay, and returns that to take."""
    remove_finished(config.out)
    refuse_existing(config.out, config.overwrite)
    place = launched()
    device = resolve_device(config.device, place.local_rank if place else 0)
    host = Host.load(config.model, device, config.model_dtype, config.revision, console)
    modules = _modules(config, host)
    context = _context(config, host)
    example = host.example(modules)
    widths = {path: example[path].shape[-1] for path in modules}
    dtype = _dtype(config, example)
    windows = cut_windows(
        host.tokenizer,
        documents(config.texts, config.text_field),
        context=context,
        bos=_bos(config, host),
        limit=config.tokens,
        document_tokens=config.document_tokens,
    )
    _check_vocabulary(host, windows)
    writer, batches = _open_writer(config, host, windows, widths, context, dtype, console, choose_batch)
    started = time.monotonic()
    rows_before = writer.rows_committed
    try:
        look = FirstLook(console, config)
        write_rows(writer, host, windows, batches, modules, dtype, look, console)
    except NotFiniteError:
        # The same command would meet them again.
        writer.close()
        writer.partial.unlink()
        raise
    console.say(f"{config.out}: statistics and fingerprint{', compression' * (config.compression != 'none')}")
    writer.finish(config.compression)
    return _report(config, console, writer.rows - rows_before, time.monotonic() - started)


def _modules(config: CacheConfig, host: Host) -> list[str]:
    """The paths of the modules to cache, each once."""
    places = [*config.layers(), *config.module]
    paths = [host.layer_path(place) if isinstance(place, int) else module_path(host, place) for place in places]
    return list(dict.fromkeys(paths))


def _dtype(config: CacheConfig, example: dict[str, torch.Tensor]) -> str:
    """The storage type: that of ``--dtype``, or for ``auto`` that of the model's activations."""
    if config.dtype != "auto":
        return config.dtype
    name = str(functools.reduce(torch.promote_types, (x.dtype for x in example.values()))).removeprefix("torch.")
    if name not in STORAGE:
        raise UsageError(f"--dtype auto: the model works in {name}", f"Choose one of: {', '.join(STORAGE)}.")
    return name


def _check_vocabulary(host: Host, windows: Windows) -> None:
    if (highest := int(windows.tokens.max())) >= host.vocabulary:
        raise FileError(
            f"{host.name}: its tokenizer gives token {highest}, its model knows only {host.vocabulary} tokens",
            "The tokenizer is not that of the model.",
        )


def _context(config: CacheConfig, host: Host) -> int:
    context = config.context or min(host.max_context, 1024)
    if context > host.max_context:
        raise UsageError(f"--context {context}: {config.model} takes at most {host.max_context} tokens")
    if config.drop_positions >= context:
        raise UsageError(
            f"--drop-positions {config.drop_positions}: would drop every row of windows of {context} tokens"
        )
    return context


def _bos(config: CacheConfig, host: Host) -> int | None:
    """The token that begins every window, or None."""
    token = host.tokenizer.bos_token_id
    if config.bos == "yes" and token is None:
        raise UsageError(f"--bos yes: the tokenizer of {config.model} has no beginning-of-sequence token")
    if config.bos == "auto":
        added = host.tokenizer("a", verbose=False)["input_ids"]
        return token if token is not None and added[:1] == [token] else None
    return token if config.bos == "yes" else None


def _batch_size(host: Host, context: int) -> int:
    """Windows per pass: a block's intermediate values take at most a quarter of the free memory."""
    width = int(getattr(host.model.config, "hidden_size", 1024))
    bytes_a_token = 4 * width * 32
    fitting = free_memory(host.device) // 4 // bytes_a_token
    windows = max(1, min(fitting, _MOST_BATCH_TOKENS.get(host.device.type, 2048)) // context)
    # A power of two, so that shards made with a little less free memory are cut in the same way.
    return 1 << (int(windows).bit_length() - 1)


def _open_writer(
    config: CacheConfig,
    host: Host,
    windows: Windows,
    widths: dict[str, int],
    context: int,
    dtype: str,
    console: Console,
    choose_batch: Callable[[int, bool], int],
) -> tuple[ActivationsWriter, np.ndarray]:
    """The unfinished cache to write into, and its missing batches of windows (n, 2)."""
    held_out = choose_held_out(len(windows.names), config.held_out, config.seed)
    split = np.where(held_out[windows.document], HELD_OUT, TRAIN).astype(np.uint8)
    split[windows.position < config.drop_positions] = DROPPED
    rows = RowColumns(
        windows.tokens, windows.document, windows.position, split, windows.names, windows.offsets, held_out
    )
    made_by = {
        "host": {
            "name": host.name,
            "fingerprint": host.fingerprint,
            "tokenizer": host.tokenizer_fingerprint,
            "dtype": host.dtype,
            "device": host.device.type,
            "context": context,
            "bos": _bos(config, host),
        },
        "text": {"sha256": _sha256(rows)},
        "content": {"dtype": dtype, "modules": widths},
    }
    if writer := _unfinished(config, made_by):
        choose_batch(writer.header["batch"], True)
        batches = _batches(windows, writer.header["batch"], config)
        done = np.searchsorted(windows.starts[batches[:, 0]] - writer.header["first_row"], writer.rows_committed)
        console.say(f"{writer.partial}: resuming from row {writer.rows_committed:,} of {writer.rows:,}")
        return writer, batches[done:]
    batch = choose_batch(config.batch or _batch_size(host, context), bool(config.batch))
    batches = _batches(windows, batch, config)
    first, last = int(windows.starts[batches[0, 0]]), int(windows.starts[batches[-1, 1]])
    row_bytes = ROW_BYTES + sum(width * STORAGE[dtype].itemsize + 4 for width in widths.values())
    size = (last - first) * row_bytes
    modules = ", ".join(f"{module} ({width})" for module, width in widths.items())
    console.say(f"{config.out}: {last - first:,} tokens x {modules} in {dtype}: {human_bytes(size)}")
    require_space(config.out, size if config.compression == "none" else 2 * size)
    base = header(SCHEMA, SCHEMA_VERSION, config, fingerprints(config.texts))
    extra = {**made_by, "sample": _sample(host, windows), "batch": batch, "first_row": first, "total_rows": len(rows)}
    writer = ActivationsWriter.create(config.out, {**base, **extra}, rows.between(first, last), widths, dtype)
    return writer, batches


def _sample(host: Host, windows: Windows) -> dict[str, Any]:
    """The first tokens and their text, by which the host's tokenizer is checked later."""
    tokens = windows.tokens[: min(int(windows.starts[1]), _SAMPLE_TOKENS)].tolist()
    return {"tokens": tokens, "text": decoded(host.tokenizer, tokens)}


def _sha256(rows: RowColumns) -> str:
    digest = hashlib.sha256()
    for column in (rows.tokens, rows.document, rows.position, rows.split):
        digest.update(column.data)
    return digest.hexdigest()


def _unfinished(config: CacheConfig, made_by: dict[str, Any]) -> ActivationsWriter | None:
    """The cache that the same command began; that of another command is refused, or ignored with --overwrite."""
    if not partial_path(config.out).exists():
        return None
    expected = {**made_by, "config": config.recorded()}
    if config.batch:
        # It decides how products are rounded. Without --batch, that of the unfinished cache stays.
        expected["batch"] = config.batch
    writer = None
    try:
        writer = ActivationsWriter(config.out)
        require_same(writer.partial, "an unfinished cache of another command", writer.header, expected)
    except FileError as error:
        if writer:
            writer.close()
        if config.overwrite:
            return None
        raise FileError(error.message, "Give the same flags to resume it, or --overwrite to begin again.") from None
    return writer


def _batches(windows: Windows, batch: int, config: CacheConfig) -> np.ndarray:
    """First and past-the-last window of every batch of this shard, (n, 2); shards are cut between batches."""
    count = len(windows.starts) - 1
    starts = np.arange(0, count, batch)
    batches = np.stack([starts, np.minimum(starts + batch, count)], axis=1)
    part, parts = config.shard_of()
    if parts > len(batches):
        raise UsageError(f"--shard {config.shard}: the text makes only {len(batches)} batches", "Use fewer shards.")
    return batches[part * len(batches) // parts : (part + 1) * len(batches) // parts]


def _report(config: CacheConfig, console: Console, rows_made: int, seconds: float) -> dict[str, Any]:
    with Activations(config.out) as acts:
        summary = summary_of(acts)
    summary["seconds"] = round(seconds, 1)
    summary["tokens_per_second"] = round(rows_made / seconds) if seconds else None
    console.say(
        f"{config.out}: {summary['rows']:,} rows of {summary['documents']:,} documents, "
        f"{human_bytes(Path(config.out).stat().st_size)}, {summary['tokens_per_second'] or 0:,} tokens/s"
    )
    if not summary["splits"]["held_out"] and config.held_out:
        console.warn("no document is held out: eval needs at least two documents; lower --document-tokens or add text")
    for path, module in summary["modules"].items():
        console.say(f"{path}: {row_uses(module, summary['splits']['dropped'])}")
        if module["outliers"] > SINKS * summary["rows"]:
            console.warn(
                f"{path}: {module['outliers'] / summary['rows']:.1%} of the rows are outliers, more than attention "
                "sinks would be; --keep-outliers keeps them"
            )
    return summary
