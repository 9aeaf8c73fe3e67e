"""How long the hierarchy trains to reach the FVU of a flat dictionary with as many latents and the same L0.

    python -m benchmarks.speed.time_to_fvu acts.h5 --json FILE [--latents 16384] [--tokens 1M]
        [--shares 0.3,0.4,0.5,0.6] [--seeds 3] [--lr-flat 0.003] [--lr-hier 0.006] [--dtype bfloat16]

The flat dictionary is our BatchTopK, trained on --tokens activations. The hierarchy is trained on each share of them,
with a whole schedule each time, its gate closed in three of four steps and at the end (``--open-every 4 --harden``).
The result is the first share whose FVU is not above that of the flat dictionary, on held-out rows. Seconds are those of
all steps, with reading, without start and evaluation. Run nothing else on the machine at the same time.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.base import parse_count, parse_numbers
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.device import keep_freed_memory
from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats.activations import HELD_OUT, ActivationSet
from hiersae_cli.metrics.reconstruction import Moments
from hiersae_cli.sae import build
from hiersae_cli.sae.training import Trainer
from hiersae_cli.workflows import bench
from hiersae_cli.workflows.train.sources import open_source

_HELD_OUT, _CALIBRATION_BATCHES = 50_000, 32


@dataclass(frozen=True)
class Row:
    """The result of one training."""

    model: str
    seed: int
    tokens: int
    lr: float
    seconds: float
    fvu: float
    l0: float


def train_and_measure(name: str, config: TrainConfig, held_out: list[torch.Tensor], console: Console) -> Row:
    """Train a dictionary, and measure it on held-out batches (B, D)."""
    source = open_source(config, torch.device("cpu"))
    mean, mean_square = source.moments()
    centre_D, scale = torch.from_numpy(mean).float(), (source.width / (mean_square - float(mean @ mean))) ** 0.5
    model = build(config, source.width)
    model.initialise(centre_D * scale, config.seed)
    trainer = Trainer(model.train(), config, scale)
    stream = source.batches(config.batch)
    first_BD = next(stream)  # the first request fills the buffer
    started = time.monotonic()
    with console.progress(name, config.steps, "steps") as progress:
        for number in range(config.steps):
            trainer.step(first_BD if number == 0 else next(stream))
            progress.advance(1)
    seconds = time.monotonic() - started
    trainer.finish(islice(stream, _CALIBRATION_BATCHES))
    source.close()
    model.eval()
    error, active, moments = 0.0, 0, Moments(centre_D * scale)
    with torch.inference_mode():
        for raw_BD in held_out:
            x_BD = raw_BD * scale
            codes = model.codes(x_BD)
            error += float((x_BD - model.reconstruct(codes)).square().sum())
            active += sum(len(code.fired) for code in codes)
            moments.add(x_BD)
    fvu = error / (moments.rows * float(moments.covariance_DD.trace()))
    return Row(name, config.seed, config.tokens, config.lr, round(seconds, 2), fvu, active / moments.rows)


def read_held_out(path: str, batch: int) -> list[torch.Tensor]:
    """Batches (B, D) of the first held-out rows of a cache."""
    acts = ActivationSet([path])
    row_H = np.flatnonzero(acts.usable(HELD_OUT))[:_HELD_OUT]
    batches = [acts.rows_at(row_H[start : start + batch]).float() for start in range(0, len(row_H), batch)]
    acts.close()
    return batches


def main() -> None:
    """Train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("acts")
    add("--json", type=Path, required=True)
    add("--latents", type=parse_count, default=16_384)
    add("--parents", type=parse_count, default=512)
    add("--l0", type=int, default=32)
    add("--tokens", type=parse_count, default=10**6)
    add("--batch", type=parse_count, default=2048)
    add("--shares", type=parse_numbers, default=(0.3, 0.4, 0.5, 0.6))
    add("--seeds", type=int, default=3)
    add("--lr-flat", type=float, default=0.003)
    add("--lr-hier", type=float, default=0.006)
    add("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    keep_freed_memory()  # as ``hiersae train`` does
    console = Console()
    held_out = read_held_out(options.acts, options.batch)
    common: dict[str, Any] = {"acts": [options.acts], "batch": options.batch, "dtype": options.dtype}
    flat = {"arch": "batchtopk", "widths": (options.latents,), "k": (options.l0,), "lr": options.lr_flat}
    hier = {
        "arch": "hier",
        "widths": (options.parents, options.latents - options.parents),
        "k": (options.l0 / 2, options.l0 / 2),
        "lr": options.lr_hier,
        "optimizer": "row-adam",
        "open_every": 4,
        "harden": True,
    }
    rows: list[Row] = []
    print("| seed | model | tokens | seconds | FVU | L0 |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for seed in range(options.seeds):
        plan = [("flat", 1.0, flat)] + [("hier", share, hier) for share in options.shares]
        for name, share, settings in plan:
            tokens = round(options.tokens * share) // options.batch * options.batch
            config = TrainConfig(**common, **settings, seed=seed, tokens=tokens)
            row = train_and_measure(name, config, held_out, console)
            if name == "flat":
                flat_fvu = row.fvu
            rows.append(row)
            print(
                f"| {seed} | {name} | {row.tokens:,} | {row.seconds:.1f} | {row.fvu:.5f} | {row.l0:.1f} |", flush=True
            )
            if name == "hier" and row.fvu <= flat_fvu:
                break
    for seed in range(options.seeds):
        flat_row, *hier_rows = (row for row in rows if row.seed == seed)
        reached = [row.seconds for row in hier_rows if row.fvu <= flat_row.fvu]
        ratio = f"{min(reached) / flat_row.seconds:.2f}" if reached else "not reached"
        print(f"seed {seed}: time to the flat dictionary's FVU, as a share of its training time: {ratio}")
    machine = bench.machine("cpu")
    print("machine:", json.dumps(machine))
    options.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except HierSAEError as error:
        raise SystemExit(f"error: {error}") from None
