"""Training from HDF5 against training from memory: time of an epoch, and peak memory by size of the cache.

    python -m benchmarks.speed.reading [--gigabytes 1,10] [--width 256] [--compression gzip] [--repeats 5] [--json FILE]

Makes caches of random activations, which are deleted afterwards. Then, in one process, the same training steps
alternate between the shuffled reader and a random permutation of a tensor in memory; the time ratio is that of the
medians. Peak memory is that of ``hiersae train`` in a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.activations import SCHEMA, SCHEMA_VERSION, ActivationSet, ActivationsWriter, RowColumns
from hiersae_cli.formats.activations.stream import ShuffledRows
from hiersae_cli.formats.provenance import header
from hiersae_cli.sae import build
from hiersae_cli.sae.training import Trainer

MODULE = "random"
STEPS = 150  # in each timed stretch


def make_cache(path: Path, rows: int, width: int, compression: str = "none") -> None:
    """Make a cache of random activations of low rank with noise, so that training on them is ordinary."""
    generator = np.random.default_rng(0)
    part = (generator.normal(size=(65_536, 16)) @ generator.normal(size=(16, width))).astype("<f4")
    part += generator.normal(scale=0.3, size=part.shape).astype("<f4")
    zeros = np.zeros(rows, np.int32)
    columns = RowColumns(zeros, zeros, zeros, zeros.astype(np.uint8), ["random"], np.zeros(1), np.zeros(1, bool))
    config = CacheConfig(texts=[], model="none", module=[MODULE])
    made_by = {"host": {"name": "none", "fingerprint": "", "dtype": "float32"}, "first_row": 0, "total_rows": rows}
    base = header(SCHEMA, SCHEMA_VERSION, config, {})
    writer = ActivationsWriter.create(path, {**base, **made_by}, columns, {MODULE: width}, "float32")
    norms = np.linalg.norm(part, axis=1)
    for start in range(0, rows, len(part)):
        count = min(len(part), rows - start)
        writer.write(MODULE, start, part[:count], norms[:count])
    writer.commit(rows)
    writer.finish(compression)


def from_memory(tensor: torch.Tensor, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches of random permutations, epoch after epoch: the reader is compared with these."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(tensor), generator=generator)
        for rows in order.split(batch):
            if len(rows) == batch:
                yield tensor[rows]


def time_ratio(path: Path, config: TrainConfig, repeats: int) -> dict[str, float]:
    """The seconds of ``STEPS`` steps from each source, as medians of alternating stretches, and their ratio."""
    acts = ActivationSet([str(path)])
    tensor = acts.caches[0].read(MODULE)
    model = build(config, acts.width)
    model.initialise(tensor.mean(0), 0)
    trainer = Trainer(model.train(), config, 1.0)
    sources = {
        "hdf5": ShuffledRows(acts, config.buffer * 10**6, 0).batches(config.batch),
        "memory": from_memory(tensor, config.batch, 0),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for repeat in range(repeats + 1):
        for name, source in sources.items():
            trainer.step_number = 0  # the schedule must not differ between stretches
            started = time.perf_counter()
            for _ in range(STEPS):
                trainer.step(next(source))
            if repeat:  # the first is warm-up
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(stretches) for name, stretches in seconds.items()}
    return {
        **{f"seconds_{name}": value for name, value in medians.items()},
        "ratio": medians["hdf5"] / medians["memory"],
    }


def peak_megabytes(path: Path, out: Path, config: TrainConfig) -> float:
    """Peak resident memory of ``hiersae train`` for ``STEPS`` steps."""
    arguments = [
        sys.executable, "-m", "hiersae_cli", "train", str(path), "--arch", config.arch, "-o", str(out), "-q",
        "--widths", ",".join(map(str, config.widths)), "--k", ",".join(map(str, config.k)),
        "--tokens", str(STEPS * config.batch), "--overwrite",
    ]  # fmt: skip
    process = subprocess.Popen(arguments)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("hiersae train failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", default="1,10")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--compression", choices=("none", "lzf", "gzip"), default="none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = TrainConfig(acts=[], arch="batchtopk", widths=(1024,), k=(16,), tokens=10**7)
    result: dict[str, object] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "steps": STEPS}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        sizes = options.gigabytes.split(",")
        paths = [Path(folder) / f"{size}gb.h5" for size in sizes]
        # Peaks first, while this process is small: Linux adds its memory to a child's peak.
        for size, path in zip(sizes, paths, strict=True):
            make_cache(path, int(float(size) * 1e9) // (4 * options.width), options.width, options.compression)
            result[f"peak_mb_{size}gb"] = round(peak_megabytes(path, Path(folder) / "run", config))
        result |= time_ratio(paths[0], config, options.repeats)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
