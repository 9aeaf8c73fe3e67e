"""A checkpoint of training in several files, each with some rows of the tensors: one for each rank that wrote it.

``state/part-STEP-i-of-n.safetensors`` and ``state/state.safetensors.index.json``, which is replaced last and names the
parts. A tensor is called NAME if a part has all of it, ``NAME[first:end]`` if it has these rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json, write_json
from hiersae_cli.formats.fields import require_fields
from hiersae_cli.formats.tensors import opened_tensors, read_tensors, save_tensors

INDEX = "state.safetensors.index.json"
_PIECE = re.compile(r"(?P<name>.+)\[(?P<first>\d+):(?P<end>\d+)\]")

Runs = list[tuple[int, int]]
RunsOf = Callable[[str], Runs | None]  # the rows of a tensor that are wanted, by its name; None for all


def write_part(
    folder: Path, tensors: Mapping[str, torch.Tensor], step: int, part: int, parts: int, schema: str
) -> tuple[str, list[str]]:
    """Write one part; returns its name and those of its tensors, for ``write_index``."""
    name = f"part-{step}-{part + 1:05}-of-{parts:05}.safetensors"
    save_tensors(folder / name, tensors, {"schema": schema}, checked=True)
    return name, sorted(tensors)


def write_index(folder: Path, parts: list[tuple[str, list[str]]], step: int) -> None:
    """Make the parts the checkpoint, once all of them are written, and remove the parts of earlier ones."""
    places = {tensor: file for file, tensors in parts for tensor in tensors}
    write_json(folder / INDEX, {"metadata": {"step": step, "parts": len(parts)}, "weight_map": places})
    remove_parts(folder, set(places.values()))


def remove_parts(folder: Path, but: set[str] | None = None) -> None:
    """Remove parts, except those named; without names also the index."""
    if but is None:
        (folder / INDEX).unlink(missing_ok=True)
    for file in folder.glob("part-*-of-*.safetensors"):
        if file.name not in (but or ()):
            file.unlink(missing_ok=True)


def step_of(folder: Path, hint: str) -> int:
    """The step of the checkpoint in parts; -1 if there is none."""
    if not (folder / INDEX).exists():
        return -1
    index = read_json(folder / INDEX)
    require_fields(folder / INDEX, index, {"metadata": {"step": int}, "weight_map": dict}, hint)
    return int(index["metadata"]["step"])


def read_parts(folder: Path, hint: str, runs_of: RunsOf) -> dict[str, torch.Tensor]:
    """The rows that ``runs_of`` names of every tensor, one part being in memory at a time; raises ``FileError``."""
    index = read_json(folder / INDEX)
    pieces: dict[str, dict[int, torch.Tensor]] = {}
    for file in sorted(set(index["weight_map"].values())):
        path = folder / Path(file).name
        if not path.exists():
            raise FileError(f"{path}: this part of the checkpoint is missing", hint)
        for piece, tensor in read_tensors(path, hint).items():
            match = _PIECE.fullmatch(piece)
            name, first = (match["name"], int(match["first"])) if match else (piece, 0)
            runs = runs_of(name) if match else None
            for start, stop in [(first, first + len(tensor))] if runs is None and match else runs or []:
                low, high = max(start, first), min(stop, first + len(tensor))
                if low < high:
                    pieces.setdefault(name, {})[low] = tensor[low - first : high - first].clone()
            if not match:
                pieces[name] = {0: tensor}
    return {
        name: torch.cat([parts[start] for start in sorted(parts)]) if len(parts) > 1 else next(iter(parts.values()))
        for name, parts in pieces.items()
    }


def read_rows(path: Path, hint: str, runs_of: RunsOf) -> dict[str, torch.Tensor]:
    """The same from a checkpoint in one file."""
    with opened_tensors(path, hint) as file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            runs = runs_of(name)
            if runs is None:
                tensors[name] = file.get_tensor(name)
            else:
                rows = file.get_slice(name)
                tensors[name] = torch.cat([rows[start:stop] for start, stop in runs])
    return tensors
