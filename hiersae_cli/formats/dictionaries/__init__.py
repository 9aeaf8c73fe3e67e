"""Dictionaries of other tools: SAELens, sparsify and dictionary_learning are read, and the first two also written.

None of these tools is needed: their files are JSON, safetensors and, for dictionary_learning, a state dictionary, which
is read without running any code in it.
"""

from __future__ import annotations

from pathlib import Path

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.dictionaries import dictionary_learning, saelens, sparsify
from hiersae_cli.formats.dictionaries.base import HINT, ForeignDictionary
from hiersae_cli.reading import reading

__all__ = ["WEIGHTS", "ForeignDictionary", "read_dictionary", "recognise"]

# By the file of weights, which tells whose folder it is.
_TOOLS = {module.WEIGHTS: module for module in (saelens, sparsify, dictionary_learning)}
WEIGHTS = frozenset(_TOOLS)  # names of these files


def recognise(path: Path) -> str | None:
    """The tool whose dictionary a folder holds, or None."""
    return next((module.TOOL for name, module in _TOOLS.items() if (path / name).is_file()), None)


def read_dictionary(path: Path) -> ForeignDictionary:
    """A dictionary of another tool, recognised by the files in its folder.

    Raises ``UsageError`` if there is none, ``FileError`` if it is damaged or a run cannot hold it.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such folder", "Check the path.")
    if path.is_file():
        raise UsageError(f"{path}: this is a file; a dictionary is a folder", f"Give {path.parent}.")
    modules = [module for name, module in _TOOLS.items() if (path / name).is_file()]
    if len(modules) > 1:
        tools = " and of ".join(module.TOOL for module in modules)
        raise FileError(f"{path}: holds weights of {tools}", "Keep only one of them in it.")
    if not modules:
        within = sorted(child.name for child in path.iterdir() if child.is_dir() and recognise(child))
        hint = f"Folders in it that do: {', '.join(within[:8])}." if within else f"One holds {' or '.join(_TOOLS)}."
        raise UsageError(f"{path}: no dictionary of another tool in this folder", hint)
    with reading(path, HINT):
        return modules[0].read(path)
