"""Rows for ``trees.py``: the same rows in the same order for whatever is trained, and other rows to measure on.

Legend of shapes: B rows of a batch, N true features, D width.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from hiersae_cli.config.synth import Shape, resolve
from hiersae_cli.console import Console
from hiersae_cli.formats.activations import HELD_OUT, TRAIN, ActivationSet
from hiersae_cli.formats.activations.stream import ShuffledRows
from hiersae_cli.formats.atomic import replacing, require_space, write_json
from hiersae_cli.synth import Stream, Truth, block_seed, generator

BATCH = 2048
_BUFFER = 256 * 10**6  # bytes of memory for shuffling a cache
_ORDERS = 10  # places at which seeds begin to read drawn rows


class Rows(Protocol):
    """What is trained and measured on.

    Attributes:
        width: D.
        truth: what the rows were drawn from, if that is known.
        fingerprint: sha256 of the truth or of the cache.
    """

    width: int
    truth: Truth | None
    fingerprint: str

    def training(self, seed: int) -> Iterator[torch.Tensor]:
        """Endless batches (B, D) in the order of a seed."""

    def fitting(self) -> Iterator[torch.Tensor]:
        """Training rows, the same for all, that post-hoc trees and codes are fitted on."""

    def held_out(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Rows that nothing is trained on, with their true features' magnitudes (B, N) where there is a truth."""


class DrawnRows:
    """Rows of a truth, of which batch n is always the same.

    On a CPU, where drawing takes as long as training, they are drawn once into a file of float32 numbers under
    ``scratch``, which later runs read, and lengthen where they need more; on a GPU they are drawn again for every
    training. There are ``samples`` rows; seed s begins s tenths of the way through them (modulo 10) and goes round.
    """

    def __init__(
        self,
        preset: str,
        shape: Shape,
        samples: int,
        held_out: int,
        fitting: int,
        scratch: Path,
        device: torch.device,
        console: Console,
    ):
        self._batches, self._held_out, self._fitting = (-(-rows // BATCH) for rows in (samples, held_out, fitting))
        self._device = device
        scratch.mkdir(parents=True, exist_ok=True)
        shape = resolve(preset, shape)
        name = f"{preset}-{hashlib.sha256(repr(shape).encode()).hexdigest()[:8]}"
        directions = scratch / f"{name}-directions.npy"
        known = torch.from_numpy(np.load(directions)) if directions.exists() else None
        if known is None:
            console.say(f"making the truth of {preset}")
        self._generator = generator(preset, shape, device, known)
        self.truth, self.width = self._generator.truth, self._generator.width
        self.fingerprint = self.truth.fingerprint()
        if known is None:
            with replacing(directions) as temporary, open(temporary, "wb") as file:
                np.save(file, self.truth.features_ND.numpy())
        self._file = None
        if device.type != "cuda":
            description = {**self._generator.describe(), "rows_a_block": BATCH}
            name = f"{preset}-{hashlib.sha256(json.dumps(description).encode()).hexdigest()[:8]}"
            write_json(scratch / f"{name}.json", description)
            self._file = self._drawn(scratch / f"{name}.float32", console)

    def _drawn(self, path: Path, console: Console) -> np.ndarray:
        """The file as an array (rows, D), with as many rows as are wanted."""
        batch_bytes = BATCH * self.width * 4
        with open(path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another benchmark may be drawing the same rows
            done = path.stat().st_size // batch_bytes
            file.truncate(done * batch_bytes)
            require_space(path, max(0, self._batches - done) * batch_bytes)
            if done < self._batches:
                with console.progress(f"drawing {path}", self._batches * BATCH, "rows", done=done * BATCH) as progress:
                    for number in range(done, self._batches):
                        file.write(self._draw(Stream.TRAINING, number)[0].numpy().data)
                        progress.advance(BATCH)
        return np.memmap(path, np.float32, "r").reshape(-1, self.width)

    def _draw(self, stream: Stream, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._generator.sample(BATCH, block_seed(0, stream, number))

    def _batch(self, number: int) -> torch.Tensor:
        if self._file is None:
            return self._draw(Stream.TRAINING, number)[0]
        return torch.from_numpy(np.array(self._file[number * BATCH : (number + 1) * BATCH]))

    def training(self, seed: int) -> Iterator[torch.Tensor]:
        number = seed % _ORDERS * self._batches // _ORDERS
        while True:
            yield self._batch(number % self._batches)
            number += 1

    def fitting(self) -> Iterator[torch.Tensor]:
        for number in range(min(self._fitting, self._batches)):
            yield self._batch(number).to(self._device)

    def held_out(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        for number in range(self._held_out):
            x_BD, truth_BN = self._draw(Stream.FILE, number)
            yield x_BD.to(self._device), truth_BN.to(self._device)


class CachedRows:
    """Rows of a cache of ``hiersae cache``; the seed is that of their order."""

    truth = None

    def __init__(self, acts: str, held_out: int, fitting: int, device: torch.device):
        self._acts, self._device = ActivationSet([acts]), device
        self._acts.check_finite()
        self.width = self._acts.width
        self.fingerprint = next(iter(self._acts.fingerprints().values()))
        self._held_out = np.flatnonzero(self._acts.usable(HELD_OUT))[:held_out]
        rows = np.flatnonzero(self._acts.usable(TRAIN))
        self._fitting = np.sort(np.random.default_rng(0).choice(rows, min(fitting, len(rows)), replace=False))

    def training(self, seed: int) -> Iterator[torch.Tensor]:
        return ShuffledRows(self._acts, _BUFFER, seed).batches(BATCH)

    def fitting(self) -> Iterator[torch.Tensor]:
        return self._at(self._fitting)

    def held_out(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        return ((x_BD, None) for x_BD in self._at(self._held_out))

    def _at(self, rows: np.ndarray) -> Iterator[torch.Tensor]:
        for start in range(0, len(rows), BATCH):
            yield self._acts.rows_at(rows[start : start + BATCH]).to(self._device, torch.float32)


def moments(rows: Rows) -> tuple[torch.Tensor, float]:
    """Mean (D,) of the rows, and what to multiply them with for a mean squared deviation of D."""
    count, total_D, square = 0, torch.zeros(rows.width, dtype=torch.float64), 0.0
    for x_BD in rows.fitting():
        count, total_D = count + len(x_BD), total_D + x_BD.sum(0).cpu()
        square += float(x_BD.double().square().sum())
    mean_D = total_D / count
    return mean_D.float(), (rows.width / (square / count - float(mean_D @ mean_D))) ** 0.5
