"""HierSAE: from a language model's activations to a tree of interpretable features.

The public Python API; see ``docs/python-api.md``. Names load on first use, so that importing the
package (as every command does) costs nothing.
"""

from __future__ import annotations

from importlib import import_module

_PUBLIC = {
    "Activations": "hiersae_cli.formats.activations",
    "Codes": "hiersae_cli.formats.codes",
    "HierSAEError": "hiersae_cli.errors",
    "__version__": "hiersae_cli.version",
    "load_acts": "hiersae_cli.formats.activations",
    "load_report": "hiersae_cli.formats.report",
    "load_run": "hiersae_cli.formats.run",
    "load_tree": "hiersae_cli.formats.tree",
    "cache": "hiersae_cli.api",
    "encode": "hiersae_cli.api",
    "evaluate": "hiersae_cli.api",
    "export_tree": "hiersae_cli.api",
    "lm": "hiersae_cli.api",
    "train": "hiersae_cli.api",
}

TYPE_CHECKING = False  # as in typing, whose import would take most of the time of this module's
if TYPE_CHECKING:
    from typing import Any

    from hiersae_cli.api import cache, encode, evaluate, export_tree, lm, train
    from hiersae_cli.errors import HierSAEError
    from hiersae_cli.formats.activations import Activations, load_acts
    from hiersae_cli.formats.codes import Codes
    from hiersae_cli.formats.report import load_report
    from hiersae_cli.formats.run import load_run
    from hiersae_cli.formats.tree import load_tree
    from hiersae_cli.version import __version__

__all__ = [
    "Activations",
    "Codes",
    "HierSAEError",
    "__version__",
    "cache",
    "encode",
    "evaluate",
    "export_tree",
    "lm",
    "load_acts",
    "load_report",
    "load_run",
    "load_tree",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
