"""The cost model of a training step on many GPUs: operations, bytes of memory, and messages. See ``docs/scale.md``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hiersae_cli.distributed import traffic
from hiersae_cli.distributed.traffic import Link, Sizes

WIDTH, BATCH, COARSE = 4096, 4096, 1024
LATENTS = {"131k": 131_072, "1M": 1_048_576, "16M": 16_777_216}
RANKS = (1, 2, 4, 8, 16, 32, 64)
NVLINK = Link(5e-6, 400e9)
ETHERNET = Link(30e-6, 12.5e9)


@dataclass(frozen=True)
class Device:
    """What a rank computes with: operations and bytes of memory a second, as far as they are reached."""

    operations: float
    memory: float
    capacity: float

    def describe(self) -> str:
        return (
            f"{self.operations / 1e12:g} TFLOP/s, {self.memory / 1e12:g} TB/s and {self.capacity / 1e9:g} GB a rank, "
            f"d = {WIDTH:,}, batch {BATCH:,}, two levels, {COARSE:,} latents in the first, L0 32 + 32, row-adam, "
            "bfloat16 products"
        )


GPU = Device(400e12, 2.5e12, 80e9)
_PASSES = 6  # over the rows of active latents: two products and their two gradients each
_ADAM = 7  # numbers of a weight that a step of Adam reads and writes


def sizes_of(latents: int, batch: int = BATCH) -> Sizes:
    """A hierarchy of two levels with ``latents`` in the second."""
    return Sizes(batch, WIDTH, (COARSE, latents), (32, 32), by_row=True, number=2)


def step_seconds(sizes: Sizes, rows: int, latents: int) -> float:
    """The time of a rank with ``rows`` of the batch and ``latents`` of the last level, without messages."""
    dense = 2.0 * rows * (COARSE + latents) * sizes.width
    firings = rows * (sizes.k[0] + sizes.k[1] * latents / sizes.widths[-1])
    active = 4.0 * _PASSES * firings * sizes.width
    touched = min(COARSE + latents, sizes.batch * (sizes.k[0] + sizes.k[1] * latents / sizes.widths[-1]))
    return dense / GPU.operations + (active + 4.0 * _ADAM * 2 * touched * sizes.width) / GPU.memory


def memory(latents: int) -> float:
    """Bytes of weights and both moments in float32, and of the counts of firings with parents."""
    return 4.0 * (3 * 2 * (COARSE + latents) * WIDTH + latents * COARSE)


def traffic_lines() -> Iterator[str]:
    """Bytes of a step by each way; of ``tree`` in float32 and bfloat16, without dead latents and with some."""
    yield f"{'':34}{'tree':>14}{'tree, some dead':>22}"
    yield f"bytes a step  data, adam    row-adam{'float32  bfloat16':>20}{'float32  bfloat16':>21}"
    for name, latents in LATENTS.items():
        sizes = sizes_of(latents)
        dense = traffic.of_data(replace(sizes, by_row=False), 64).bytes
        by_row = traffic.of_data(sizes, 64).bytes
        ways = [replace(sizes, number=number, revives=revives) for revives in (False, True) for number in (4, 2)]
        trees = "".join(f"{traffic.of_tree(way).bytes / 1e6:7,.0f} MB" for way in ways)
        yield f"{name:>4} latents {dense / 1e9:9,.1f} GB {by_row / 1e9:8,.1f} GB {trees}"


def scaling(link: Link) -> Iterator[str]:
    """Efficiency of 1 to 64 ranks, as a share of the ideal speed; a star marks what does not fit a GPU's memory."""
    yield f"{'':34}" + "".join(f"{ranks:>8}" for ranks in RANKS)
    for name, latents in LATENTS.items():
        sizes = sizes_of(latents)
        alone = step_seconds(sizes, BATCH, latents)
        cells = []
        for ranks in RANKS:
            seconds = step_seconds(sizes, BATCH, latents // ranks) + traffic.of_tree(sizes).seconds(ranks, link)
            cells.append(_cell(alone / ranks / seconds, memory(latents // ranks)))
        yield f"{f'tree, strong: {name} in all':34}" + "".join(cells)
        cells = []
        for ranks in RANKS:
            seconds = step_seconds(sizes, BATCH // ranks, latents) + traffic.of_data(sizes, ranks).seconds(ranks, link)
            cells.append(_cell(alone / ranks / seconds, memory(latents)))
        yield f"{f'data, strong: {name} on every rank':34}" + "".join(cells)
    first = LATENTS["131k"]
    alone = step_seconds(sizes_of(first), BATCH, first)
    cells = []
    for ranks in RANKS:
        sizes = sizes_of(first * ranks)
        seconds = step_seconds(sizes, BATCH, first) + traffic.of_tree(sizes).seconds(ranks, link)
        cells.append(_cell(alone / seconds, memory(first)))
    yield f"{'tree, weak: 131k a rank':34}" + "".join(cells)
    cells = []
    for ranks in RANKS:
        sizes = sizes_of(first, BATCH * ranks)
        seconds = step_seconds(sizes, BATCH, first) + traffic.of_data(sizes, ranks).seconds(ranks, link)
        cells.append(_cell(alone / seconds, memory(first)))
    yield f"{'data, weak: 131k, 4,096 rows a rank':34}" + "".join(cells)


def _cell(efficiency: float, bytes_a_rank: float) -> str:
    return f"{efficiency:7.0%}" + ("*" if bytes_a_rank > GPU.capacity else " ")
