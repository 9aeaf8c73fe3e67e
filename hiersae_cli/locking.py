"""Locks between programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiersae_cli.errors import FileError


@contextmanager
def exclusive(folder: str | Path, wait: bool = True) -> Iterator[None]:
    """Keep other programs that ask for the same folder out of the block; do nothing on Windows, which has no flock.

    The folder itself is locked, so that no lock file stays in a run or an experiment.
    Raises ``FileError`` if another program is in its block, unless ``wait``.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise FileError(f"{folder}: another program is writing it", "Wait until it has ended.") from None
        yield
    finally:
        os.close(handle)
