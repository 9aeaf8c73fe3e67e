"""``hiersae eval``: runs + acts.h5 (+ host) -> report.json.

Legend of shapes: B rows of a batch, D width, F latents, N rows of a sample, K blocks of documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import HELD_OUT, TRAIN, ActivationSet, outliers
from hiersae_cli.formats.run import Run, load_run
from hiersae_cli.host.model import Host
from hiersae_cli.host.windows import padded
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.metrics.reconstruction import DataSums, Moments
from hiersae_cli.sae.controls import controls
from hiersae_cli.workflows.common.encoding import decoded, firings_of
from hiersae_cli.workflows.common.inputs import load_host, open_acts, require_match
from hiersae_cli.workflows.eval.measure_tasks import measure
from hiersae_cli.workflows.eval.outputs import publish, refuse
from hiersae_cli.workflows.eval.report import MEAN, ZERO, build_report
from hiersae_cli.workflows.eval.sample import Sample
from hiersae_cli.workflows.eval.subjects import Group, Subject, cautions, grouped, new_group, new_subject
from hiersae_cli.workflows.eval.tasks import Tasks, prepare
from hiersae_cli.workflows.eval.trees import TreeSums

_MOST_BLOCKS = 200  # of documents, for the bootstrap: finer ones change intervals little and cost memory
_FIT_ROWS = 200_000  # training rows on which post-hoc trees and codes are fitted
_CONTROL_ROWS = 100_000  # the same for controls, and held-out rows on which they are measured
_TRAINING_RUN = 64  # neighbouring rows taken together, where there are more
_NULL_ROWS = 65_536  # held-out rows for the circular-shift null
_READ_ROWS = 4096  # at a time
_STRETCH = 1024  # rows that are shifted round at most; divides _READ_ROWS
_STEERED_TOKENS = 1024  # held-out rows in which directions are tried, again and again
_MOST_LOGITS = 1 << 27  # numbers in a batch of next-token distributions


def run(config: EvalConfig, console: Console | None = None) -> dict[str, Any]:
    """Measure runs, and baselines and controls beside them; returns the report.

    Raises ``UsageError`` and ``FileError`` where runs, caches and host do not belong together.
    """
    console = console or Console.silent()
    refuse(config)
    device = resolve_device(config.device)
    runs = [load_run(path, device) for path in config.runs]
    baselines = [load_run(path, device) for path in config.baseline]
    others = [load_run(path, device) for path in config.stability]
    acts = _opened(runs + baselines + others, config)
    host = load_host(config.model, runs[0], acts, device) if config.model else None
    sample = _sample(acts, HELD_OUT, config.tokens, config)
    groups = _groups(runs, baselines, sample)
    subjects = [subject for group in groups for subject in group.subjects]
    further = [new_subject(run.name, run.model, run, sample.blocks, ()) for run in others]
    rows = _training_rows(acts, _FIT_ROWS, config)
    if not len(rows):
        console.warn(
            "the cache has no training rows: no post-hoc trees, no description length, no controls and no tasks"
        )
    tasks, warnings = None, [text for text in [outliers.warning(acts)] if text]
    if config.tasks and host and len(rows):
        tasks, unlabelled = _tasks(host, acts, sample, config, device)
        warnings += unlabelled
    moments = Moments(torch.from_numpy(acts.moments()[0]).float())
    _fit([*subjects, *further], acts, rows, moments, config, device, console)
    _encode(subjects, acts, sample, config, device, console)
    control_groups = _controls(subjects, moments, sample, config, device) if config.controls and len(rows) else []
    unlearned = [group.subjects[0] for group in control_groups]
    if unlearned:
        _fit(unlearned, acts, _training_rows(acts, _CONTROL_ROWS, config), None, config, device, console)
        _encode(unlearned, acts, sample.of_fewer(_CONTROL_ROWS), config, device, console)
    loss = _losses(subjects, host, acts, sample, config, device, console) if host else None
    if tasks:
        with console.progress("tasks", len(subjects + unlearned), "dictionaries") as progress:
            for subject in subjects + unlearned:
                subject.tasks = measure(tasks, subject, config, device)
                progress.advance(1)
    warnings += [text for run in runs + baselines + others for text in cautions(run, acts.fingerprints())]
    report = build_report(groups, control_groups, further, loss, tasks, sample, warnings, acts, config)
    publish(report, [*groups, *control_groups], config, console)
    return report


def _opened(runs: list[Run], config: EvalConfig) -> ActivationSet:
    drop_outliers = config.drop_outliers or any(run.config.drop_outliers for run in runs)
    acts = open_acts(runs[0], config.acts, drop_outliers)
    for each in runs[1:]:
        for cache in acts.caches:
            require_match(each, cache)
        if each.module != acts.module:
            raise FileError(
                f"{each.path}: trained on {each.module}; {runs[0].path} on {acts.module}",
                "Compare runs of one module.",
            )
    return acts


def _sample(acts: ActivationSet, split: int, most: int, config: EvalConfig) -> Sample:
    """Whole documents of a split, chosen at random until there are enough rows, in blocks of neighbours."""
    rows = np.flatnonzero(acts.usable(split))
    document = acts.column("document")[rows]
    names, first, counts = np.unique(document, return_index=True, return_counts=True)
    order = np.random.default_rng(config.seed).permutation(len(names))
    chosen = order[: int(np.searchsorted(np.cumsum(counts[order]), most)) + 1]
    kept = np.sort(chosen)
    take = np.concatenate([np.arange(first[k], first[k] + counts[k]) for k in kept])[:most]
    blocks = min(_MOST_BLOCKS, len(kept))
    block_of_document, rank_of_document = np.zeros((2, names.max() + 1), np.int64)
    for number, members in enumerate(np.array_split(names[kept], blocks)):
        block_of_document[members] = number
    rank_of_document[names[chosen]] = np.arange(len(chosen))
    document = document[take]
    return Sample(rows[take], document, block_of_document[document], rank_of_document[document], blocks)


def _groups(runs: list[Run], baselines: list[Run], sample: Sample) -> list[Group]:
    """The runs as one group, then the baselines as one for each configuration."""
    first, others = grouped(runs, baselines)
    groups: list[Group] = []
    subjects: list[str] = []
    for members in (first, *others):
        made = []
        for each in members:
            made.append(new_subject(each.name, each.model, each, sample.blocks, subjects))
            subjects.append(made[-1].name)
        groups.append(new_group(made, [*subjects, *(group.name for group in groups)]))
    return groups


def _controls(
    subjects: list[Subject], moments: Moments, sample: Sample, config: EvalConfig, device: torch.device
) -> list[Group]:
    """Dictionaries that nobody trained, with as many latents as the first run and its L0."""
    first = subjects[0]
    mean_D, covariance_DD = (moment.float().to(device) for moment in (moments.mean_D, moments.covariance_DD))
    l0 = float(first.fitted.fired_F.sum() / first.fitted.rows)
    models = controls(mean_D, covariance_DD, first.model.latents, l0, config.seed)
    taken = [subject.name for subject in subjects]
    made = [new_subject(name, model, None, sample.blocks, taken) for name, model in models.items()]
    return [Group(subject.name, [subject]) for subject in made]


def _training_rows(acts: ActivationSet, most: int, config: EvalConfig) -> np.ndarray:
    """Rows (ascending) on which post-hoc trees and codes are fitted; empty where all of the cache is held out."""
    rows = np.flatnonzero(acts.rows_of(TRAIN))
    if len(rows) <= most:
        return rows
    # Runs of neighbours, for rows that are far apart are read one by one.
    starts = np.arange(0, len(rows), _TRAINING_RUN)
    chosen = np.sort(np.random.default_rng(config.seed).choice(starts, most // _TRAINING_RUN, False))
    places = (chosen[:, None] + np.arange(_TRAINING_RUN)).ravel()
    return rows[places[places < len(rows)]]


@torch.inference_mode()
def _fit(
    subjects: list[Subject],
    acts: ActivationSet,
    rows: np.ndarray,
    moments: Moments | None,
    config: EvalConfig,
    device: torch.device,
    console: Console,
) -> None:
    """One pass over training rows, for what has to be fitted elsewhere than on the held-out ones."""
    if not len(rows):
        return
    with console.progress(_title("fit", subjects), len(rows), "tokens") as progress:
        for _, x_BD in _batches(acts, rows):
            if moments:
                moments.add(x_BD)
            moved_BD = x_BD.to(device)
            for subject in subjects:
                subject.fitted.add(firings_of(subject.model, moved_BD, config.batch))
            progress.advance(len(x_BD))


@torch.inference_mode()
def _encode(
    subjects: list[Subject],
    acts: ActivationSet,
    sample: Sample,
    config: EvalConfig,
    device: torch.device,
    console: Console,
) -> None:
    """One pass over the held-out rows for everything that is summed over them."""
    data = DataSums(sample.blocks, acts.width)
    moments = Moments(torch.from_numpy(acts.moments()[0]).float())
    for subject in subjects:
        subject.data = data
        subject.trees = TreeSums(
            subject.model, subject.learned_F, subject.fitted, acts.truth, moments, sample.blocks, config.seed
        )
    # What is summed over one batch is summed beside the next one's encoding.
    title = _title("eval", subjects)
    with console.progress(title, len(sample.rows), "tokens") as progress, ThreadPoolExecutor(1) as beside:
        summed: Future[None] | None = None
        for part, x_BD in _batches(acts, sample.rows):
            moved_BD = x_BD.to(device)
            encoded = [(subject, *_encoded(subject, moved_BD, config.batch)) for subject in subjects]
            if summed:
                summed.result()
            summed = beside.submit(_sum, encoded, x_BD, part, acts, sample, data, moments)
            progress.advance(len(x_BD))
        if summed:
            summed.result()


def _title(step: str, subjects: list[Subject]) -> str:
    return step if subjects[0].run else f"{step} controls"


def _encoded(subject: Subject, x_BD: torch.Tensor, batch: int) -> tuple[Firings, Firings | None]:
    """The code of a batch, and the soft one of a hardened tree."""
    soft = None
    if subject.run and subject.run.hardened:
        soft = firings_of(subject.model, x_BD, batch, partial(subject.run.hardened.codes, hard=False))
    return firings_of(subject.model, x_BD, batch), soft


@torch.inference_mode()
def _sum(
    encoded: list[tuple[Subject, Firings, Firings | None]],
    x_BD: torch.Tensor,
    part: slice,
    acts: ActivationSet,
    sample: Sample,
    data: DataSums,
    moments: Moments,
) -> None:
    """Take a batch, all of it on the CPU, into the sums of every subject."""
    block_B = torch.from_numpy(sample.block[part])
    data.add(x_BD, block_B)
    moments.add(x_BD)
    truth_BN = acts.true_features(sample.rows[part]) if acts.truth else None
    stretches = sample.stretches(part, _NULL_ROWS, _STRETCH)
    for subject, firings, soft in encoded:
        subject.sums.add(x_BD, firings, decoded(subject.model, firings).cpu(), block_B)
        if subject.trees:
            subject.trees.add(x_BD, firings, block_B, truth_BN)
            for start, stop in stretches:
                subject.trees.add_stretch(firings.between(start, stop))
        if soft and subject.soft:
            sums, edges = subject.soft
            sums.add(x_BD, soft, decoded(subject.model, soft).cpu(), block_B)
            edges.add(soft, block_B)


def _batches(acts: ActivationSet, rows: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
    """Batches (B, D) float32 of ``rows`` (ascending), with the part of ``rows`` that each is."""
    for start in range(0, len(rows), _READ_ROWS):
        part = slice(start, min(start + _READ_ROWS, len(rows)))
        yield part, acts.rows_at(rows[part]).float()


@torch.inference_mode()
def _losses(
    subjects: list[Subject],
    host: Host,
    acts: ActivationSet,
    sample: Sample,
    config: EvalConfig,
    device: torch.device,
    console: Console,
) -> LossSums:
    """The host's loss over held-out windows with each reconstruction in place of the activations.

    Rows that the cache or the runs leave out keep their activations: no run was trained on them.
    """

    def reconstructed(model: Any, x_BTD: torch.Tensor) -> torch.Tensor:
        return model(x_BTD.flatten(0, 1).float()).view_as(x_BTD).to(x_BTD.dtype)

    def ablated(value: torch.Tensor | float, x_BTD: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x_BTD) + torch.as_tensor(value, device=x_BTD.device).to(x_BTD.dtype)

    mean = torch.from_numpy(acts.moments()[0])
    interventions = {subject.name: partial(reconstructed, subject.model) for subject in subjects}
    interventions |= {ZERO: partial(ablated, 0.0), MEAN: partial(ablated, mean)}
    sums = LossSums(sample.blocks, interventions)
    starts, lengths, blocks = _windows(acts, sample, config.loss_tokens)
    tokens, in_use = acts.column("tokens"), acts.rows_of(TRAIN, HELD_OUT)
    longest = int(lengths.max())
    vocabulary = int(host.model.config.vocab_size)
    size = max(1, min(config.batch, _MOST_LOGITS // vocabulary) // longest)
    with console.progress("loss", int(lengths.sum()), "tokens") as progress:
        for at in range(0, len(starts), size):
            of = slice(at, at + size)
            tokens_BT, in_use_BT = (padded(column, starts[of], lengths[of]) for column in (tokens, in_use))
            batch = map(torch.from_numpy, (tokens_BT, lengths[of], in_use_BT, blocks[of]))
            sums.add(host, acts.module, *batch)
            progress.advance(int(lengths[of].sum()))
    return sums


def _tasks(
    host: Host, acts: ActivationSet, sample: Sample, config: EvalConfig, device: torch.device
) -> tuple[Tasks, list[str]]:
    """The downstream tasks, before anything is measured at them; and what to warn of."""
    fit = _sample(acts, TRAIN, config.task_rows, config).rows
    held_out = sample.of_fewer(config.task_rows)
    windows = _windows(acts, held_out, _STEERED_TOKENS) if "steering" in config.tasks else None
    return prepare(acts, host, fit, held_out, windows, config, device)


def _windows(acts: ActivationSet, sample: Sample, tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start row, length and block of windows of the sample, spread evenly over it, of about ``tokens`` tokens."""
    position = acts.column("position")
    edges = np.append(np.flatnonzero(position == 0), acts.rows)
    windows = np.unique(np.searchsorted(edges, sample.rows, side="right") - 1)
    block_of = np.zeros(acts.rows, np.int64)
    block_of[sample.rows] = sample.block
    lengths = np.diff(edges)[windows]
    count = max(1, min(len(windows), round(tokens / lengths.mean())))
    windows = windows[np.linspace(0, len(windows) - 1, count).round().astype(int)]
    starts, lengths = edges[windows], np.diff(edges)[windows]
    # A window's first usable row tells its block; dropped positions have none.
    first = sample.rows[np.searchsorted(sample.rows, starts)]
    if lengths.max() < 2:
        raise FileError(f"{acts.caches[0].path}: no held-out window of two tokens", "Cache with a longer --context.")
    return starts, lengths, block_of[first]
