"""``hiersae train --log``: the figures of metrics.jsonl, also in TensorBoard, Weights & Biases or Trackio.

metrics.jsonl stays the source: a tracker gets each of its lines after it is written, and a tracker that fails does not
stop training.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from string import ascii_lowercase
from typing import Any, Protocol

from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats.optional import optional_package
from hiersae_cli.formats.run import RunFolder

_TOTAL = "total"


class Tracker(Protocol):
    """A place that shows the figures of a run while it trains."""

    def log(self, figures: dict[str, Any]) -> None:
        """Show a line of metrics.jsonl, which has been written."""

    def close(self, failed: bool) -> None:
        """Finish; ``failed`` if training did not reach its end."""


@contextmanager
def tracked(
    config: TrainConfig, folder: RunFolder, header: Mapping[str, Any], console: Console
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Gives the function that writes a line of metrics.jsonl, and shows it in the tracker of ``config.log``.

    ``header`` is that of the run, so that a resumed run keeps its name and id in the tracker. Raises ``HierSAEError``
    if the tracker's library is missing or refuses to start. If it fails later, there is a warning, and training
    continues.
    """
    tracker = _open(config, folder, header, console)
    failed = True

    def attempt(function: Callable[..., None], *args: Any) -> None:
        nonlocal tracker
        try:
            with redirect_stdout(sys.stderr):  # standard output is for results
                function(*args)
        except Exception as error:
            tracker = None
            console.warn(f"--log {config.log}: {_one_line(error)}; all figures are in {folder.metrics_file}")

    def write(figures: dict[str, Any]) -> None:
        folder.append_metrics(figures)
        if tracker:
            attempt(tracker.log, figures)

    try:
        yield write
        failed = False
    finally:
        if tracker:
            attempt(tracker.close, failed)


def scalars(figures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by name: a list has a number for each level, by the level's letter."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, list):
            flat |= {f"{name}/{letter}": number for letter, number in zip(ascii_lowercase, value, strict=False)}
            if name == "l0":
                flat[f"{name}/{_TOTAL}"] = sum(value)
        elif isinstance(value, dict):
            flat |= {f"{name}/{key}": number for key, number in scalars(value).items()}
        elif isinstance(value, (int, float)) and name != "step":
            flat[name] = value
    return flat


class _TensorBoard:
    """Event files in the run's folder, which hold what metrics.jsonl holds: a resumed run writes them again."""

    def __init__(self, config: TrainConfig, folder: RunFolder, header: Mapping[str, Any], console: Console):
        optional_package("tensorboard", "--log tensorboard", "tensorboard")
        self._folder, self._header = folder, header
        self._writer: Any = None

    def log(self, figures: dict[str, Any]) -> None:
        if self._writer is not None:
            self._add(figures)
            return
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(self._folder.tensorboard, ignore_errors=True)
        self._writer = SummaryWriter(str(self._folder.tensorboard))
        text = json.dumps(self._header["config"], indent=2)
        self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        for line in self._folder.all_metrics():
            self._add(line)

    def _add(self, figures: dict[str, Any]) -> None:
        for name, value in scalars(figures).items():
            self._writer.add_scalar(name, value, figures["step"])
        self._writer.flush()

    def close(self, failed: bool) -> None:
        if self._writer is not None:
            self._writer.close()


class _WandB:
    """A run of Weights & Biases; its own settings (``WANDB_MODE=offline``, ``WANDB_ENTITY``) apply."""

    def __init__(self, config: TrainConfig, folder: RunFolder, header: Mapping[str, Any], console: Console):
        wandb = optional_package("wandb", "--log wandb", "wandb")
        self._run = wandb.init(
            project=config.log_project,
            name=_name(folder),
            id=_identity(folder, header),
            config=dict(header["config"]),
            resume="allow",
            settings=wandb.Settings(silent=console.quiet, console="off"),
        )

    def log(self, figures: dict[str, Any]) -> None:
        self._run.log(scalars(figures), step=figures["step"])

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Trackio:
    """A run of Trackio, in its folder (``TRACKIO_DIR``)."""

    def __init__(self, config: TrainConfig, folder: RunFolder, header: Mapping[str, Any], console: Console):
        trackio = optional_package("trackio", "--log trackio", "trackio")
        self._run = trackio.init(
            project=config.log_project,
            name=f"{_name(folder)}-{_identity(folder, header)[:6]}",
            config=dict(header["config"]),
            resume="allow",
            embed=False,
        )

    def log(self, figures: dict[str, Any]) -> None:
        self._run.log(scalars(figures), step=figures["step"])

    def close(self, failed: bool) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[..., Tracker]] = {"tensorboard": _TensorBoard, "wandb": _WandB, "trackio": _Trackio}


def _open(config: TrainConfig, folder: RunFolder, header: Mapping[str, Any], console: Console) -> Tracker | None:
    if not config.log:
        return None
    try:
        with redirect_stdout(sys.stderr):
            return _TRACKERS[config.log](config, folder, header, console)
    except HierSAEError:
        raise
    except Exception as error:
        hint = "Without a login or a network: WANDB_MODE=offline." if config.log == "wandb" else ""
        raise HierSAEError(f"--log {config.log}: {_one_line(error)}", hint) from None


def _name(folder: RunFolder) -> str:
    return folder.path.resolve().name


def _identity(folder: RunFolder, header: Mapping[str, Any]) -> str:
    """The same for a run when it is resumed, another one if it is trained again."""
    return hashlib.sha256(f"{folder.path.resolve()} {header['created']}".encode()).hexdigest()[:16]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
