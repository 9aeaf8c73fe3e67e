"""The configuration that a file of ours records, to repeat the command that made it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py

from hiersae_cli.config.base import Config, typed
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import read_json
from hiersae_cli.formats.hdf5 import open_hdf5
from hiersae_cli.formats.stored import read_header
from hiersae_cli.reading import reading, require_regular

_HINT = "Name a file that the same command wrote, such as runs/hier/config.json for 'hiersae train'."


def recorded_flags(path: str, config_class: type[Config]) -> dict[str, Any]:
    """The flags of ``config_class`` that a file records, as texts where the command line takes texts.

    The file is JSON or HDF5; a run folder stands for its ``config.json``. Raises ``UsageError`` if there is no such
    file or another command wrote it, ``FileError`` if it is damaged or records no configuration.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    header = _header(file)
    config, inputs = header.get("config"), header.get("inputs", {})
    if not isinstance(config, dict) or not isinstance(inputs, dict):
        raise FileError(f"{file}: records no configuration of hiersae", _HINT)
    if header.get("converted"):
        raise UsageError(f"{file}: another tool trained this run, so there is no command to repeat", _HINT)
    parsers = {field.name: field.metadata.get("parse") for field in dataclasses.fields(config_class)}
    if unknown := sorted(set(config) - set(parsers)):
        raise UsageError(f"{file}: another command or release wrote it: {unknown[0]} is not one of the flags", _HINT)
    values = {**config, **config_class.flags_of_inputs(config, inputs)}
    return {name: _typed(value) if parsers[name] else value for name, value in values.items() if value is not None}


def _header(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise UsageError(f"{file}: no such file", _HINT)
    require_regular(file, _HINT)
    if not h5py.is_hdf5(file):
        header = read_json(file)
    else:
        with reading(file, _HINT), open_hdf5(file, "a file of hiersae", _HINT) as opened:
            header = read_header(opened)
    if not isinstance(header, dict):
        raise FileError(f"{file}: records no configuration of hiersae", _HINT)
    return header


def _typed(value: Any) -> str:
    return typed(tuple(value) if isinstance(value, list) else value)
