"""HierSAE: from a language model's activations to a tree of interpretable features.

The public Python API; see ``docs/python-api.md``. Names load on first use, so that importing the
package (as every command does) costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hiersae_cli.version import __version__

_PUBLIC = {
    "Activations": "hiersae_cli.formats.activations",
    "Codes": "hiersae_cli.formats.codes",
    "load_tree": "hiersae_cli.formats.tree",
    "load_run": "hiersae_cli.formats.run",
    "HierSAEError": "hiersae_cli.errors",
}

if TYPE_CHECKING:
    from hiersae_cli.errors import HierSAEError
    from hiersae_cli.formats.activations import Activations
    from hiersae_cli.formats.codes import Codes
    from hiersae_cli.formats.run import load_run
    from hiersae_cli.formats.tree import load_tree

__all__ = ["Activations", "Codes", "HierSAEError", "__version__", "load_run", "load_tree"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
