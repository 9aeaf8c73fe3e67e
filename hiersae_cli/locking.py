"""Locks between programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hiersae_cli.errors import FileError


@contextmanager
def exclusive(folder: str | Path, wait: bool = True) -> Iterator[None]:
    """Keep other programs that ask for the same folder out of the block; do nothing on Windows, which has no flock.

    The folder itself is locked, so that no lock file stays in a run or an experiment. A folder that does not exist is
    made, and removed at the end if it is still empty.
    Raises ``FileError`` if another program is in its block, unless ``wait``.
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = None
    try:
        handle = _locked(folder, wait)
        yield
    finally:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        if handle is not None:
            os.close(handle)


def _locked(folder: Path, wait: bool) -> int | None:
    """The handle whose lock nobody else has, until it is closed."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = _holder(handle)
            os.close(handle)
            who = "another program" if holder is None else f"another program, process {holder},"
            raise FileError(f"{folder}: {who} is writing it", "Wait until it has ended, or stop it.") from None
        except OSError:  # a file system without locks
            return handle
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(folder)):
                return handle
        # The program that had the lock has removed the folder.
        os.close(handle)
        folder.mkdir(parents=True, exist_ok=True)


def _holder(handle: int) -> int | None:
    """The process that has the lock on an open folder, if this system has a list of locks."""
    with suppress(OSError, ValueError, IndexError):
        inode = str(os.fstat(handle).st_ino)
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, _, pid, place, *_ = line.split()  # 1: FLOCK ADVISORY WRITE 4815 fe:00:2171666 0 EOF
            if kind == "FLOCK" and place.rpartition(":")[2] == inode and int(pid) > 0:
                return int(pid)
    return None
