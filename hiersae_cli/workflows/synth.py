"""``hiersae synth``: synthetic activations with a known truth -> acts.h5.

Legend of shapes: B rows of a draw, N true features, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import FileError, HierSAEError
from hiersae_cli.formats.activations import (
    HELD_OUT,
    SCHEMA,
    TRAIN,
    TRUTH_VERSION,
    Activations,
    ActivationsWriter,
    RowColumns,
    TrueFirings,
)
from hiersae_cli.formats.activations.layout import ROW_BYTES, STORAGE
from hiersae_cli.formats.activations.writer import partial_path, refuse_if_written
from hiersae_cli.formats.atomic import human_bytes, refuse_existing, require_space
from hiersae_cli.formats.provenance import header
from hiersae_cli.interrupt import Interrupted, stoppable
from hiersae_cli.synth import Generator, Stream, block_seed, generator
from hiersae_cli.workflows.train.sources import SYNTH_MODULE

_DOCUMENT_ROWS = 128  # intervals are over documents; rows are independent, so any length gives valid ones
_HDF5_BEGINS = b"\x89HDF\r\n\x1a\n"
_DRAW = 2048  # rows drawn at once


def run(config: SynthConfig, console: Console | None = None) -> dict[str, Any]:
    """Draw activations and write them with their truth; an interrupted run leaves nothing behind.

    Returns the summary that ``--json`` prints. Raises ``UsageError`` if the device is not available,
    and ``FileError`` if the output exists or the disk is too small.
    """
    console = console or Console.silent()
    refuse_existing(config.out, config.overwrite)
    _remove_unfinished(partial_path(config.out), config.overwrite)
    width, row_bytes = config.truth_width, STORAGE[config.dtype].itemsize
    size = config.rows * (ROW_BYTES + 4 + width * row_bytes)
    require_space(config.out, size)
    console.say(
        f"{config.out}: {config.rows:,} rows of {config.preset} ({width}) in {config.dtype}: {human_bytes(size)}"
    )
    source = generator(config.preset, config.shape(), resolve_device(config.device))
    rows = _rows(config)
    made_by = {
        **header(SCHEMA, TRUTH_VERSION, config, {}),
        "host": source.describe(),
        "content": {"dtype": config.dtype, "modules": {SYNTH_MODULE: width}},
        "first_row": 0,
        "total_rows": config.rows,
    }
    started = time.monotonic()
    with stoppable() as stopping:  # before a file exists that could stay behind
        writer = ActivationsWriter.create(config.out, made_by, rows, {SYNTH_MODULE: width}, config.dtype)
        try:
            firings = _fill(writer, source, rows.split == HELD_OUT, config, console, stopping)
            writer.finish(truth=(source.truth, firings))
        finally:
            writer.partial.unlink(missing_ok=True)
    return _report(config, console, time.monotonic() - started)


def _remove_unfinished(partial: Path, overwrite: bool) -> None:
    """Remove what a killed command left; an unfinished cache of a text is hours of work, and is refused."""
    if not partial.exists():
        return
    refuse_if_written(partial)
    if not overwrite and not _is_of_synth(partial):
        raise FileError(
            f"{partial}: an unfinished cache exists there", "Give --overwrite to replace it, or choose another --out."
        )
    partial.unlink()


def _is_of_synth(partial: Path) -> bool:
    with partial.open("rb") as file:
        if file.read(len(_HDF5_BEGINS)) != _HDF5_BEGINS:
            return False
    try:
        with Activations(partial, allow_unfinished=True) as acts:
            return "preset" in acts.header["config"]
    except HierSAEError:
        # Killed while HDF5 wrote the truth; a cache of a text is whole from its beginning.
        return True


def _rows(config: SynthConfig) -> RowColumns:
    """Documents of equal length; the held-out ones are spread evenly."""
    row = np.arange(config.rows)
    document = (row // _DOCUMENT_ROWS).astype(np.int32)
    count = int(document[-1]) + 1
    held_out_rows = config.held_out_rows()
    held_out_count = min(count, max(1, round(held_out_rows / _DOCUMENT_ROWS))) if held_out_rows else 0
    held_out = np.zeros(count, bool)
    held_out[np.linspace(0, count, held_out_count, endpoint=False).astype(int)] = True
    return RowColumns(
        tokens=np.zeros(config.rows, np.int32),
        document=document,
        position=(row % _DOCUMENT_ROWS).astype(np.int32),
        split=np.where(held_out[document], HELD_OUT, TRAIN).astype(np.uint8),
        document_names=[config.preset] * count,
        document_offsets=np.full(count, -1),
        document_held_out=held_out,
    )


def _fill(
    writer: ActivationsWriter,
    source: Generator,
    held_out: np.ndarray,
    config: SynthConfig,
    console: Console,
    stopping: Callable[[], bool],
) -> TrueFirings:
    """Draw and write all rows; returns the true firings in the rows of ``held_out``, (rows,) bool."""
    counts, features, magnitudes = [np.zeros(1, np.int64)], [], []
    dtype = getattr(torch, config.dtype)
    with console.progress("synth", config.rows, "rows") as progress:
        for number, start in enumerate(range(0, config.rows, _DRAW)):
            count = min(_DRAW, config.rows - start)
            x_BD, magnitude_BN = source.sample(count, block_seed(config.draw_seed, Stream.FILE, number))
            stored_BD = x_BD.to(dtype).cpu()
            raw_BD = stored_BD.view(torch.uint16) if dtype == torch.bfloat16 else stored_BD
            writer.write(SYNTH_MODULE, start, raw_BD.numpy(), stored_BD.float().norm(dim=1).numpy())
            held_out_BN = magnitude_BN[torch.from_numpy(held_out[start : start + count]).to(magnitude_BN.device)].cpu()
            counts.append((held_out_BN > 0).sum(1).numpy())
            features.append(held_out_BN.nonzero()[:, 1].numpy().astype(np.int32))
            magnitudes.append(held_out_BN[held_out_BN > 0].numpy())
            progress.advance(count)
            if stopping():
                writer.close()
                raise Interrupted(f"{config.out}: stopped at row {start + count:,} of {config.rows:,}, nothing is kept")
    writer.commit(config.rows)
    return TrueFirings(np.cumsum(np.concatenate(counts)), np.concatenate(features), np.concatenate(magnitudes))


def _report(config: SynthConfig, console: Console, seconds: float) -> dict[str, Any]:
    with Activations(config.out) as acts:
        held_out = int((acts.column("split") == HELD_OUT).sum())
        assert acts.truth is not None
        summary = {
            "file": str(acts.path),
            "rows": acts.rows,
            "splits": {"train": acts.rows - held_out, "held_out": held_out},
            "documents": acts.documents,
            "features": len(acts.truth),
            "edges": int((acts.truth.parent_N >= 0).sum()),
            "width": acts.truth.width,
            "truth": acts.header["host"]["fingerprint"],
            "fingerprint": acts.fingerprint,
            "seconds": round(seconds, 1),
        }
    console.say(
        f"{config.out}: {summary['rows']:,} rows ({acts.rows - held_out:,} training, {held_out:,} held out) of "
        f"{summary['features']:,} true features with {summary['edges']:,} edges, "
        f"{human_bytes(Path(config.out).stat().st_size)}, {config.rows / max(seconds, 1e-9):,.0f} rows/s"
    )
    return summary
