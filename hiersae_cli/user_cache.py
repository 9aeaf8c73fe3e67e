"""The user's folder for files that later commands use again: compiled kernels, converted host models."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path | None:
    """``~/.cache/hiersae``, or the same in ``XDG_CACHE_HOME``; None if it is not a folder that only the user writes."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hiersae"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    user = os.getuid() if hasattr(os, "getuid") else status.st_uid
    private = status.st_uid == user and not status.st_mode & 0o022
    return folder if private and os.access(folder, os.W_OK) else None
