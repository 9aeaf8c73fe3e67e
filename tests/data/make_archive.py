"""Writes what later releases must still read: ``acts-v1.h5``; ``acts-v2.h5``, with a truth; ``run-v2``, hardened.

Run once a schema version, never again: what exists is left alone.

python -m tests.data.make_archive
"""

import json
from pathlib import Path

import torch

from hiersae_cli import load_run
from hiersae_cli.config.synth import SynthConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.workflows import synth
from hiersae_cli.workflows.train import run as train
from tests.caches import content, write

ARCHIVE = Path(__file__).with_name("acts-v1.h5")
TRUTH_ARCHIVE = Path(__file__).with_name("acts-v2.h5")
RUN_ARCHIVE = Path(__file__).with_name("run-v2")

if __name__ == "__main__":
    if not TRUTH_ARCHIVE.exists():
        synth.run(SynthConfig(preset="toy", rows=200, held_out=100, out=str(TRUTH_ARCHIVE), device="cpu"))
    if not ARCHIVE.exists():
        write(ARCHIVE, content(60, "bfloat16", seed=1), "bfloat16")
    if not RUN_ARCHIVE.exists():
        train.run(
            TrainConfig(
                synth="toy", out=str(RUN_ARCHIVE), widths=(3, 5, 6), k=(0.5, 0.5, 0.5), tokens=50_000, batch=500,
                refine=True, harden=True, curriculum="anneal=0.7", log_every=100, device="cpu",
            )
        )  # fmt: skip
        x = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
        code = load_run(RUN_ARCHIVE).model.encode(x)
        RUN_ARCHIVE.with_name("run-v2-code.json").write_text(json.dumps({"x": x.tolist(), "code": code.tolist()}))
