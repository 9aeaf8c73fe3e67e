"""How long the hierarchy trains until it has the FVU of a flat dictionary of as many latents and the same L0.

    python -m benchmarks.speed.time_to_fvu acts.h5 --json FILE [--latents 16384] [--tokens 1M]
        [--shares 0.3,0.4,0.5,0.6] [--seeds 3] [--lr-flat 0.003] [--lr-hier 0.006] [--dtype bfloat16]

The flat one is BatchTopK of ours, trained on --tokens activations. The hierarchy is trained anew on each of --shares of
them, every training with its whole schedule, its gate closed at three steps of four and at the end (``--open-every 4
--harden``), and the first share whose FVU is not above the flat one's counts. FVU is that of held-out rows. Seconds are
those of all steps, reading included, without start and evaluation; every training has the machine to itself.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.trees.rows import CachedRows, moments
from hiersae_cli.config.base import parse_count, parse_numbers
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.device import keep_freed_memory
from hiersae_cli.errors import HierSAEError
from hiersae_cli.metrics.reconstruction import Moments
from hiersae_cli.sae import build
from hiersae_cli.sae.training import Trainer
from hiersae_cli.workflows import bench

_HELD_OUT, _FITTING, _CALIBRATION_BATCHES = 50_000, 50_000, 32


@dataclass(frozen=True)
class Row:
    """One training."""

    model: str
    seed: int
    tokens: int
    lr: float
    seconds: float
    fvu: float
    l0: float


def trained(name: str, config: TrainConfig, rows: CachedRows, console: Console) -> Row:
    """Train, and measure on held-out rows."""
    centre_D, scale = moments(rows)
    model = build(config, rows.width)
    model.initialise(centre_D * scale, config.seed)
    trainer = Trainer(model.train(), config, scale)
    stream = rows.training(config.seed)
    first_BD = next(stream)  # the buffer is filled when the first batch is asked for
    begun = time.monotonic()
    with console.progress(name, config.steps, "steps") as progress:
        for number in range(config.steps):
            trainer.step(first_BD if number == 0 else next(stream))
            progress.advance(1)
    seconds = time.monotonic() - begun
    trainer.finish(islice(stream, _CALIBRATION_BATCHES))
    model.eval()
    error, active, data = 0.0, 0, Moments(centre_D * scale)
    with torch.inference_mode():
        for raw_BD, _ in rows.held_out():
            x_BD = raw_BD * scale
            codes = model.codes(x_BD)
            error += float((x_BD - model.reconstruct(codes)).square().sum())
            active += sum(len(code.fired) for code in codes)
            data.add(x_BD)
    fvu = error / (data.rows * float(data.covariance_DD.trace()))
    return Row(name, config.seed, config.tokens, config.lr, round(seconds, 2), fvu, active / data.rows)


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
    rows = CachedRows(options.acts, _HELD_OUT, _FITTING, torch.device("cpu"))
    common: dict[str, Any] = {"batch": options.batch, "dtype": options.dtype}
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
    found: list[Row] = []
    print("| seed | model | tokens | seconds | FVU | L0 |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for seed in range(options.seeds):
        plan = [("flat", 1.0, flat)] + [("hier", share, hier) for share in options.shares]
        for name, share, more in plan:
            tokens = round(options.tokens * share) // options.batch * options.batch
            row = trained(name, TrainConfig(**common, **more, seed=seed, tokens=tokens), rows, console)
            found.append(row)
            print(
                f"| {seed} | {name} | {row.tokens:,} | {row.seconds:.1f} | {row.fvu:.5f} | {row.l0:.1f} |", flush=True
            )
            if name == "hier" and row.fvu <= next(one.fvu for one in found if one.seed == seed and one.model == "flat"):
                break
    for seed in range(options.seeds):
        own = [row for row in found if row.seed == seed]
        reached = [row for row in own[1:] if row.fvu <= own[0].fvu]
        ratio = f"{min(row.seconds for row in reached) / own[0].seconds:.2f}" if reached else "not reached"
        print(f"seed {seed}: time to the flat one's FVU, as a share of its time: {ratio}")
    machine = bench.machine("cpu")
    print("machine:", json.dumps(machine))
    options.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in found]}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except HierSAEError as error:
        raise SystemExit(f"error: {error}") from None
