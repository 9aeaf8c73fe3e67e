"""What downstream tasks share: concepts with their probes, a dictionary's codes, and the base class of a task.

Legend of shapes: N rows, D width, F latents, C concepts, K blocks of documents, n weightings of the blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array

from hiersae_cli.concepts import Concepts, choose
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.formats.report import OWN
from hiersae_cli.host.model import Host
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.detection import Confusion, mean_known
from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.intervals import Bootstrap, Draws, Figure
from hiersae_cli.metrics.probing import LatentSums, Probe, best_latents, dense_probes, sparse_probe
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.workflows.eval.sample import Sample

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TaskInputs:
    """The inputs of every task.

    Attributes:
        fit_rows: training rows (N,), ascending, that probes are fitted on.
        held_out: the rows that they are scored on.
    """

    config: EvalConfig
    acts: ActivationSet
    host: Host
    device: torch.device
    fit_rows: Array
    held_out: Sample


@dataclass(frozen=True)
class LabelledRows:
    """Rows of a cache with the concepts that they belong to.

    Attributes:
        x_ND: activations, float32.
        member_NC, known_NC: which rows belong to each concept, and for which rows that is known.
    """

    x_ND: Array
    member_NC: Array
    known_NC: Array

    @classmethod
    def read(cls, acts: ActivationSet, rows: Array, concepts: Concepts) -> LabelledRows:
        """Rows of the caches, labelled with ``concepts`` in the same order."""
        return cls(acts.rows_at(rows).float().numpy(), concepts.members(), concepts.known())


@dataclass(frozen=True)
class ProbedConcepts:
    """Concepts, and dense probes for them on the activations: the same for every dictionary.

    Attributes:
        concepts: the concepts with enough rows for and against them.
        candidates: how many concepts there were to choose from.
        fit, held_out: the rows that probes are fitted on, and those that they are scored on.
        block_N, blocks: the block of documents of each held-out row, and K.
        probes: a dense probe for each concept.
    """

    concepts: Concepts
    candidates: int
    fit: LabelledRows
    held_out: LabelledRows
    block_N: Array
    blocks: int
    probes: tuple[Probe, ...]

    @classmethod
    def fitted(cls, inputs: TaskInputs, concepts: Concepts) -> ProbedConcepts:
        """Choose concepts and fit their probes; ``concepts`` labels the rows to fit on, then the held-out rows.

        Raises ``FileError`` if no concept has enough rows for and against it.
        """
        fit, held_out = slice(len(inputs.fit_rows)), slice(len(inputs.fit_rows), None)
        chosen = choose(concepts.rows(fit), concepts.rows(held_out))
        if not len(concepts):
            raise FileError(
                f"{inputs.config.labels or inputs.config.labeller}: no token has a label",
                "WordNet labels nouns that are one token, so it needs a tokenizer of whole words.",
            )
        if not len(chosen):
            raise FileError(
                f"none of the {len(concepts):,} concepts has enough rows for and against it",
                "Give more --task-rows, or other labels.",
            )
        candidates, concepts = len(concepts), concepts.only(chosen)
        to_fit = LabelledRows.read(inputs.acts, inputs.fit_rows, concepts.rows(fit))
        to_score = LabelledRows.read(inputs.acts, inputs.held_out.rows, concepts.rows(held_out))
        probes = dense_probes(to_fit.x_ND, to_fit.member_NC, to_fit.known_NC, inputs.device)
        block_N, blocks = inputs.held_out.block, inputs.held_out.blocks
        return cls(concepts, candidates, to_fit, to_score, block_N, blocks, tuple(probes))

    def __len__(self) -> int:
        return len(self.concepts)

    @cached_property
    def weight_DC(self) -> Array:
        """The weights of the dense probes."""
        return np.stack([probe.weight for probe in self.probes], 1)

    @cached_property
    def score_NC(self) -> Array:
        """Log-odds of the held-out rows by the dense probes."""
        return self.scores(self.held_out.x_ND)

    @cached_property
    def parents(self) -> Array:
        """The numbers of the concepts that have others below them, ascending."""
        parent_C = self.concepts.parent_C
        return np.unique(parent_C[parent_C != NONE])

    def scores(self, x_ND: Array) -> Array:
        """Log-odds (N, C) of activations by the dense probes."""
        return np.asarray(x_ND @ self.weight_DC.astype(np.float32)) + np.array([probe.bias for probe in self.probes])

    def answers(self, yes_NC: Array) -> Confusion:
        """Answers for the held-out rows against the truth."""
        return Confusion.of(yes_NC, self.held_out.member_NC, self.held_out.known_NC, self.block_N, self.blocks)

    def confusions(self, score_NC: Array, probes: Sequence[Probe]) -> tuple[Confusion, Confusion]:
        """The answers of probes with scores of the held-out rows: those for F1, and those for balanced accuracy."""
        return (
            self.answers(score_NC >= [probe.f1_score for probe in probes]),
            self.answers(score_NC >= [probe.balanced_score for probe in probes]),
        )

    @cached_property
    def ceiling(self) -> tuple[Confusion, Confusion]:
        """The answers of the dense probes on the activations themselves."""
        return self.confusions(self.score_NC, self.probes)

    def ceiling_figures(self, bootstrap: Bootstrap) -> dict[str, Figure]:
        """F1 and balanced accuracy of the dense probes, means over the concepts."""
        for_f1, for_accuracy = self.ceiling
        return {
            "probe_f1": self.mean_over_concepts(for_f1.f1, bootstrap),
            "probe_accuracy": self.mean_over_concepts(for_accuracy.balanced_accuracy, bootstrap),
        }

    def mean_over_concepts(self, statistic: Callable[[Array], Array], bootstrap: Bootstrap) -> Draws:
        """The mean of the defined values of ``statistic``, which maps weights of the blocks (n, K) to values (n, C)."""
        return bootstrap.draws(lambda weights_nK: mean_known(statistic(weights_nK)), len(self.block_N), "1")

    def over_all(self, statistic: Callable[[Array], Array]) -> Array:
        """The values (C,) of ``statistic``, as above, over all held-out rows."""
        values_C: Array = statistic(np.ones((1, self.blocks)))[0]
        return values_C

    def described(self) -> list[dict[str, Any]]:
        """The concepts as the report holds them, each after its parent."""
        concepts, (for_f1, for_accuracy) = self.concepts, self.ceiling
        rows_C, known_C = for_f1.positive_KC.sum(0), for_f1.known_KC.sum(0)
        f1_C, accuracy_C = self.over_all(for_f1.f1), self.over_all(for_accuracy.balanced_accuracy)
        names = [f"{concepts.families[f]}: {name}" for f, name in zip(concepts.family_C, concepts.names, strict=True)]
        return [
            {
                "name": names[concept],
                "level": int(concepts.level_C[concept]),
                "parent": names[parent] if (parent := concepts.parent_C[concept]) != NONE else None,
                "share": float(rows_C[concept] / known_C[concept]),
                "probe_f1": float(f1_C[concept]),
                "probe_accuracy": float(accuracy_C[concept]),
            }
            for concept in range(len(concepts))
        ]


@dataclass(frozen=True)
class TaskCodes:
    """A dictionary's codes of the rows of the tasks.

    Attributes:
        model: the dictionary.
        trees: trees over it, by suffix as in the report.
        probed: the concepts.
        fit, held_out: its firings in the rows to fit on, and in the held-out rows.
    """

    model: SparseAutoencoder
    trees: Mapping[str, Array]
    probed: ProbedConcepts
    fit: Firings
    held_out: Firings

    @property
    def own_F(self) -> Array | None:
        """The parent of each latent in the dictionary's own tree, if it has one."""
        return self.trees.get(OWN)

    @cached_property
    def decoder_FD(self) -> Array:
        """The decoder, float64."""
        decoder_FD: Array = self.model.W_dec_FD.detach().cpu().double().numpy()
        return decoder_FD

    @cached_property
    def fit_columns(self) -> csc_array:
        """Activations (N, F) in the rows to fit on, by columns."""
        return csc_array(_values(self.fit))

    @cached_property
    def held_out_rows(self) -> csr_array:
        """Activations (N, F) in the held-out rows, by rows."""
        return _values(self.held_out)

    @cached_property
    def held_out_columns(self) -> csc_array:
        """The same by columns."""
        return csc_array(self.held_out_rows)

    @cached_property
    def sums(self) -> LatentSums:
        """Sums of each latent's activations over the rows to fit on of each concept."""
        return LatentSums(_values(self.fit), self.probed.fit.member_NC, self.probed.fit.known_NC)

    @cached_property
    def ranked_CF(self) -> Array:
        """The latents by how much they correlate with each concept, the best first."""
        return best_latents(self.sums.correlations(), self.model.latents)

    def sparse_probe(self, concept: int, number: int) -> tuple[Probe, Array]:
        """A probe for a concept on its ``number`` best latents, and these latents."""
        latents, rows = self.ranked_CF[concept, :number], self.probed.fit
        return sparse_probe(self.fit_columns, latents, rows.member_NC[:, concept], rows.known_NC[:, concept]), latents


Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


class DownstreamTask(ABC, Generic[Prepared, Result]):
    """A task: how a dictionary's codes are measured, and what the report says about the result.

    A new task is a module with such a class and ``TASK``, an instance, named in ``config.evaluate.TASKS`` like the
    module; its metrics go into ``metrics.catalogue``.

    Attributes:
        name: what ``--tasks`` calls it, the name of its module.
        metrics: its metrics, by their names in the catalogue.
        columns_first: whether its columns open the table of concepts.
        runs_host: whether it runs the host for each dictionary; such tasks come last.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    columns_first: ClassVar[bool] = False
    runs_host: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, inputs: TaskInputs, probed: ProbedConcepts) -> Prepared:
        """What the task needs for all dictionaries, computed once; the probes are fitted by then."""

    @abstractmethod
    def measure(self, codes: TaskCodes, prepared: Prepared) -> Result:
        """The result of a dictionary."""

    @abstractmethod
    def figures(self, result: Result, probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        """The figures of a result, by their names in the report."""

    def table(self, result: Result, probed: ProbedConcepts, levels: Levels) -> dict[str, Sequence[Any]]:
        """Columns (C,) for the report's table of concepts; values that are not a number are undefined."""
        return {}


def _values(firings: Firings) -> csr_array:
    """Activations where latents fire, (N, F) sparse."""
    indicator = firings.indicator
    return csr_array((firings.value_n.astype(float), indicator.indices, indicator.indptr), indicator.shape)
