"""The cost of the tree in a training step: counting joint firings, and choosing parents.

    python -m benchmarks.speed.tree_cost [--widths 1024,15360] [--k 16,16] [--d 512] [--batch 2048]
        [--steps 5] [--relevel]

Times are processor time in one process, on random activations with a sparse code, so other work hardly matters.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from hiersae_cli.config.base import parse_counts, parse_numbers
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.sae import HierarchicalSAE, StepContext, build
from hiersae_cli.sae.releveling import exchange
from hiersae_cli.sae.training import Trainer
from hiersae_cli.workflows import bench


def seconds(job: Callable[[], object], times: int) -> float:
    """The mean processor time of a call."""
    started = time.process_time()
    for _ in range(times):
        job()
    return (time.process_time() - started) / times


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=parse_counts, default=(1024, 15360))
    parser.add_argument("--k", type=parse_numbers, default=(16.0, 16.0))
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--relevel", action="store_true")
    options = parser.parse_args()
    steps_planned = 10**6
    config = TrainConfig(
        acts=["random"],
        widths=options.widths,
        k=options.k,
        batch=options.batch,
        tokens=steps_planned * options.batch,
        curriculum="anneal=1",
        relevel=options.relevel,
    )
    config.check()
    generator = torch.Generator().manual_seed(0)
    model = build(config, options.d)
    assert isinstance(model, HierarchicalSAE)
    model.initialise(torch.zeros(options.d), 0)
    trainer = Trainer(model.train(), config, 1.0)
    batch_BD = bench.activations(options.batch, options.d, generator)
    for _ in range(3):  # until thresholds and allocations settle
        trainer.step(batch_BD)
    step = seconds(lambda: trainer.step(batch_BD), options.steps)
    fired = [code.fired for code in model.step(batch_BD, StepContext()).codes]
    count = seconds(lambda: model._count_firings(fired), options.steps)
    choose = seconds(lambda: model._update_tree(1.0), 3) / config.tree_every
    if options.relevel:
        choose += seconds(lambda: exchange(model.parts, model.own_counts, model.counts), 3) / config.tree_every / 2
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, latents {options.widths}, d {options.d}")
    for name, value in (("step", step), ("counting", count), ("parents and prices", choose)):
        print(f"{name:20} {1000 * value:9.1f} ms  {value / step:7.1%} of the step")


if __name__ == "__main__":
    main()
