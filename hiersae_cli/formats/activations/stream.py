"""Rows of a cache in a shuffled order, from a bounded amount of memory, starting anywhere.

The order depends only on the seed. In each epoch, the cache's blocks (a few hundred consecutive rows)
are permuted over the whole cache and divided into loads that fit the memory; a load's rows are
permuted again. So every batch mixes rows from hundreds of places in the cache, training can resume
from step n without any stored state, and memory does not depend on the cache's size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import torch

from hiersae_cli.formats.activations.activation_set import ActivationSet
from hiersae_cli.formats.activations.layout import TRAIN, block_rows


class ShuffledRows:
    """The endless stream of training rows of a set of caches.

    Args:
        acts: the caches.
        buffer_bytes: memory for two loads, the current one and the next.
        seed: fixes the order.
    """

    def __init__(self, acts: ActivationSet, buffer_bytes: int, seed: int):
        self._acts, self._seed = acts, seed
        row_bytes = acts.empty(1).nbytes
        self._block = block_rows(row_bytes)
        self._usable = acts.usable(TRAIN)
        firsts = np.arange(0, acts.rows, self._block)
        counts = np.add.reduceat(self._usable, firsts, dtype=np.int64)
        self._blocks, self._counts = firsts[counts > 0], counts[counts > 0]
        self.rows = int(self._counts.sum())
        blocks_a_load = max(1, buffer_bytes // 2 // (self._block * row_bytes))
        self._loads = -(-len(self._blocks) // blocks_a_load)

    def batches(self, size: int, first: int = 0) -> Generator[torch.Tensor]:
        """Batches (size, d), in the stored type, from batch number ``first`` on."""
        acts = self._acts
        parts: list[torch.Tensor] = []
        missing = size
        with closing(self._loads_from(first * size)) as loads:
            for load, order in loads:
                start = 0
                while start < len(order):
                    take = order[start : start + missing]
                    parts.append(load[take])
                    start, missing = start + len(take), missing - len(take)
                    if missing == 0:
                        yield acts.tensor((parts[0] if len(parts) == 1 else torch.cat(parts)).numpy())
                        parts, missing = [], size

    def _loads_from(self, row: int) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
        """Raw loads with the order of their rows; the next one is read while one is used."""
        epoch, skip = divmod(row, self.rows)
        with ThreadPoolExecutor(max_workers=1) as reader:
            plan = self._plan(epoch, skip)
            epoch, number, skip = next(plan)
            pending = reader.submit(self._load, epoch, number, skip)
            while True:
                loaded = pending.result()
                epoch, number, skip = next(plan)
                pending = reader.submit(self._load, epoch, number, skip)
                yield loaded

    def _plan(self, epoch: int, skip: int) -> Iterator[tuple[int, int, int]]:
        """(epoch, load, rows of it to skip), without end."""
        while True:
            for number, blocks in enumerate(self._blocks_of_loads(epoch)):
                count = int(self._counts[blocks].sum())
                if skip < count:
                    yield epoch, number, skip
                skip = max(0, skip - count)
            epoch += 1

    def _blocks_of_loads(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng((self._seed, epoch))
        return np.array_split(generator.permutation(len(self._blocks)), self._loads)

    def _load(self, epoch: int, number: int, skip: int) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = np.sort(self._blocks_of_loads(epoch)[number])
        raw = self._acts.empty(len(blocks) * self._block)
        usable = np.zeros(len(raw), bool)
        for place, block in enumerate(blocks):
            first = int(self._blocks[block])
            count = min(self._block, self._acts.rows - first)
            at = place * self._block
            self._acts.read_into(first, raw[at : at + count])
            usable[at : at + count] = self._usable[first : first + count]
        order = np.flatnonzero(usable)
        np.random.default_rng((self._seed, epoch, number)).shuffle(order)
        # uint16 (bfloat16's bits) has no indexing in torch on every device: int16 is the same bytes.
        view = raw.view(np.int16) if raw.dtype == np.uint16 else raw
        return torch.from_numpy(view), torch.from_numpy(order[skip:])
