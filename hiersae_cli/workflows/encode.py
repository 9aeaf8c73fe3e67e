"""``hiersae encode``: run folder + caches -> codes.h5, the sparse code of every row."""

from __future__ import annotations

import time
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
from hiersae_cli.workflows.common.encoding import firings_of
from hiersae_cli.workflows.common.inputs import open_acts
from hiersae_cli.workflows.common.rows import batches_of


def run(config: EncodeConfig, console: Console | None = None) -> dict[str, Any]:
    """Encode rows in batches, in constant memory; an interrupted run leaves nothing behind.

    Returns the summary that ``--json`` prints. Raises ``UsageError`` and ``FileError``, before any work, if run and
    caches do not belong together or the output exists.
    """
    console = console or Console.silent()
    started = time.monotonic()
    refuse_existing(config.out, config.overwrite)
    if Path(config.out).resolve() in (Path(path).resolve() for path in config.acts):
        raise UsageError(f"--out {config.out}: is the cache", "Choose another.")
    device = resolve_device(config.device)
    trained = load_run(config.run, device)
    acts = open_acts(trained, config.acts)
    steps = trained.config.steps
    if trained.steps_done < steps:
        console.warn(f"{trained.path}: training not ended (step {trained.steps_done:,} of {steps:,})")
    made_by = {
        **header(SCHEMA, SCHEMA_VERSION, config, {config.run: trained.sha256, **acts.fingerprints()}),
        "run": {**trained.described, "step": trained.steps_done, "steps": steps},
        "host": trained.header["host"],
    }
    with stoppable() as stopped, writing_codes(config.out, made_by, trained.model.widths, config.compression) as writer:
        rows = min(config.tokens or acts.rows, acts.rows)
        with console.progress("encode", rows, "rows") as progress:
            for start, stop in batches_of([(0, rows)], config.batch):
                _encode(trained, acts, writer, start, stop, config.batch, device)
                progress.advance(stop - start)
                if stopped():
                    raise Interrupted(f"{config.out}: stopped at row {stop:,} of {rows:,}, nothing is kept")
    acts.close()
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
    return summary


@torch.inference_mode()
def _encode(
    trained: Run, acts: ActivationSet, writer: CodesWriter, start: int, stop: int, batch: int, device: torch.device
) -> None:
    x_BD = acts.rows_at(np.arange(start, stop)).to(device, torch.float32)
    writer.add(firings_of(trained.model, x_BD, batch))
