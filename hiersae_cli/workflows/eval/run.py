"""``hiersae eval``: runs + acts.h5 (+ host) -> report.json, in passes.

Open the inputs, ``fit`` on training rows, ``encode`` held-out rows, ``splice`` into the host, ``score``, report.
The passes over rows are in ``passes.py``, the figures in ``score.py``, the report in ``report.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import HELD_OUT, TRAIN, ActivationSet, outliers
from hiersae_cli.formats.activations.sampled import spectrum_of, training_rows
from hiersae_cli.formats.run import Run, load_run
from hiersae_cli.host.model import Host
from hiersae_cli.metrics.intervals import Bootstrap
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.workflows.common.inputs import load_host, open_acts, require_match
from hiersae_cli.workflows.common.sharing import Sharing, sharing
from hiersae_cli.workflows.eval.outputs import publish, refuse
from hiersae_cli.workflows.eval.passes import Encoded, Setup, control_groups, encode, fit, other_seeds, splice
from hiersae_cli.workflows.eval.report import build_report
from hiersae_cli.workflows.eval.sample import Sample
from hiersae_cli.workflows.eval.score import Evaluation, Scored, ScoredGroup, score
from hiersae_cli.workflows.eval.subjects import SeedGroup, Subject, cautions, seed_groups
from hiersae_cli.workflows.eval.tasks import PreparedTasks, TaskResults, prepare_tasks
from hiersae_cli.workflows.eval.tasks.base import TaskInputs

_FIT_ROWS = 200_000  # training rows on which post-hoc trees and codes are fitted
_CONTROL_ROWS = 100_000  # the same for controls, and held-out rows on which they are measured


@dataclass(frozen=True)
class EvalInputs:
    """What was opened, before any pass over rows.

    Attributes:
        setup: the configuration, the console, the device and the caches.
        groups: the measured runs, then each configuration of baselines.
        further: runs only for the stability.
        host: the host model, if it was named.
        sample: the held-out rows to measure on.
        fit_rows: the training rows to fit on.
        tasks: the downstream tasks, if there are any.
        warnings: known reasons to doubt the figures.
    """

    setup: Setup
    groups: tuple[SeedGroup, ...]
    further: tuple[Subject, ...]
    host: Host | None
    sample: Sample
    fit_rows: np.ndarray
    tasks: PreparedTasks | None
    warnings: tuple[str, ...]

    @property
    def subjects(self) -> list[Subject]:
        """The dictionaries to measure."""
        return [subject for group in self.groups for subject in group.subjects]


def run(config: EvalConfig, console: Console | None = None) -> dict[str, Any]:
    """Measure runs, baselines and controls; returns the report.

    Raises ``UsageError`` and ``FileError`` if runs, caches and host do not belong together.
    """
    ranks = sharing()
    ranks.together(lambda: refuse(config) if ranks.writes else None)
    inputs = ranks.together(lambda: open_inputs(config, ranks.console(console), ranks))
    setup, sample, host = inputs.setup, inputs.sample, inputs.host

    training = fit(setup, [*inputs.subjects, *inputs.further], inputs.fit_rows, with_moments=config.controls)
    fitted, further = training.fitted[: len(inputs.subjects)], training.fitted[len(inputs.subjects) :]
    encoded = encode(setup, fitted, sample)
    controls = control_groups(setup, fitted, training.moments) if training.moments else ()
    encoded_controls = _encoded_controls(inputs, controls)
    loss = splice(setup, inputs.subjects, sample, host) if host else None
    live_further = other_seeds(setup, further, sample)
    if not ranks.writes:
        return ranks.of_all({})[0]
    bootstrap = Bootstrap(sample.blocks, config.resamples, config.seed)
    scored = _scored(inputs, [*encoded, *encoded_controls], loss, bootstrap)

    evaluation = Evaluation(
        config=config,
        module=setup.acts.module,
        fingerprints=setup.acts.fingerprints(),
        sample=sample,
        groups=_with_scores(inputs.groups, scored),
        controls=_with_scores(controls, scored),
        further=live_further,
        loss=loss,
        spectrum=spectrum_of(setup.acts),
        tasks=inputs.tasks,
        bootstrap=bootstrap,
        warnings=inputs.warnings,
    )
    report = build_report(evaluation)
    publish(report, evaluation, setup.console)
    return ranks.of_all(report)[0]


def open_inputs(config: EvalConfig, console: Console, ranks: Sharing) -> EvalInputs:
    """Open runs, caches and host, choose rows, and prepare the tasks."""
    device = resolve_device(config.device, ranks.local_rank)
    runs, baselines, others = (
        [load_run(path, device) for path in paths] for paths in (config.runs, config.baseline, config.stability)
    )
    all_runs = [*runs, *baselines, *others]
    setup = Setup(config, console, device, open_caches(all_runs, config), ranks)
    acts = setup.acts
    host = load_host(config.model, runs[0], acts, device, console) if config.model else None
    sample = Sample.drawn(acts, HELD_OUT, config.tokens, config.seed)
    groups = seed_groups(runs, baselines)
    fit_rows = training_rows(acts, _FIT_ROWS, config.seed)
    if not len(fit_rows):
        console.warn(
            "the cache has no training rows: no post-hoc trees, no description length, no controls and no tasks"
        )
    tasks, warnings = None, [text for text in [outliers.warning(acts)] if text]
    if config.tasks and host and len(fit_rows) and ranks.writes:
        task_rows = Sample.drawn(acts, TRAIN, config.task_rows, config.seed).rows
        task_sample = sample.of_fewer(config.task_rows)
        tasks, label_warnings = prepare_tasks(TaskInputs(config, acts, host, device, task_rows, task_sample))
        warnings += label_warnings
    warnings += [text for run in all_runs for text in cautions(run, acts.fingerprints())]
    further = tuple(Subject(run.name, run.model, run) for run in others)
    return EvalInputs(setup, groups, further, host, sample, fit_rows, tasks, tuple(warnings))


def open_caches(runs: list[Run], config: EvalConfig) -> ActivationSet:
    """The caches at the module of the runs; raises ``FileError`` if they do not belong together."""
    drop_outliers = config.drop_outliers or any(run.config.drop_outliers for run in runs)
    acts = open_acts(runs[0], config.acts, drop_outliers)
    for run in runs[1:]:
        for cache in acts.caches:
            require_match(run, cache)
        if run.module != acts.module:
            raise FileError(
                f"{run.path}: trained on {run.module}; {runs[0].path} on {acts.module}",
                "Compare runs of one module.",
            )
    return acts


def _encoded_controls(inputs: EvalInputs, controls: tuple[SeedGroup, ...]) -> tuple[Encoded, ...]:
    """Controls after the same passes as the runs, over fewer rows."""
    if not controls:
        return ()
    setup = inputs.setup
    rows = training_rows(setup.acts, _CONTROL_ROWS, setup.config.seed)
    training = fit(setup, [subject for group in controls for subject in group.subjects], rows)
    return encode(setup, training.fitted, inputs.sample.of_fewer(_CONTROL_ROWS))


def _scored(
    inputs: EvalInputs, encoded: list[Encoded], loss: LossSums | None, bootstrap: Bootstrap
) -> dict[str, Scored]:
    """The dictionaries with their figures, by name; first they do the downstream tasks."""
    results: dict[str, TaskResults] = {}
    setup = inputs.setup
    if inputs.tasks:
        with setup.console.progress("tasks", len(encoded), "dictionaries") as progress:
            for dictionary in encoded:
                results[dictionary.subject.name] = inputs.tasks.measure(dictionary, setup.config.batch, setup.device)
                progress.advance(1)
    scored = [score(dictionary, loss, results.get(dictionary.subject.name), bootstrap) for dictionary in encoded]
    return {dictionary.name: dictionary for dictionary in scored}


def _with_scores(groups: tuple[SeedGroup, ...], scored: dict[str, Scored]) -> tuple[ScoredGroup, ...]:
    return tuple(ScoredGroup(group, tuple(scored[subject.name] for subject in group.subjects)) for group in groups)
