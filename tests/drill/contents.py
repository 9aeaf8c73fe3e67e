"""What a folder holds, without the times at which it was made, so that two folders can be compared."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import safe_open

_TIMES = re.compile(r"created|time|(.*seconds|.*_per_second|.*time)(_mean|_stderr|_seeds)?|pid")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+\d\d:\d\d|Z| UTC)?")


def contents(folder: Path, random: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The content of every file below ``folder`` by its path there; of the ``random`` ones, only their names."""
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {str(path.relative_to(folder)): None if path.name in random else _content(path) for path in sorted(files)}


def left_over(names: set[str], reference: set[str]) -> list[str]:
    """Names that the reference lacks and that say that they are not final."""
    return sorted(name for name in names - reference if re.search(r"(^|/)\.|\.partial|(^|/)state/|\.tmp", name))


def _content(path: Path) -> Any:
    try:
        if path.suffix in (".json", ".jsonl"):
            return [_without_times(json.loads(line)) for line in _documents(path)]
        if path.suffix == ".h5":
            return _of_hdf5(path)
        if path.suffix == ".npy":  # of the experiment, in pickle
            return _without_times(np.load(path, allow_pickle=True).tolist())
        if path.suffix == ".safetensors":
            return _of_safetensors(path)
        if path.suffix == ".sqlite":
            return _of_sqlite(path)
        return _MOMENT.sub("", path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return path.read_bytes()
    except Exception as error:  # a file that nobody can read
        return f"damaged: {type(error).__name__}: {error}"


def _documents(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _without_times(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_times(value) for key, value in data.items() if not _TIMES.fullmatch(key)}
    if isinstance(data, list):
        return [_without_times(value) for value in data]
    return _MOMENT.sub("", data) if isinstance(data, str) else data


def _of_hdf5(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        values[f"{name}@"] = {key: repr(value) for key, value in item.attrs.items() if key != "created"}
        if isinstance(item, h5py.Dataset):
            data = np.asarray(item[()])
            if name == "header":
                values[name] = _without_times(json.loads(item[()]))
            else:
                content = repr(data.tolist()) if data.dtype == object else data.tobytes()
                values[name] = (data.dtype.str, data.shape, content)

    with h5py.File(path) as file:
        note("", file)
        file.visititems(note)
    return values


def _of_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, "np") as file:
        values: dict[str, Any] = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        described = {key: _described(value) for key, value in (file.metadata() or {}).items()}
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return {"tensors": values, "described": described, "bytes": path.read_bytes()[8 + size :]}


def _described(value: str) -> Any:
    return _without_times(json.loads(value)) if value.startswith("{") else value


def _of_sqlite(path: Path) -> list[str]:
    with sqlite3.connect(path) as store:
        return [_MOMENT.sub("", line) for line in store.iterdump()]
