"""Check that two caches hold rows of the same text, host and configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiersae_cli.config.base import first_difference
from hiersae_cli.errors import FileError


def require_same(path: Path, problem: str, saved: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ``FileError`` with the first key that decides the rows and differs between two caches' headers."""
    for group, owner in (("config", ""), ("host", "the host's "), ("text", "the text's "), ("content", "")):
        # A cache begun by an earlier version does not name its tokenizer.
        compared = {key: value for key, value in expected[group].items() if key != "tokenizer" or key in saved[group]}
        if difference := first_difference(saved[group], compared):
            raise FileError(f"{path}: {problem}: {owner}{difference}")
    if difference := first_difference({"batch": saved["batch"]}, {"batch": expected.get("batch", saved["batch"])}):
        raise FileError(f"{path}: {problem}: {difference}")
