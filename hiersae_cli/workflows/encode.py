"""``hiersae encode``: run folder + caches -> codes.h5, the sparse code of every row."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.encode import EncodeConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.formats.atomic import human_bytes, refuse_existing
from hiersae_cli.formats.codes import SCHEMA, SCHEMA_VERSION, CodesWriter, writing_codes
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import Run, load_run
from hiersae_cli.interrupt import Interrupted, stoppable
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.workflows.common.encoding import firings_of
from hiersae_cli.workflows.common.inputs import open_acts
from hiersae_cli.workflows.common.rows import batches_of
from hiersae_cli.workflows.common.sharing import Sharing, sharing


def run(config: EncodeConfig, console: Console | None = None) -> dict[str, Any]:
    """Encode rows in batches, in constant memory; an interrupted run leaves nothing behind.

    Returns the summary that ``--json`` prints. Raises ``UsageError`` and ``FileError``, before any work, if run and
    caches do not belong together or the output exists.
    """
    ranks, started = sharing(), time.monotonic()
    console = ranks.console(console)
    device = resolve_device(config.device, ranks.local_rank)
    trained, acts = ranks.together(lambda: _open(config, device))
    steps = trained.config.steps
    if trained.steps_done < steps:
        console.warn(f"{trained.path}: training not ended (step {trained.steps_done:,} of {steps:,})")
    made_by = {
        **header(SCHEMA, SCHEMA_VERSION, config, {config.run: trained.sha256, **acts.fingerprints()}),
        "run": {**trained.described, "step": trained.steps_done, "steps": steps},
        "host": trained.header["host"],
    }
    rows = min(config.tokens or acts.rows, acts.rows)
    batches = list(batches_of([(0, rows)], config.batch))
    with (
        stoppable(second_stops=ranks.count == 1) as stopped,
        _writing(config, made_by, trained.model.widths, ranks) as writer,
        console.progress("encode", rows, "rows") as progress,
    ):
        for first in range(0, len(batches), ranks.count):  # each rank takes one of the next batches
            together = batches[first : first + ranks.count]
            own = together[ranks.rank] if ranks.rank < len(together) else None
            for firings in ranks.at_first(_encode(trained, acts, *own, config.batch, device) if own else None):
                if writer and firings:
                    writer.add(firings)
            stop = together[-1][1]
            progress.advance(stop - together[0][0])
            if any(ranks.of_all(stopped())):
                raise Interrupted(f"{config.out}: stopped at row {stop:,} of {rows:,}, nothing is kept")
    acts.close()
    if not writer:
        return ranks.of_all(dict[str, Any]())[0]
    summary = {
        "file": str(config.out),
        "rows": writer.rows,
        "latents": writer.latents,
        "firings": writer.firings,
        "l0": writer.firings / max(writer.rows, 1),
        "seconds": round(time.monotonic() - started, 1),
    }
    console.say(
        f"{config.out}: {writer.rows:,} rows of {writer.latents:,} latents, L0 {summary['l0']:.4g}; "
        f"{human_bytes(Path(config.out).stat().st_size)} in {summary['seconds']} s"
    )
    return ranks.of_all(summary)[0]


def _open(config: EncodeConfig, device: torch.device) -> tuple[Run, ActivationSet]:
    refuse_existing(config.out, config.overwrite)
    if Path(config.out).resolve() in (Path(path).resolve() for path in config.acts):
        raise UsageError(f"--out {config.out}: is the cache", "Choose another.")
    trained = load_run(config.run, device)
    return trained, open_acts(trained, config.acts)


def _writing(
    config: EncodeConfig, made_by: dict[str, Any], widths: tuple[int, ...], ranks: Sharing
) -> AbstractContextManager[CodesWriter | None]:
    return writing_codes(config.out, made_by, widths, config.compression) if ranks.writes else nullcontext()


@torch.inference_mode()
def _encode(trained: Run, acts: ActivationSet, start: int, stop: int, batch: int, device: torch.device) -> Firings:
    x_BD = acts.rows_at(np.arange(start, stop)).to(device, torch.float32)
    return firings_of(trained.model, x_BD, batch)
