"""Training by several processes of this machine, measured against the cost model, and what the model says of more.

    python -m benchmarks.scale [--ranks 1,2,4] [--widths 256,3840] [--k 8,8] [--d 256] [--batch 1024]
                              [--steps 20] [--dtype float32]
    python -m benchmarks.scale --computed

The first table is measured here, with gloo between processes. The model's times come from the messages of
``hiersae_cli.distributed.traffic``, and the latency and bandwidth of sums that are measured first; bytes are counted
exactly. The other tables are computed only: nothing in them has been run.
"""

from __future__ import annotations

import argparse
import os
import pickle
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.scale.model import ETHERNET, GPU, NVLINK, scaling, traffic_lines
from hiersae_cli.config.base import parse_counts, parse_numbers
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.distributed import traffic
from hiersae_cli.distributed.launch import launched
from hiersae_cli.distributed.ranks import Mesh
from hiersae_cli.sae.splitting import build_part
from hiersae_cli.sae.training import Trainer
from hiersae_cli.workflows import bench

_WARM_UP = 3  # steps


def on_ranks(ranks: int, function: Callable[[], Any]) -> Any:
    """What a function returns on the first of several forks of this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        pids = []
        for rank in range(ranks):
            pid = os.fork()
            if not pid:
                names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
                os.environ.update({**{name: str(value) for name, value in names.items()}, "MASTER_ADDR": "127.0.0.1"})
                try:
                    Path(folder, str(rank)).write_bytes(pickle.dumps(function()))
                finally:
                    os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        return pickle.loads(Path(folder, "0").read_bytes())


def job() -> Any:
    """The connection of this rank."""
    from hiersae_cli.distributed.group import Job

    place = launched()
    assert place
    return Job(place, torch.device("cpu"))


def link() -> traffic.Link:
    """Latency and bandwidth of this rank's sums, by the times of a short and a long one."""
    ranks = job().mesh(1).rows
    seconds = []
    for numbers in (1, 1 << 20):
        tensor = torch.zeros(numbers)
        times = []
        for _ in range(20):
            started = time.perf_counter()
            ranks.sum(tensor)
            times.append(time.perf_counter() - started)
        seconds.append(sorted(times)[len(times) // 2])
    hops = 2 * (ranks.count - 1)
    return traffic.Link(seconds[0] / hops, hops / ranks.count * (4 << 20) / max(seconds[1] - seconds[0], 1e-9))


def steps(options: argparse.Namespace, latent_ranks: int) -> tuple[float, float, float]:
    """Seconds of a step, those of it in messages, and bytes of its messages; medians."""
    connection = job() if launched() else None
    mesh = connection.mesh(latent_ranks) if connection else Mesh()
    count = options.steps + _WARM_UP
    config = TrainConfig(
        acts=["random"],
        widths=options.widths,
        k=options.k,
        batch=options.batch,
        tokens=10**4 * options.batch,
        dtype=options.dtype,
    )
    model, split = build_part(config, options.d, mesh)
    model.initialise(torch.zeros(options.d), 0)
    trainer = Trainer(model.train(), config, 1.0, shared=split.shared if split else 0)
    trainer.step_number = config.steps // 2  # all levels train
    batch_BD = bench.activations(options.batch, options.d, torch.Generator().manual_seed(0))
    times, messages, sizes = [], [], []
    for _ in range(count):
        sent = connection.sent if connection else 0
        started = time.perf_counter()
        trainer.step(batch_BD)
        times.append(time.perf_counter() - started)
        messages.append(connection.time_in_messages() if connection else 0.0)
        sizes.append(float(connection.sent - sent) if connection else 0.0)
    return _median(times), _median(messages), _median(sizes)


def _median(values: list[float]) -> float:
    return sorted(values[_WARM_UP:])[(len(values) - _WARM_UP) // 2]


def measured(options: argparse.Namespace) -> None:
    """Print the table of this machine."""
    torch.set_num_threads(1)
    number = 2 if options.dtype == "bfloat16" else 4
    sizes = traffic.Sizes(options.batch, options.d, options.widths, options.k, number=number)
    print("MEASURED here, one thread a process; in brackets what the model says")
    print(
        f"{'ranks':>5} {'way':>5} {'tokens/s':>9} {'ms a step':>10} {'ms in messages':>15} {'':>9} "
        f"{'MB a step':>10} {'':>9}"
    )
    alone, _, _ = on_ranks(1, lambda: steps(options, 1))
    for ranks in options.ranks:
        if ranks == 1:
            print(f"{1:5} {'':>5} {options.batch / alone:9,.0f} {1e3 * alone:10.1f}")
            continue
        here = on_ranks(ranks, link)
        print(f"  sums of {ranks}: {1e6 * here.latency:.0f} us a hop, {here.bandwidth / 1e9:.2f} GB/s")
        for way, latent_ranks in (("data", 1), ("tree", ranks)):
            seconds, waited, sent = on_ranks(ranks, lambda latent_ranks=latent_ranks: steps(options, latent_ranks))
            messages = traffic.of_data(sizes, ranks) if way == "data" else traffic.of_tree(sizes)
            computed = messages.seconds(ranks, here)
            print(
                f"{ranks:5} {way:>5} {options.batch / seconds:9,.0f} {1e3 * seconds:10.1f} {1e3 * waited:15.1f} "
                f"{f'[{1e3 * computed:.1f}]':>9} {sent / 1e6:10.2f} {f'[{messages.bytes / 1e6:.2f}]':>9}"
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=parse_counts, default=(1, 2, 4))
    parser.add_argument("--widths", type=parse_counts, default=(256, 3840))
    parser.add_argument("--k", type=parse_numbers, default=(8.0, 8.0))
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the products")
    parser.add_argument("--computed", action="store_true", help="only the computed tables")
    options = parser.parse_args()
    if not options.computed:
        measured(options)
    print(f"\nCOMPUTED, not run: {GPU.describe()}")
    for line in traffic_lines():
        print(line)
    for name, connection in (("NVLink", NVLINK), ("100 Gb/s Ethernet", ETHERNET)):
        print(f"\n{name}: {1e6 * connection.latency:.0f} us, {connection.bandwidth / 1e9:g} GB/s a rank")
        for line in scaling(connection):
            print(line)


if __name__ == "__main__":
    main()
