"""Packages of extras, which are imported only when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hiersae_cli.errors import HierSAEError, install_hint


def optional_package(name: str, purpose: str, extra: str = "notebook") -> Any:
    """A package of an extra; raises ``HierSAEError`` if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise HierSAEError(
            f"{purpose} needs {name}, which is not installed", f"pip install {name}. {install_hint(extra)}"
        ) from None
