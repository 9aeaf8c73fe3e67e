"""How long ``hiersae eval`` takes on a large dictionary, part by part, and its peak memory.

    OMP_NUM_THREADS=2 python -m benchmarks.speed.evaluation [--rows 1M] [--latents 16384] [--width 512] [--l0 32]
        [--controls]

Draws activations from a random dictionary with a two-level tree and Zipfian rates, with noise, and writes them as a
cache (about 1.3 GB with the defaults, deleted afterwards). It measures a run with that dictionary and a threshold that
gives the same L0. Seconds are of the wall clock and of the processor; with other work on the machine, trust those of
the processor. The time of an outer part includes its inner parts.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.base import parse_count
from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.activations import HELD_OUT, SCHEMA, SCHEMA_VERSION, TRAIN, ActivationsWriter, RowColumns
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import SCHEMA as RUN_SCHEMA
from hiersae_cli.formats.run import SCHEMA_VERSION as RUN_VERSION
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.metrics import shift_null
from hiersae_cli.metrics.description import FiringRows
from hiersae_cli.metrics.hierarchy_score import ProbeSums
from hiersae_cli.metrics.reconstruction import CodeSums, EdgeSums
from hiersae_cli.sae import build
from hiersae_cli.workflows.eval import passes, trees
from hiersae_cli.workflows.eval import run as evaluate

MODULE, DOCUMENT = "random", 2048  # rows of a document
TRAINING_ROWS = 220_000
PART = 16_384


class Parts:
    """The seconds spent in watched functions, by the wall clock and by the processor."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Add the time of every call of ``owner.name`` to the part ``label``."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            wall, processor = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = self.seconds.setdefault(label, [0.0, 0.0])
                spent[0] += time.perf_counter() - wall
                spent[1] += time.process_time() - processor

        setattr(owner, name, timed)


class Source:
    """A random dictionary: parents, each with children that fire only with it, and the activations of its codes."""

    def __init__(self, latents: int, width: int, l0: float):
        generator = np.random.default_rng(0)
        rows = generator.normal(size=(latents, width)).astype(np.float32)
        self.decoder_FD = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        parents = latents // 32
        rate_P = np.arange(1, parents + 1) ** -0.7
        self.rate_P = np.minimum(rate_P * (l0 / 4) / rate_P.sum(), 0.5)
        self.parent_F = np.concatenate([np.full(parents, -1), generator.permutation(latents - parents) % parents])
        children_P = np.bincount(self.parent_F[parents:], minlength=parents)
        # Three of four active latents are children, so on average three children fire with a parent.
        self.child_rate_F = np.concatenate(
            [np.zeros(parents), np.minimum(3 / children_P, 1.0)[self.parent_F[parents:]]]
        )
        self.children = [np.flatnonzero(self.parent_F == parent) for parent in range(parents)]

    def draw(self, rows: int, seed: int) -> np.ndarray:
        """Draw activations (rows, D), float32."""
        generator = np.random.default_rng(seed)
        x_BD = generator.normal(scale=0.02, size=(rows, self.decoder_FD.shape[1])).astype(np.float32)
        for parent, rate in enumerate(self.rate_P):
            row_n = np.flatnonzero(generator.random(rows) < rate)
            children = self.children[parent]
            fires = generator.random((len(row_n), len(children))) < self.child_rate_F[children]
            value = generator.uniform(1, 2, fires.shape).astype(np.float32) * fires
            x_BD[row_n] += self.decoder_FD[parent] * 2 + value @ self.decoder_FD[children]
        return x_BD


def make_cache(path: Path, source: Source, rows: int) -> None:
    total, width = rows + TRAINING_ROWS, source.decoder_FD.shape[1]
    document = np.arange(total, dtype=np.int32) // DOCUMENT
    documents = int(document[-1]) + 1
    held_out = np.arange(documents) >= TRAINING_ROWS // DOCUMENT
    split = np.where(held_out[document], HELD_OUT, TRAIN).astype(np.uint8)
    position = (np.arange(total) % DOCUMENT).astype(np.int32)
    names = [str(number) for number in range(documents)]
    columns = RowColumns(np.zeros(total, np.int32), document, position, split, names, np.arange(documents), held_out)
    config = CacheConfig(texts=[], model="none", module=[MODULE])
    made_by = {"host": {"name": "none", "fingerprint": "", "dtype": "float16"}, "first_row": 0, "total_rows": total}
    base = {**header(SCHEMA, SCHEMA_VERSION, config, {}), **made_by}
    writer = ActivationsWriter.create(path, base, columns, {MODULE: width}, "float16")
    for start in range(0, total, PART):
        x_BD = source.draw(min(PART, total - start), start)
        writer.write(MODULE, start, x_BD.astype(np.float16), np.linalg.norm(x_BD, axis=1))
    writer.commit(total)
    writer.finish()


def make_run(path: Path, source: Source, arch: str, l0: float) -> None:
    latents, width = source.decoder_FD.shape
    parents = len(source.rate_P)
    sizes: dict[str, Any] = {"widths": (latents,), "k": (l0,)}
    if arch == "hier":
        sizes = {"widths": (parents, latents - parents), "k": (l0 / 4, l0 * 3 / 4)}
    config = TrainConfig(acts=[], arch=arch, tokens=2048, **sizes)
    model = build(config, width)
    with torch.no_grad():
        model.W_dec_FD.copy_(torch.from_numpy(source.decoder_FD))
        model.W_enc_FD.copy_(model.W_dec_FD)
        if arch == "hier":
            model.parent_F.copy_(torch.from_numpy(source.parent_F))  # type: ignore[operator, union-attr]
        x_BD, residual_BD = (torch.from_numpy(source.draw(512, 1)),) * 2
        for level, part in enumerate(model.level_slices()):
            score = torch.relu(residual_BD @ model.W_enc_FD[part].T).square()
            lowest = score.flatten().topk(round(float(config.k[level]) * len(x_BD))).values[-1]
            price = model.price_on_F[0] if arch == "hier" else 1.0  # type: ignore[index]
            model.threshold_L[level] = lowest / price
            residual_BD = residual_BD - torch.where(score >= lowest, score.sqrt(), 0.0) @ model.W_dec_FD[part]
    folder = RunFolder(path)
    host = {"name": "none", "fingerprint": "", "dtype": "float16"}
    folder.write_header({**header(RUN_SCHEMA, RUN_VERSION, config, {}), "module": MODULE, "width": width, "host": host})
    folder.write_model(model.weights(), config.steps, config.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=parse_count, default=10**6, help="held-out rows")
    parser.add_argument("--latents", type=int, default=16_384)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--l0", type=float, default=32)
    parser.add_argument("--arch", choices=("batchtopk", "hier"), default="batchtopk")
    parser.add_argument("--controls", action="store_true", help="measure control dictionaries too")
    parser.add_argument("--scratch", help="folder for the cache, which later runs use again")
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.scratch or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        source = Source(arguments.latents, arguments.width, arguments.l0)
        if not (folder / "acts.h5").exists():
            make_cache(folder / "acts.h5", source, arguments.rows)
        make_run(folder / arguments.arch, source, arguments.arch, arguments.l0)
        figures = measure(folder / arguments.arch, folder / "acts.h5", arguments)
    print(f"{'':42}wall s   processor s")
    for label, (wall, processor) in figures["seconds"].items():
        print(f"{label:40}{wall:8.1f} {processor:12.1f}")
    quality = f"L0 {figures['l0']:.1f}, FVU {figures['fvu']:.3f}"
    print(f"peak memory {figures['peak_gb']:.2f} GB, {quality}, {figures['threads']} threads")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(run: Path, acts: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds by part, peak memory, and figures that show whether the dictionary is as intended."""
    parts = Parts()
    for owner, name, label in (
        (evaluate, "run", "all"),
        (evaluate, "fit", "  training rows"),
        (evaluate, "encode", "  held-out rows"),
        (passes, "firings_of", "    encoding (both passes)"),
        (passes, "decoded", "    decoding"),
        (CodeSums, "add", "    sums of codes"),
        (EdgeSums, "add", "    sums of edges"),
        (ProbeSums, "add", "    sums of probes"),
        (shift_null.ShiftNull, "add", "    circular-shift null"),
        (FiringRows, "pairs", "    pairs of latents (post-hoc trees)"),
        (evaluate, "score", "  figures and intervals"),
        (trees, "nearest_latents", "    probes (hierarchy score)"),
    ):
        parts.watch(owner, name, label)
    config = EvalConfig(runs=[str(run)], acts=[str(acts)], tokens=arguments.rows, controls=arguments.controls)
    report = evaluate.run(config)
    figures = report["runs"][run.name]
    return {
        "seconds": parts.seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "threads": torch.get_num_threads(),
        "l0": figures["l0"]["value"],
        "fvu": figures["fvu"]["value"],
        "config": vars(arguments),
    }


if __name__ == "__main__":
    main()
