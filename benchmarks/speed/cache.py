"""``hiersae cache`` against the plain forward pass: tokens/s of both over the same batches of the same text.

    python -m benchmarks.speed.cache --model host --layer 2 TEXT
        [--tokens 200k] [--batch 32] [--repeats 5] [--device cpu]

Both run alternately in one process, on the same windows in the same batches. The plain pass stops after the hooked
block, as the cache's does, and drops its result. The cache's time is from its first batch to the finished file, with
writing, statistics and fingerprint. Prints JSON: the medians, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from hiersae_cli.config.base import parse_count
from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.device import resolve_device
from hiersae_cli.formats.activations import Activations
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.cache.run import run


def bare(host: Host, module: str, tokens: torch.Tensor, context: int, batch: int) -> float:
    """Tokens/s of only the truncated forward pass, over whole windows."""
    windows = tokens[: len(tokens) // context * context].reshape(-1, context)
    started = time.monotonic()
    for part in windows.split(batch):
        host.capture(part, [module])
    if host.device.type == "cuda":
        torch.cuda.synchronize()
    return windows.numel() / (time.monotonic() - started)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """The medians of both, which alternate, after one round that does not count."""
    host = Host.load(options.model, resolve_device(options.device))
    module = host.layer_path(options.layer)
    figures: dict[str, list[float]] = {"bare": [], "cache": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        out = Path(folder) / "acts.h5"
        config = CacheConfig(
            texts=[options.text],
            model=options.model,
            layer=str(options.layer),
            tokens=parse_count(options.tokens),
            device=options.device,
            batch=options.batch,
            document_tokens=0,  # only whole windows, for both
            held_out=0.0,
            overwrite=True,
            out=str(out),
        )
        run(config)
        with Activations(out) as acts:
            tokens = torch.from_numpy(acts.column("tokens")).long()
            context, batch = acts.header["host"]["context"], acts.header["batch"]
        for _ in range(options.repeats):
            figures["bare"].append(bare(host, module, tokens, context, batch))
            figures["cache"].append(run(config)["tokens_per_second"])
    medians = {f"{name}_tokens_per_second": round(statistics.median(values)) for name, values in figures.items()}
    ratio = statistics.median(figures["cache"]) / statistics.median(figures["bare"])
    made_with = {"tokens": len(tokens), "context": context, "batch": batch, "device": str(host.device)}
    runs = {name: [round(value) for value in values] for name, values in figures.items()}
    return {**made_with, **medians, "ratio": round(ratio, 3), "runs": runs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--model", required=True)
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--tokens", default="200k")
    parser.add_argument("--batch", type=int, default=0, help="windows a pass; 0: as hiersae cache chooses")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", help="where the cache is written (default: the system's temporary folder)")
    print(json.dumps(measure(parser.parse_args()), indent=2))
