"""Write the activations of a text while the host computes them."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import torch

from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import ActivationsWriter
from hiersae_cli.host.model import Host
from hiersae_cli.host.windows import Windows, padded
from hiersae_cli.interrupt import Interrupted, stoppable
from hiersae_cli.workflows.common.outliers import FirstLook

COMMIT_SECONDS = 5.0
_MOST_PENDING = 8  # batches that wait for the disk: a slow moment of the disk does not stop the model


def write_rows(
    writer: ActivationsWriter,
    host: Host,
    windows: Windows,
    batches: np.ndarray,
    modules: list[str],
    dtype: str,
    look: FirstLook,
    console: Console,
) -> None:
    """Run the model over ``batches`` and write its activations.

    On a GPU, a thread writes while the model works. A CPU's cores are all busy with the model, whose threads wait for
    each other: a writing thread that delays one of them costs more time than writing between batches.
    """
    store = _Store(writer, windows, getattr(torch, dtype))
    with (
        stoppable() as stopping,
        console.progress("cache", writer.rows, "tokens", done=writer.rows_committed) as progress,
        ThreadPoolExecutor(max_workers=1) as disk,
    ):
        pending: deque[Future[None]] = deque()
        try:
            for low, high in batches:
                starts = windows.starts[low : high + 1]
                tokens_BT, keep_BT = _pad(windows.tokens, starts)
                rows = host.rows(tokens_BT, keep_BT, modules)
                look.add(rows, windows.position[starts[0] : starts[-1]])
                blocks = store.prepare(int(starts[0]), rows)
                if host.device.type == "cpu":
                    store.write(int(starts[0]), int(starts[-1]), blocks)
                else:
                    if len(pending) == _MOST_PENDING:
                        pending.popleft().result()
                    pending.append(disk.submit(store.write, int(starts[0]), int(starts[-1]), blocks))
                progress.advance(int(starts[-1] - starts[0]))
                if stopping():
                    break
            for batch in pending:
                batch.result()
            look.close()
        finally:
            # After an error, too: the rows computed so far are kept.
            wait(pending)
            store.commit()
        if store.done < writer.rows:
            raise Interrupted(f"{writer.partial}: stopped at row {store.done:,} of {writer.rows:,}")


class NotFiniteError(FileError):
    """An activation of the host is not finite, or too large for the type on the disk."""


_Blocks = dict[str, tuple[np.ndarray, np.ndarray]]


class _Store:
    """Writes the rows of one batch after the other, and commits them every few seconds.

    ``prepare`` computes; ``write`` only waits for the disk and may run in another thread.
    """

    def __init__(self, writer: ActivationsWriter, windows: Windows, dtype: torch.dtype):
        self.done = writer.rows_committed
        self._writer, self._windows, self._dtype = writer, windows, dtype
        self._committed = time.monotonic()

    def prepare(self, start: int, rows: dict[str, torch.Tensor]) -> _Blocks:
        """The rows (n, d) of each module, from row ``start`` of the text, in the form on the disk, with norms (n,)."""
        blocks = {}
        for path, x in rows.items():
            stored = x.to(self._dtype)
            norms = stored.float().norm(dim=1)
            if not norms.isfinite().all():
                raise self._not_finite(path, start, x, norms)
            raw = stored.view(torch.uint16) if self._dtype == torch.bfloat16 else stored
            blocks[path] = (raw.cpu().numpy(), norms.cpu().numpy())
        return blocks

    def write(self, start: int, stop: int, blocks: _Blocks) -> None:
        """Store rows ``start`` to ``stop`` of the text."""
        first = self._writer.header["first_row"]
        for path, (raw, norms) in blocks.items():
            self._writer.write(path, start - first, raw, norms)
        self.done = stop - first
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make the stored rows safe from a crash."""
        if self.done > self._writer.rows_committed:
            self._writer.commit(self.done)
        self._committed = time.monotonic()

    def _not_finite(self, path: str, start: int, x: torch.Tensor, norms: torch.Tensor) -> NotFiniteError:
        at = int((~norms.isfinite()).nonzero()[0])
        row = start + at
        rows = f"{self._windows.names[self._windows.document[row]]}: the activations of {path} at row {row:,}"
        if x[at].isfinite().all():
            return NotFiniteError(
                f"{rows} are too large for {str(self._dtype)[6:]}", "Give --dtype float32 or bfloat16."
            )
        if x.dtype != torch.float16:  # bfloat16 reaches as far as float32
            return NotFiniteError(f"{rows} are not finite", "The host's weights are damaged: fetch the model again.")
        return NotFiniteError(
            f"{rows} are not finite", "The host overflows in float16: run it with --model-dtype float32 or bfloat16."
        )


def _pad(tokens: np.ndarray, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows as one batch (B, T), and which positions are not padding.

    Shorter windows end in padding, which the earlier positions of a causal model do not see.
    """
    lengths = np.diff(starts)
    keep = np.arange(lengths.max()) < lengths[:, None]
    return torch.from_numpy(padded(tokens, starts[:-1], lengths)), torch.from_numpy(keep)
