"""The run folder: ``config.json``, ``model.safetensors``, ``metrics.jsonl``, and ``state/`` while it trains.

Specified in ``docs/file-formats.md``.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from hiersae_cli.config import TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import read_json, replacing, write_json
from hiersae_cli.formats.provenance import check_schema, sha256_file
from hiersae_cli.sae import SparseAutoencoder, build

SCHEMA = "hiersae.run"
SCHEMA_VERSION = 1


class RunFolder:
    """Paths of a run, and writing and reading its files."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.model_file = self.path / "model.safetensors"
        self.metrics_file = self.path / "metrics.jsonl"
        self.state_file = self.path / "state" / "state.safetensors"

    def read_header(self) -> dict[str, Any]:
        """config.json; raises ``UsageError`` where there is no run, ``FileError`` where it is not readable."""
        if not self.config_file.exists():
            what = "no config.json in this folder" if self.path.is_dir() else "no such run folder"
            raise UsageError(f"{self.path}: {what}", "Make a run with 'hiersae train'.")
        header = read_json(self.config_file)
        check_schema(self.config_file, header, SCHEMA, SCHEMA_VERSION)
        return header

    def write_header(self, header: dict[str, Any]) -> None:
        """Begin a run."""
        write_json(self.config_file, header)

    def write_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Replace the checkpoint from which training goes on."""
        _save(self.state_file, tensors, {})

    def read_state(self) -> dict[str, torch.Tensor] | None:
        """The checkpoint, or None where there is none yet."""
        return _load(self.state_file) if self.state_file.exists() else None

    def write_model(self, tensors: dict[str, torch.Tensor], step: int, steps: int) -> None:
        """Replace the weights, which act on activations as cached, and say how far training had come."""
        _save(self.model_file, tensors, {"step": str(step), "steps": str(steps)})

    def progress(self) -> tuple[int, int]:
        """Steps done and steps planned, as the weights' file says; (0, 0) where there are no weights yet."""
        if not self.model_file.exists():
            return 0, 0
        try:
            with safe_open(self.model_file, "pt") as file:
                metadata = file.metadata() or {}
        except SafetensorError as error:
            raise _damaged(self.model_file, error) from None
        return int(metadata.get("step", 0)), int(metadata.get("steps", 0))

    def is_complete(self) -> bool:
        """Whether training has ended."""
        done, planned = self.progress()
        return planned > 0 and done == planned and not self.state_file.exists()

    def keep_metrics_until(self, step: int) -> None:
        """Drop lines of metrics.jsonl after ``step``: they will be written again."""
        if self.metrics_file.exists():
            lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            with replacing(self.metrics_file) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def append_metrics(self, figures: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(figures, allow_nan=False) + "\n")

    def remove_state(self) -> None:
        """End a run: nothing is left to go on with."""
        self.state_file.unlink(missing_ok=True)
        if self.state_file.parent.exists():
            os.rmdir(self.state_file.parent)


class Run:
    """A trained model with what its folder says of it.

    Attributes:
        name: the folder's name.
        config: the configuration of its training.
        header: all of config.json.
        model: the model, in evaluation mode, for activations as they are in the cache.
        sha256: of the weights' file.
        steps_done: optimizer steps that the weights have seen, of ``config.steps``.
    """

    def __init__(self, folder: RunFolder, header: dict[str, Any], config: TrainConfig, model: SparseAutoencoder):
        self.path, self.header, self.config, self.model = folder.path, header, config, model
        self.name = folder.path.resolve().name
        self.sha256 = sha256_file(folder.model_file)
        self.steps_done = folder.progress()[0]

    @property
    def module(self) -> str:
        """The hooked module that the model was trained on."""
        return str(self.header["module"])


def load_run(path: str | Path, device: str | torch.device = "cpu") -> Run:
    """Load a run, finished or at its last checkpoint.

    Raises ``UsageError`` where there is none, ``FileError`` where its files are damaged.
    """
    folder = RunFolder(path)
    header = folder.read_header()
    known = {field.name for field in fields(TrainConfig)}
    try:
        saved = {key: value for key, value in header["config"].items() if key in known}
        saved |= {key: tuple(saved[key]) for key in ("widths", "k")}
        config, width = TrainConfig(acts=[], **saved), int(header["width"])
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise _damaged(folder.config_file, error) from None
    if not folder.model_file.exists():
        raise FileError(f"{path}: no weights yet", "Run the same 'hiersae train' command again to go on.")
    model = build(config, width)
    try:
        model.load_state_dict(_load(folder.model_file))
    except RuntimeError as error:
        raise _damaged(folder.model_file, error) from None
    return Run(folder, header, config, model.to(device).eval())


def _save(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    with replacing(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {"schema": SCHEMA, **metadata})


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> FileError:
    reason = str(error).splitlines()[0]
    return FileError(f"{path}: damaged ({reason})", "Train the run again, with --overwrite.")
