"""``hiersae train``: acts.h5, or synthetic activations -> run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext, suppress
from functools import partial
from itertools import islice
from typing import Any

import torch

from hiersae_cli.config.base import first_difference
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.device import keep_freed_memory
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import refuse_existing
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import SCHEMA, SCHEMA_VERSION, RunFolder
from hiersae_cli.interrupt import Interrupted, stoppable
from hiersae_cli.locking import exclusive
from hiersae_cli.metrics.spectrum import Spectrum
from hiersae_cli.reading import reading
from hiersae_cli.sae.base import SparseAutoencoder, geometric_median
from hiersae_cli.sae.training import Trainer
from hiersae_cli.workflows.common import sizing
from hiersae_cli.workflows.train.sources import Source, open_source
from hiersae_cli.workflows.train.team import Solo, team_of
from hiersae_cli.workflows.train.tracking import tracked

_CALIBRATION_BATCHES = 32
_MEDIAN_ROWS = 16_384

OnStep = Callable[[int, dict[str, Any]], object]


def run(config: TrainConfig, console: Console | None = None, on_step: OnStep | None = None) -> dict[str, Any]:
    """Train a model, or resume an unfinished run of the same configuration, with the same result.

    ``on_step`` is called after every step with its number and the last line of metrics, empty before the first. If it
    raises, a checkpoint is written and the error goes on. Returns the last line of metrics, with the path of the run.
    Raises ``UsageError`` and ``FileError``.
    """
    team, folder = team_of(config, console or Console.silent()), RunFolder(config.out)
    team.together(lambda: _refuse(folder, team.restarted or team.overwrites(folder)) if team.writes else None)
    with ExitStack() as stack:
        team.together(lambda: stack.enter_context(team.locked(folder)))
        return _train(config, folder, team, on_step)


def _train(config: TrainConfig, folder: RunFolder, team: Solo, on_step: OnStep | None) -> dict[str, Any]:
    console = team.console
    if config.synth:
        console.say(f"{folder.path}: making the truth of {config.synth}")
    source, spectrum, trainer = team.together(partial(_prepare, config, team))
    run_header = {
        **header(SCHEMA, SCHEMA_VERSION, config, source.inputs),
        "module": source.module,
        "width": source.width,
        "host": source.host,
    }
    interval = Interval()
    begin: Callable[[], None] | None = None
    if team.together(lambda: _resumes(folder, team.overwrites(folder), run_header)):
        if (state := team.together(lambda: team.read_state(folder, trainer))) is not None:
            with reading(folder.state_file, "Start again with --overwrite."):
                trainer.restore(state)
                interval.restore(state, team.device)
        if team.together(folder.is_complete):  # a rank has died after the end
            console.say(f"{folder.path}: done already")
            return _summary(folder, source, folder.last_metrics())
        if team.writes:
            folder.keep_metrics_until(trainer.step_number)
        run_header = folder.read_header()
        console.say(f"{folder.path}: resuming from step {trainer.step_number:,} of {config.steps:,}")
    elif team.writes:
        if folder.config_file.exists() and (others := folder.others()):
            console.warn(f"{folder.path}: {', '.join(others)} stay, though they may belong to the earlier run")
        begin = partial(folder.begin, run_header)
    team.equalise(trainer)
    console.say(
        f"{folder.path}: {config.arch} with {' + '.join(f'{w:,}' for w in config.widths)} latents on {source.module} "
        f"({source.width}), {config.steps:,} steps of {config.batch:,}, {source.extent(config.tokens)}"
    )
    if spectrum:
        console.say(f"{folder.path}: {sizing.figures_of(config, spectrum)}")
    for caution in [*source.cautions(config.tokens), *sizing.warnings(config, spectrum)]:
        console.warn(caution)
    tracking = tracked(config, folder, run_header, console) if team.writes else nullcontext(_write_nothing)
    with tracking as write_metrics:
        figures = _loop(config, trainer, interval, source, folder, team, write_metrics, begin, on_step)
        trainer.calibrate(_new_batches(config, source))
        whole = team.whole(trainer)
        hardening = whole.harden(_new_batches(config, source)) if whole and config.harden else {}
        if hardening:
            write_metrics({**figures, "hardening": hardening})
    if hardening:
        console.say(
            f"{folder.path}: hardened: fvu {hardening['fvu_soft']:.4f} -> {hardening['fvu']:.4f}, "
            f"L0 {hardening['l0_soft']:.1f} -> {hardening['l0']:.1f} on new rows"
        )
    if whole:
        folder.write_model(whole.folded(), config.steps, config.steps)
        folder.remove_state()
    source.close()
    console.say(
        f"{folder.path}: over the last {(config.steps - 1) % config.log_every + 1} steps fvu {figures['fvu']:.4f}, "
        f"L0 {sum(figures['l0']):.1f}; {figures['dead']:.1%} dead in the last {config.dead_after:,} rows"
    )
    return _summary(folder, source, figures)


def _summary(folder: RunFolder, source: Source, figures: dict[str, Any]) -> dict[str, Any]:
    return {"run": str(folder.path), "host": source.host["name"], "synthetic": source.synthetic, **figures}


def _prepare(config: TrainConfig, team: Solo) -> tuple[Source, Spectrum | None, Trainer]:
    """Open the source, and make the model of this rank."""
    source = open_source(config, team.device)
    config.fit_to(source.rows)
    keep_freed_memory()
    spectrum = source.spectrum()
    return source, spectrum, _trainer(config, source, spectrum, team)


def _new_batches(config: TrainConfig, source: Source) -> Iterator[torch.Tensor]:
    """The batches after the last of training."""
    return islice(source.batches(config.batch, first=config.steps), _CALIBRATION_BATCHES)


def _write_nothing(figures: dict[str, Any]) -> None:
    """What ranks do with a line of metrics that another one writes."""


def _refuse(folder: RunFolder, overwrite: bool) -> None:
    """Raise ``FileError``, before any work, if the folder must not be written."""
    if not folder.path.is_dir():
        refuse_existing(folder.path, overwrite=False)
    others = folder.others()
    if not folder.config_file.exists():
        if others:
            raise FileError(f"{folder.path}: a folder with other files in it", "Choose another --out.")
        return
    # Only our runs may be replaced: read_header refuses folders of other tools, which have a config.json too.
    converted = folder.read_header().get("converted")
    if not overwrite and folder.is_complete():
        if (state := folder.state_file.parent).exists():  # after a kill at the end
            with suppress(FileError, OSError), exclusive(state, wait=False):
                folder.remove_state()
        tool = converted and converted["tool"]
        problem = f"holds a dictionary of {tool}, which cannot be trained further" if tool else "already exists"
        raise FileError(f"{folder.path}: {problem}", "Give --overwrite to replace it, or choose another --out.")


def _resumes(folder: RunFolder, overwrite: bool, run_header: dict[str, Any]) -> bool:
    """Whether the folder holds an unfinished run of the same configuration; that of another one is refused."""
    if overwrite or not folder.config_file.exists():
        return False
    saved = folder.read_header()
    difference = first_difference(saved["config"], run_header["config"])
    for key in ("module", "width", "host"):
        difference = difference or first_difference({key: saved[key]}, {key: run_header[key]})
    # The contents of the caches must be the same, not their paths.
    if not difference and list(saved["inputs"].values()) != list(run_header["inputs"].values()):
        difference = "the caches are not the same as at its start"
    if difference:
        raise FileError(
            f"{folder.path}: an unfinished run of another configuration is in the way: {difference}",
            "Give the same flags to resume it, or --overwrite to begin again.",
        )
    return True


def _trainer(config: TrainConfig, source: Source, spectrum: Spectrum | None, team: Solo) -> Trainer:
    mean, mean_square = source.moments()
    variance = mean_square - float(mean @ mean)
    if variance <= 0:
        raise FileError(f"{', '.join(source.inputs)}: the activations do not vary", "There is nothing to learn.")
    scale = (source.width / variance) ** 0.5
    centre_D = torch.from_numpy(mean).float()
    if config.bias_start == "median":
        (first_BD,) = islice(source.batches(_MEDIAN_ROWS), 1)
        centre_D = geometric_median(first_BD).cpu()
    relative_D = torch.ones(source.width)
    if spectrum:
        relative_D = torch.from_numpy(spectrum.relative_scale(config.normalise)).float()
    if config.dtype == "bfloat16" and team.device.type == "mps":
        raise UsageError("--dtype bfloat16: not on mps", "Use --dtype float32.")

    def make(model: SparseAutoencoder, shared: int = 0) -> Trainer:
        model.initialise(centre_D * scale * relative_D, config.seeds.init)
        return Trainer(model.to(team.device).train(), config, scale, relative_D, shared)

    return team.trainer(source.width, make)


def _loop(
    config: TrainConfig,
    trainer: Trainer,
    interval: Interval,
    source: Source,
    folder: RunFolder,
    team: Solo,
    write_metrics: Callable[[dict[str, Any]], None],
    begin: Callable[[], None] | None,
    on_step: OnStep | None,
) -> dict[str, Any]:
    """Train to the end; returns the figures of the last interval.

    ``begin`` is called after the first step, so that a start that fails leaves an earlier run as it was.
    """
    saved_at = time.monotonic()
    figures = folder.last_metrics() if trainer.step_number else {}  # needed if no step is left
    total, done = config.steps * config.batch, trainer.step_number * config.batch
    second_stops = team.mesh.count == 1
    with (
        stoppable(second_stops) as stopping,
        closing(source.batches(config.batch, first=trainer.step_number)) as stream,
        team.console.progress("train", total, "tokens", done=done) as progress,
    ):
        while trainer.step_number < config.steps:
            interval.add(trainer.step(next(stream)))
            if begin:
                begin()
                begin = None
            last = trainer.step_number == config.steps
            if trainer.step_number % config.log_every == 0 or last:
                figures = interval.close(trainer, team)
                trainer.require_finite(figures["loss"])
                write_metrics(figures)
            progress.advance(config.batch, **_display(figures))
            if on_step:
                try:
                    on_step(trainer.step_number, figures)
                except BaseException:
                    if team.mesh.count == 1:  # others do not know of the error
                        team.checkpoint(folder, trainer, interval.state())
                    raise
            if last:
                break
            due = time.monotonic() - saved_at > config.checkpoint_seconds
            stop, save = team.agree(trainer.step_number, stopping(), due)
            if stop or save:
                team.checkpoint(folder, trainer, interval.state())
                saved_at = time.monotonic()
            if stop:
                raise Interrupted(f"{folder.path}: stopped at step {trainer.step_number:,} of {config.steps:,}")
    return figures


def _display(figures: dict[str, Any]) -> dict[str, str]:
    """The figures that the live display shows next to the speed, as text."""
    if not figures:
        return {}
    texts = {
        "fvu": f"{figures['fvu']:.4f}",
        "L0": "+".join(f"{value:.1f}" for value in figures["l0"]),
        "dead": f"{figures['dead']:.1%}",
    }
    return {**texts, "phase": figures["phase"]} if "phase" in figures else texts


class Interval:
    """Sums over the steps since the last line of the log, which stay on the device until the next line."""

    _PREFIX = "interval."

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._latest: dict[str, Any] = {}
        self._started = time.monotonic()

    def add(self, step: dict[str, Any]) -> None:
        """Add the figures that ``Trainer.step`` returned."""
        for name, value in step.items():
            if isinstance(value, torch.Tensor):
                self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._latest = {name: value for name, value in step.items() if not isinstance(value, torch.Tensor)}

    def close(self, trainer: Trainer, team: Solo) -> dict[str, Any]:
        """The line of the log, with FVU as a ratio of sums over the interval and means; starts a new interval."""
        sums = self._sums
        rows, steps = float(sums["rows"]), float(sums["steps"])
        variance = float(sums["square"] - sums["sum"].square().sum() / rows)
        figures = {
            "step": trainer.step_number,
            "tokens": trainer.step_number * trainer.config.batch,
            "loss": float(sums["loss"]) / steps,
            "fvu": float(sums["error"]) / variance,
            "l0": [value / rows for value in sums["active"].tolist()],
            "dead": trainer.dead_share(),
            "lr": trainer.optimizer.param_groups[0]["lr"],
            "gradient_norm": float(sums["gradient_norm"]) / steps,
            **self._latest,
        }
        if "error_levels" in sums:
            figures["fvu_levels"] = [error / variance for error in sums["error_levels"].tolist()]
        seconds = time.monotonic() - self._started
        figures["tokens_per_second"] = round(rows / seconds)
        figures |= team.figures(seconds)
        team.equalise(trainer)
        self._sums, self._started = {}, time.monotonic()
        return figures

    def state(self) -> dict[str, torch.Tensor]:
        """The sums, for a checkpoint between two lines of the log."""
        return {self._PREFIX + name: value.detach().cpu() for name, value in self._sums.items()}

    def restore(self, tensors: dict[str, torch.Tensor], device: torch.device) -> None:
        """Load the sums that ``state`` returned."""
        self._sums = {
            name.removeprefix(self._PREFIX): value.to(device)
            for name, value in tensors.items()
            if name.startswith(self._PREFIX)
        }
