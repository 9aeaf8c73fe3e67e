"""``hiersae eval``: runs + acts.h5 (+ host) -> report.json.

Legend of shapes: B rows of a batch, D width, F latents, K blocks of documents, n weightings of the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from hiersae_cli.config import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import HELD_OUT, TRAIN, ActivationSet
from hiersae_cli.formats.atomic import refuse_existing, write_json
from hiersae_cli.formats.run import Run, load_run
from hiersae_cli.host.model import Host
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, EdgeSums
from hiersae_cli.sae import HierarchicalSAE
from hiersae_cli.sae.tree import NO_PARENT, CoActivation
from hiersae_cli.workflows.matching import load_host, open_acts
from hiersae_cli.workflows.recovery import TreeSums, count_pairs
from hiersae_cli.workflows.reporting import MEAN, ZERO, Sample, Subject, build_report, show

_MOST_BLOCKS = 200  # of documents, for the bootstrap: finer ones change intervals little and cost memory
_FIT_ROWS = 200_000  # training rows on which a flat run's post-hoc tree is fitted
_MOST_LOGITS = 1 << 27  # numbers in a batch of next-token distributions


def run(config: EvalConfig, console: Console | None = None) -> dict[str, Any]:
    """Measure a run, and baselines beside it; returns the report.

    Raises ``UsageError`` and ``FileError`` where runs, caches and host do not belong together.
    """
    console = console or Console.silent()
    if config.out:
        refuse_existing(config.out, config.overwrite)
    device = resolve_device(config.device)
    runs = [load_run(path, device) for path in (config.run, *config.baseline)]
    opened = [open_acts(each, config.acts) for each in runs]
    acts = opened[0]
    for each in runs:
        if each.module != acts.module:
            raise FileError(
                f"{each.path}: trained on {each.module}; {runs[0].path} on {acts.module}",
                "Compare runs of one module.",
            )
        if each.steps_done < each.config.steps:
            console.warn(f"{each.path}: training not ended (step {each.steps_done:,} of {each.config.steps:,})")
    host = load_host(config.model, runs[0], device) if config.model else None
    sample = _sample(acts, config)
    subjects = _subjects(runs, sample)
    training_rows = _training_rows(acts, config)
    _fit_posthoc_trees(subjects, acts, training_rows, sample, config, device, console)
    _begin_trees(subjects, acts, training_rows, sample, config, device, console)
    data = DataSums(sample.blocks, acts.width)
    _encode(subjects, acts, sample, data, config, device, console)
    loss = _losses(subjects, host, acts, sample, config, device, console) if host else None
    report = build_report(subjects, data, loss, sample, acts, config)
    show(report, console)
    if config.out:
        write_json(config.out, report)
        console.say(f"report: {config.out}")
    return report


def _sample(acts: ActivationSet, config: EvalConfig) -> Sample:
    """Whole held-out documents, chosen at random until there are enough rows, in blocks of neighbours."""
    rows = np.flatnonzero(acts.usable(HELD_OUT))
    document = acts.column("document")[rows]
    names, first, counts = np.unique(document, return_index=True, return_counts=True)
    order = np.random.default_rng(config.seed).permutation(len(names))
    kept = np.sort(order[: int(np.searchsorted(np.cumsum(counts[order]), config.tokens)) + 1])
    take = np.concatenate([np.arange(first[k], first[k] + counts[k]) for k in kept])[: config.tokens]
    blocks = min(_MOST_BLOCKS, len(kept))
    block_of_document = np.zeros(names.max() + 1, np.int64)
    for number, members in enumerate(np.array_split(names[kept], blocks)):
        block_of_document[members] = number
    return Sample(rows[take], block_of_document[document[take]], blocks, len(kept))


def _subjects(runs: list[Run], sample: Sample) -> list[Subject]:
    subjects: list[Subject] = []
    for each in runs:
        name, number = each.name, 2
        while name in {subject.name for subject in subjects}:
            name, number = f"{each.name}_{number}", number + 1
        subject = Subject(name, each, "none", CodeSums(sample.blocks, each.config.widths))
        if isinstance(each.model, HierarchicalSAE):
            subject.tree, subject.edges = "learned", _learned_edges(each.model, sample.blocks)
        if each.hardened:
            soft_sums = CodeSums(sample.blocks, each.config.widths)
            subject.soft = soft_sums, _learned_edges(each.hardened, sample.blocks)
        subjects.append(subject)
    return subjects


def _learned_edges(model: HierarchicalSAE, blocks: int) -> EdgeSums:
    child_E = (model.parent_F != NO_PARENT).nonzero().squeeze(1)
    return EdgeSums(blocks, child_E, model.parent_F[child_E])


def _training_rows(acts: ActivationSet, config: EvalConfig) -> np.ndarray:
    """Rows (ascending) on which post-hoc trees and codes are fitted; empty where all of the cache is held out."""
    rows = np.flatnonzero(np.concatenate([cache.usable(acts.module, TRAIN) for cache in acts.caches]))
    if len(rows) <= _FIT_ROWS:
        return rows
    return np.sort(np.random.default_rng(config.seed).choice(rows, _FIT_ROWS, False))


def _begin_trees(
    subjects: list[Subject],
    acts: ActivationSet,
    training_rows: np.ndarray,
    sample: Sample,
    config: EvalConfig,
    device: torch.device,
    console: Console,
) -> None:
    """Fit what has to be fitted elsewhere than on the held-out rows, and begin to sum over these."""
    if not len(training_rows):
        console.warn("the cache has no training rows: no post-hoc trees and no description length")
    mean_D = torch.from_numpy(acts.moments()[0]).float()
    for subject in subjects:
        model, pairs = subject.run.model, None
        learned_F = model.parent_F.cpu().numpy() if isinstance(model, HierarchicalSAE) else None
        if len(training_rows):
            pairs = count_pairs(model, subject.name, acts, training_rows, config.batch, device, console)
        subject.trees = TreeSums(model, learned_F, pairs, acts.truth, mean_D, sample.blocks, config.seed)


def _fit_posthoc_trees(
    subjects: list[Subject],
    acts: ActivationSet,
    rows: np.ndarray,
    sample: Sample,
    config: EvalConfig,
    device: torch.device,
    console: Console,
) -> None:
    """Give each flat baseline the tree it would have: on training rows, by the rule of the learned one.

    Its most frequent latents, as many as the hierarchy's first level has, become the first level, the next most
    frequent ones the second, and so on; every latent gets the parent one level up with the most mutual information.
    """
    widths = next((s.run.config.widths for s in subjects if s.tree == "learned"), ())
    ends = np.cumsum(widths[:-1]).tolist()
    flat = [s for s in subjects if s.tree == "none" and ends and s.run.model.latents > ends[-1]]
    if not flat or not len(rows):
        return
    for subject in flat:
        latents = subject.run.model.latents
        rate_F = torch.zeros(latents, device=device)
        for _, x_BD in _batches(acts, rows, config.batch, device):
            rate_F += (subject.run.model.encode(x_BD) > 0).sum(0)
        levels = rate_F.argsort(descending=True, stable=True).tensor_split(ends)
        counts = [CoActivation(len(above), len(below)).to(device) for above, below in pairwise(levels)]
        with console.progress(f"post-hoc tree of {subject.name}", len(rows), "tokens") as progress:
            for _, x_BD in _batches(acts, rows, config.batch, device):
                fired_BF = subject.run.model.encode(x_BD) > 0
                for (above, below), pairs in zip(pairwise(levels), counts, strict=True):
                    pairs.add(fired_BF[:, above], fired_BF[:, below])
                progress.advance(len(x_BD))
        child, parent = [], []
        for (above, below), pairs in zip(pairwise(levels), counts, strict=True):
            best = pairs.best_parents()
            found = best != NO_PARENT
            child.append(below[found])
            parent.append(above[best[found]])
        subject.edges = EdgeSums(sample.blocks, torch.cat(child), torch.cat(parent))
        subject.tree = "post-hoc"


@torch.inference_mode()
def _encode(
    subjects: list[Subject],
    acts: ActivationSet,
    sample: Sample,
    data: DataSums,
    config: EvalConfig,
    device: torch.device,
    console: Console,
) -> None:
    """One pass over the held-out rows for everything that is summed over them."""
    with console.progress("eval", len(sample.rows), "tokens") as progress:
        for part, x_BD in _batches(acts, sample.rows, config.batch, device):
            block_B = torch.from_numpy(sample.block[part]).to(device)
            data.add(x_BD, block_B)
            truth_BN = acts.true_features(sample.rows[part]).to(device) if acts.truth else None
            for subject in subjects:
                code_BF = subject.run.model.encode(x_BD)
                subject.sums.add(x_BD, code_BF, subject.run.model.decode(code_BF), block_B)
                if subject.edges:
                    subject.edges.add(code_BF, block_B)
                if subject.trees:
                    subject.trees.add(x_BD, code_BF, block_B, truth_BN)
                if subject.soft and subject.run.hardened:
                    code_BF = subject.run.hardened.encode(x_BD, hard=False)
                    sums, edges = subject.soft
                    sums.add(x_BD, code_BF, subject.run.model.decode(code_BF), block_B)
                    edges.add(code_BF, block_B)
            progress.advance(len(x_BD))


def _batches(
    acts: ActivationSet, rows: np.ndarray, size: int, device: torch.device
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Batches (B, D) float32 of ``rows`` (ascending), with the part of ``rows`` that each is."""
    for start in range(0, len(rows), size):
        part = slice(start, min(start + size, len(rows)))
        yield part, acts.rows_at(rows[part]).to(device, torch.float32)


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

    Positions that the cache drops keep their activations: no run was trained on them.
    """
    dropped = acts.caches[0].header["config"]["drop_positions"]

    def reconstructed(model: Any, x_BTD: torch.Tensor) -> torch.Tensor:
        y_BTD = model(x_BTD.flatten(0, 1).float()).view_as(x_BTD).to(x_BTD.dtype)
        return torch.cat([x_BTD[:, :dropped], y_BTD[:, dropped:]], 1)

    def ablated(value: torch.Tensor | float, x_BTD: torch.Tensor) -> torch.Tensor:
        y_BTD = torch.zeros_like(x_BTD) + torch.as_tensor(value, device=x_BTD.device).to(x_BTD.dtype)
        return torch.cat([x_BTD[:, :dropped], y_BTD[:, dropped:]], 1)

    mean = torch.from_numpy(acts.moments()[0])
    interventions = {subject.name: partial(reconstructed, subject.run.model) for subject in subjects}
    interventions |= {ZERO: partial(ablated, 0.0), MEAN: partial(ablated, mean)}
    sums = LossSums(sample.blocks, interventions)
    starts, lengths, blocks = _windows(acts, sample, config.loss_tokens)
    tokens = acts.column("tokens")
    longest = int(lengths.max())
    vocabulary = int(host.model.config.vocab_size)
    size = max(1, min(config.batch, _MOST_LOGITS // vocabulary) // longest)
    with console.progress("loss", int(lengths.sum()), "tokens") as progress:
        for at in range(0, len(starts), size):
            of = slice(at, at + size)
            batch = np.zeros((len(starts[of]), int(lengths[of].max())), np.int64)
            for row, (start, length) in enumerate(zip(starts[of], lengths[of], strict=True)):
                batch[row, :length] = tokens[start : start + length]
            length_B, block_B = torch.from_numpy(lengths[of]), torch.from_numpy(blocks[of])
            sums.add(host, acts.module, torch.from_numpy(batch), length_B, block_B)
            progress.advance(int(lengths[of].sum()))
    return sums


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
