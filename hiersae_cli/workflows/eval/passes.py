"""The passes over rows: fit on training rows, encode held-out rows, and splice reconstructions into the host.

Each takes dictionaries and returns a frozen value whose type says what is known of them:
``Subject`` -> ``fit`` -> ``Fitted`` -> ``encode`` -> ``Encoded``.

Legend of shapes: B rows of a batch, D width, F latents, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.formats.report import OWN
from hiersae_cli.host.model import Host
from hiersae_cli.metrics.description import FiringRows, most_informative_parents
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.loss import MEAN, ZERO, LossSums
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, EdgeSums, Moments
from hiersae_cli.sae.controls import controls
from hiersae_cli.workflows.common.encoding import decoded, firings_of
from hiersae_cli.workflows.common.sharing import Sharing
from hiersae_cli.workflows.eval.sample import Sample, SampleWindows
from hiersae_cli.workflows.eval.subjects import SeedGroup, Subject, unlike
from hiersae_cli.workflows.eval.trees import TreeSums

_NULL_ROWS = 65_536  # held-out rows for the circular-shift null
_READ_ROWS = 4096  # at a time
_STRETCH = 1024  # most rows that are shifted together; divides _READ_ROWS
_MOST_LOGITS = 1 << 27  # numbers in a batch of next-token distributions


@dataclass(frozen=True)
class Setup:
    """What every pass needs: the configuration, the console, the device, the caches, and how ranks share the rows."""

    config: EvalConfig
    console: Console
    device: torch.device
    acts: ActivationSet
    sharing: Sharing = field(default_factory=Sharing)

    def batches(self, rows: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
        """This rank's batches (B, D) float32 of ``rows`` (ascending), each with the part of ``rows`` that it holds."""
        for number, start in enumerate(range(0, len(rows), _READ_ROWS)):
            if self.sharing.takes(number):
                part = slice(start, min(start + _READ_ROWS, len(rows)))
                yield part, self.acts.rows_at(rows[part]).float()

    def skipped(self, part: slice) -> list[slice]:
        """The parts between a batch and this rank's batch before it, which other ranks take."""
        number = part.start // _READ_ROWS
        numbers = range(max(0, number + 1 - self.sharing.count), number)
        return [slice(number * _READ_ROWS, (number + 1) * _READ_ROWS) for number in numbers]

    def no_moments(self) -> Moments:
        """Empty sums for the mean and covariance of activations."""
        return Moments(torch.from_numpy(self.acts.moments()[0]).float())


@dataclass(frozen=True)
class Fitted:
    """A dictionary with its firings in training rows, from which post-hoc trees and codes are fitted.

    Attributes:
        subject: the dictionary.
        firings: its firings; without rows if the cache has no training rows.
    """

    subject: Subject
    firings: FiringRows

    @property
    def tree(self) -> str:
        """The origin of its own tree: "learned", "post-hoc" if it is fitted to the firings, or "none"."""
        if self.subject.model.learned_F is not None:
            return "learned"
        return "post-hoc" if self.firings.rows else "none"

    @property
    def l0(self) -> float:
        """Mean number of active latents in the training rows."""
        return float(self.firings.fired_F.sum() / self.firings.rows)

    def own_tree(self) -> np.ndarray | None:
        """The parent of each latent (F,) in its own tree, if it has one; a post-hoc tree is fitted by each call."""
        if self.tree == "post-hoc":
            return most_informative_parents(self.firings.pairs())
        return self.subject.model.learned_F


@dataclass(frozen=True)
class FitPass:
    """The result of a pass over training rows.

    Attributes:
        fitted: the dictionaries.
        moments: of the activations; None if they were not asked for or there are no training rows.
    """

    fitted: tuple[Fitted, ...]
    moments: Moments | None


@dataclass(frozen=True)
class SoftSums:
    """Sums over the soft firings of a hardened tree, in which a child may fire without its parent."""

    codes: CodeSums
    edges: EdgeSums


@dataclass(frozen=True)
class Encoded:
    """A dictionary with the sums over its codes of the held-out rows.

    Attributes:
        fitted: the dictionary.
        codes: sums over its codes.
        data: sums over the activations of the same rows.
        trees: sums for its own tree and the trees that it is compared with.
        soft: sums over its soft firings, if its tree is hardened.
    """

    fitted: Fitted
    codes: CodeSums
    data: DataSums
    trees: TreeSums
    soft: SoftSums | None

    @property
    def subject(self) -> Subject:
        """The dictionary itself."""
        return self.fitted.subject

    @property
    def live_F(self) -> np.ndarray:
        """Which latents fire in the held-out rows."""
        return self.codes.fired_KF.sum(0) > 0

    @property
    def own_F(self) -> np.ndarray | None:
        """The parent of each latent in its own tree, if it has one."""
        return self.trees.trees.get(OWN)


@dataclass(frozen=True)
class OtherSeed:
    """A run that others are compared with only for their stability.

    Attributes:
        fitted: the dictionary with its firings in training rows.
        live_F: which latents fire in the held-out rows.
    """

    fitted: Fitted
    live_F: np.ndarray

    @property
    def subject(self) -> Subject:
        """The dictionary itself."""
        return self.fitted.subject


@torch.inference_mode()
def fit(setup: Setup, subjects: Sequence[Subject], rows: np.ndarray, with_moments: bool = False) -> FitPass:
    """One pass over training rows; ``with_moments`` adds the mean and covariance of the activations."""
    fitted = tuple(Fitted(subject, FiringRows(subject.model.latents)) for subject in subjects)
    if not len(rows):
        return FitPass(fitted, None)
    moments = setup.no_moments() if with_moments else None
    with setup.console.progress(_title("fit", subjects), len(rows), "tokens") as progress:
        for _, x_BD in setup.batches(rows):
            if moments:
                moments.add(x_BD)
            moved_BD = x_BD.to(setup.device)
            for dictionary in fitted:
                dictionary.firings.add(firings_of(dictionary.subject.model, moved_BD, setup.config.batch))
            progress.advance(len(x_BD) * setup.sharing.count)
    firings = [dictionary.firings for dictionary in fitted]
    setup.sharing.add_up(*firings, *([moments] if moments else []))
    for rows_of_subject in firings:
        rows_of_subject.collect(setup.sharing.of_all)
    return FitPass(fitted, moments)


@torch.inference_mode()
def encode(setup: Setup, fitted: Sequence[Fitted], sample: Sample) -> tuple[Encoded, ...]:
    """One pass over held-out rows, for all that is summed over their codes."""
    data, moments = DataSums(sample.blocks, setup.acts.width), setup.no_moments()
    encoded = tuple(_unsummed(setup, dictionary, data, moments, sample.blocks) for dictionary in fitted)
    add = partial(_add, setup, sample, data, moments)
    title = _title("eval", [dictionary.subject for dictionary in fitted])
    # One thread adds a batch to the sums while this one encodes the next.
    with setup.console.progress(title, len(sample.rows), "tokens") as progress, ThreadPoolExecutor(1) as adder:
        added: Future[None] | None = None
        for part, x_BD in setup.batches(sample.rows):
            moved_BD = x_BD.to(setup.device)
            codes = [(dictionary, *_codes(dictionary.subject, moved_BD, setup.config.batch)) for dictionary in encoded]
            if added:
                added.result()
            added = adder.submit(add, part, x_BD, codes)
            progress.advance(len(x_BD) * setup.sharing.count)
        if added:
            added.result()
    setup.sharing.add_up(data, moments)
    for dictionary in encoded:
        soft = dictionary.soft
        setup.sharing.add_up(dictionary.codes, dictionary.trees, *([soft.codes, soft.edges] if soft else []))
    return encoded


def other_seeds(setup: Setup, fitted: Sequence[Fitted], sample: Sample) -> tuple[OtherSeed, ...]:
    """One more pass over held-out rows, for the latents that are live in them."""
    if not fitted:
        return ()
    held_out = fit(setup, [dictionary.subject for dictionary in fitted], sample.rows).fitted
    return tuple(OtherSeed(fits, of_rows.firings.fired_F > 0) for fits, of_rows in zip(fitted, held_out, strict=True))


def control_groups(setup: Setup, fitted: Sequence[Fitted], moments: Moments) -> tuple[SeedGroup, ...]:
    """Untrained dictionaries with as many latents as the first of ``fitted`` and its L0, named unlike any of these."""
    first, names = fitted[0], [dictionary.subject.name for dictionary in fitted]
    mean_D, covariance_DD = (moment.float().to(setup.device) for moment in (moments.mean_D, moments.covariance_DD))
    models = controls(mean_D, covariance_DD, first.subject.model.latents, first.l0, setup.config.seed)
    subjects = [Subject(unlike(names, name), model, None) for name, model in models.items()]
    return tuple(SeedGroup(subject.name, (subject,)) for subject in subjects)


@torch.inference_mode()
def splice(setup: Setup, subjects: Sequence[Subject], sample: Sample, host: Host) -> LossSums:
    """The host's loss over held-out windows with each reconstruction in place of the activations.

    Rows that the cache or the runs leave out keep their activations, since no run was trained on them.
    """

    def reconstructed(model: Any, x_BTD: torch.Tensor) -> torch.Tensor:
        return model(x_BTD.flatten(0, 1).float()).view_as(x_BTD).to(x_BTD.dtype)

    def ablated(value: torch.Tensor | float, x_BTD: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x_BTD) + torch.as_tensor(value, device=x_BTD.device).to(x_BTD.dtype)

    mean = torch.from_numpy(setup.acts.moments()[0])
    interventions = {subject.name: partial(reconstructed, subject.model) for subject in subjects}
    interventions |= {ZERO: partial(ablated, 0.0), MEAN: partial(ablated, mean)}
    sums = LossSums(sample.blocks, interventions)
    windows = SampleWindows.spread(setup.acts, sample, setup.config.loss_tokens)
    lengths = torch.from_numpy(windows.lengths)
    blocks = torch.from_numpy(windows.block)
    size = max(1, min(setup.config.batch, _MOST_LOGITS // host.vocabulary) // int(lengths.max()))
    with setup.console.progress("loss", int(lengths.sum()), "tokens") as progress:
        for number, start in enumerate(range(0, len(lengths), size)):
            if not setup.sharing.takes(number):
                continue
            part = slice(start, start + size)
            tokens_BT, usable_BT = windows.padded(part)
            sums.add(host, setup.acts.module, tokens_BT, lengths[part], usable_BT, blocks[part])
            progress.advance(int(lengths[part].sum()) * setup.sharing.count)
    setup.sharing.add_up(sums)
    return sums


def _title(step: str, subjects: Sequence[Subject]) -> str:
    return step if subjects[0].run else f"{step} controls"


def _unsummed(setup: Setup, fitted: Fitted, data: DataSums, moments: Moments, blocks: int) -> Encoded:
    """A dictionary before the pass over held-out rows: its trees are fixed, its sums are empty."""
    subject, acts = fitted.subject, setup.acts
    trees = TreeSums(
        subject.model, subject.model.learned_F, fitted.firings, acts.truth, moments, blocks, setup.config.seed
    )
    soft = None
    if subject.hardened:
        soft = SoftSums(CodeSums(blocks, subject.widths), EdgeSums(blocks, subject.model.tree_F))
    return Encoded(fitted, CodeSums(blocks, subject.widths), data, trees, soft)


def _codes(subject: Subject, x_BD: torch.Tensor, batch: int) -> tuple[Firings, Firings | None]:
    """The code of a batch, and the soft code of a hardened tree."""
    soft = None
    if subject.hardened:
        soft = firings_of(subject.model, x_BD, batch, partial(subject.hardened.codes, hard=False))
    return firings_of(subject.model, x_BD, batch), soft


@torch.inference_mode()
def _add(
    setup: Setup,
    sample: Sample,
    data: DataSums,
    moments: Moments,
    part: slice,
    x_BD: torch.Tensor,
    codes: list[tuple[Encoded, Firings, Firings | None]],
) -> None:
    """Add a batch, which is on the CPU, to the sums of the data and of every dictionary."""
    block_B = torch.from_numpy(sample.block[part])
    data.add(x_BD, block_B)
    moments.add(x_BD)
    acts = setup.acts
    truth_BN = acts.true_features(sample.rows[part]) if acts.truth else None
    stretches = sample.stretches(part, _NULL_ROWS, _STRETCH)
    skipped = [
        stop - start for other in setup.skipped(part) for start, stop in sample.stretches(other, _NULL_ROWS, _STRETCH)
    ]
    for dictionary, firings, soft in codes:
        for rows in skipped:
            dictionary.trees.skip_stretch(rows)
        model = dictionary.subject.model
        dictionary.codes.add(x_BD, firings, decoded(model, firings).cpu(), block_B)
        dictionary.trees.add(x_BD, firings, block_B, truth_BN)
        for start, stop in stretches:
            dictionary.trees.add_stretch(firings.between(start, stop))
        if soft and dictionary.soft:
            dictionary.soft.codes.add(x_BD, soft, decoded(model, soft).cpu(), block_B)
            dictionary.soft.edges.add(soft, block_B)
