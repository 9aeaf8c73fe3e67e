"""The answers that pages get from an index, each computed on demand from a few sorted lists."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hiersae_cli.browse.compare import Comparison
from hiersae_cli.browse.contexts import ContextReader, histogram
from hiersae_cli.browse.dictionary import IndexedDictionary
from hiersae_cli.browse.division import divide
from hiersae_cli.browse.family import Family
from hiersae_cli.browse.model import BaselinePage, Context, FeaturePage, Label, Neighbour, Passage
from hiersae_cli.browse.nodes import Nodes
from hiersae_cli.browse.search import Search
from hiersae_cli.browse.text import TextView
from hiersae_cli.browse.tree_model import Overview, ReportSummary, SearchHit, TextCodes, TokenSearch
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.index import IndexFile
from hiersae_cli.formats.index_layout import BASELINE, RUN
from hiersae_cli.formats.labels import Labels
from hiersae_cli.formats.numbers import rounded, rounded_or_none
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.render.report_tables import doubts, lines, tables, title

_TOP, _NEAREST, _PER_DECILE = 20, 8, 2

Array = np.ndarray[Any, Any]
# From a text: its tokens, their (latent, activation) pairs, the strongest first, and how many tokens were cut off.
Encoder = Callable[[str], tuple[list[str], list[list[tuple[int, float]]], int]]


class Index:
    """The answers to a dashboard's questions. All methods may be called from several threads.

    Args:
        file: the index.
        decoder_FD: the decoder of the run.
        labels: the run's labels.
        baseline_decoder_GD: the decoder of the baseline, if the index has one.
        report: a report of ``hiersae eval``, as read from its file.
        encoder: returns what fires on a text, if there is a host model.
        warnings: what makes the activations doubtful, shown above the tree.

    Attributes:
        nodes, dictionary, contexts: the sources of the answers.
    """

    def __init__(
        self,
        file: IndexFile,
        decoder_FD: Array,
        labels: Labels,
        baseline_decoder_GD: Array | None = None,
        report: dict[str, Any] | None = None,
        encoder: Encoder | None = None,
        warnings: Sequence[str] = (),
    ):
        self.file, self._labels, self._report, self._encoder = file, labels, report, encoder
        self._warnings = list(warnings)
        self._encoding = threading.Lock()
        self.contexts = ContextReader(file)
        self.dictionary = IndexedDictionary(file, RUN, decoder_FD, self.contexts)
        self.nodes = Nodes(Levels.of(file.header["run"]["widths"]), self.dictionary, labels)
        self._family = Family(file, self.nodes, self.dictionary, self.contexts)
        self._search = Search(self.nodes, self.dictionary)
        self._text = TextView(self.nodes, self.dictionary)
        self._comparison: Comparison | None = None
        if baseline_decoder_GD is not None:
            theirs = IndexedDictionary(file, BASELINE, baseline_decoder_GD, self.contexts)
            self._comparison = Comparison(self.nodes, self.dictionary, theirs)

    def overview(self) -> Overview:
        """The whole tree in columns, with its current labels."""
        labels = self.labels()
        columns = dict(self._columns)
        return Overview(
            label=[labels[id].text if id in labels else None for id in self.nodes.ids],
            run=self.file.header["run"],
            host=self.file.header["host"]["name"],
            baseline=self.file.header["baseline"]["name"] if self._comparison else None,
            rows=self.file.rows,
            held_out_rows=self._family.held_out_rows,
            documents=len(self.file.documents),
            tokens_are_text=bool(self.file.token_texts),
            can_encode=self._encoder is not None,
            fates=self._comparison.counts() if self._comparison else {},
            report=summary(self._report) if self._report else None,
            warnings=self._warnings,
            **columns,
        )

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """The columns of the overview that never change."""
        parent_F, statistics = self.nodes.parent_F, self._family.statistics
        levels = self.nodes.levels
        return {
            "level": levels.level_F,
            "latent": [latent for width in levels.widths for latent in range(width)],
            "parent": parent_F.tolist(),
            "hint": self.nodes.hints,
            "rate": [rounded_or_none(value) for value in self.dictionary.rate_F.tolist()],
            **{
                name: [rounded_or_none(value) for value in statistics[name].tolist()]
                for name in ("mi_bits", "max_mi_bits", "mi_over_max", "lift", "p_parent_given_child")
            },
            **{
                name: [rounded_or_none(value) for value in values.tolist()]
                for name, values in divide(self.nodes, self.dictionary).items()
            },
            "fvu_increase": [rounded_or_none(value) for value in self.dictionary.tables["fvu_increase"].tolist()],
            "dead": (self.dictionary.lists.fired_F == 0).tolist(),
            "root_child": ((parent_F == NONE) & (np.arange(len(parent_F)) >= levels.widths[0])).tolist(),
        }

    def ids(self) -> list[str]:
        """Every node, in the order of the overview."""
        return self.nodes.ids

    def feature(self, id: str) -> FeaturePage:
        """Everything about one node; raises ``KeyError`` for an unknown id."""
        latent, dictionary = self.nodes.levels.latent(id), self.dictionary
        id = self.nodes.ids[latent]
        row_n, value_n = dictionary.lists.of(latent)
        history = self._labels.history().get(id, [])
        ancestors = [self.nodes.neighbour(above) for above in self.nodes.ancestors(latent)]
        nearest = dictionary.nearest(dictionary.decoder_FD[latent], _NEAREST, but=latent)
        level, number = self.nodes.levels.place(latent)
        return FeaturePage(
            id=id,
            level=level,
            latent=number,
            parent=ancestors[-1] if ancestors else None,
            ancestors=ancestors,
            label=history[-1] if history and history[-1].text else None,
            label_history=history[-2::-1],
            hint=self.nodes.hints[latent],
            rows=self.file.rows,
            firings=len(row_n),
            rate=float(dictionary.rate_F[latent]),
            max_activation=rounded(value_n.max()) if len(row_n) else None,
            mean_activation=rounded(value_n.mean(dtype=np.float64)) if len(row_n) else None,
            fvu_increase=rounded_or_none(dictionary.tables["fvu_increase"][latent]),
            dead=not len(row_n),
            histogram=histogram(value_n) if len(row_n) else None,
            top=dictionary.strongest(latent, _TOP),
            deciles=self.contexts.deciles(row_n, value_n, _PER_DECILE, (self.file.header["made_of"]["seed"], latent)),
            tokens=dictionary.tokens(latent),
            promoted=dictionary.lens(latent, "promoted"),
            suppressed=dictionary.lens(latent, "suppressed"),
            nearest=[self.nodes.neighbour(other, cosine) for other, cosine in nearest],
            as_parent=self._family.as_parent(latent),
            as_child=self._family.as_child(latent),
            baseline=self._comparison.matches(latent) if self._comparison else [],
        )

    def strongest(self, latent: int, count: int) -> list[Context]:
        """The strongest contexts of a node, which is given by its place in the overview."""
        return self.dictionary.strongest(latent, count)

    def child_contexts(self, id: str, part: int) -> list[tuple[Neighbour, list[Context]]]:
        """Contexts of a node's children, ``family.TOGETHER`` at a time; raises ``KeyError`` for an unknown id."""
        return self._family.child_contexts(self.nodes.levels.latent(id), part)

    def passage(self, number: int, id: str = "") -> Passage:
        """A part of a document, with the activations of a node if ``id`` names one; raises ``KeyError``."""
        firings = self.dictionary.lists.of(self.nodes.levels.latent(id)) if id else (np.zeros(0, int), np.zeros(0))
        return self.contexts.passage(number, *firings)

    def passages(self) -> int:
        """The number of passages of all documents."""
        return self.contexts.passages

    def baseline_latents(self) -> int:
        """How many latents the baseline has; 0 without a baseline."""
        return self._comparison.latents if self._comparison else 0

    def baseline(self, latent: int) -> BaselinePage:
        """A latent of the baseline; raises ``KeyError`` if there is no such latent."""
        if not self._comparison:
            raise KeyError(latent)
        return self._comparison.page(latent)

    def fates(self, verdict: str, most: int = 100) -> list[BaselinePage]:
        """The baseline's latents with a verdict (``kept``, ``split`` …), without contexts, most frequent first."""
        return self._comparison.of_verdict(verdict, most) if self._comparison else []

    def search_label(self, query: str, most: int = 50) -> list[SearchHit]:
        """Features whose label, id or characteristic tokens contain the query's words."""
        return self._search.label(query, most)

    def search_token(self, query: str, most: int = 50) -> TokenSearch:
        """Features that fire at the text: at tokens equal to it (except for white space), else wherever it occurs."""
        return self._search.token(query, most)

    def token_table(self) -> dict[str, list[str]]:
        """For a search without a server: from each token's text to the nodes that detect it best, the best first."""
        return self._search.table()

    def encode_text(self, text: str) -> TextCodes:
        """What fires on a text; raises ``UsageError`` without a host model or for an empty text."""
        if not self._encoder:
            raise UsageError("a host model is needed to show what fires on a text", "Give one: --model HOST.")
        with self._encoding:
            tokens, firings, cut = self._encoder(text)
        return self._text.codes(tokens, firings, cut)

    def example(self) -> TextCodes | None:
        """What fires on a telling passage of the indexed rows; None if tokens have no text."""
        return self._text.example if self.file.token_texts else None

    def set_label(self, id: str, text: str, author: str) -> Label | None:
        """Label a feature, or remove its label if the text is empty; saved at once. Raises ``KeyError``."""
        id = self.nodes.ids[self.nodes.levels.latent(id)]
        self._labels.set({id: text}, author)
        return self.labels().get(id)

    def labels(self) -> dict[str, Label]:
        """The current labels, by node."""
        return self._labels.current()

    @property
    def labels_file(self) -> Path:
        """The file of the labels."""
        return self._labels.path


def summary(report: dict[str, Any]) -> ReportSummary:
    """The tables of a report."""
    rows = [(table.title, table.columns, table.rows) for table in tables(report)]
    return ReportSummary(title(report), doubts(report), rows, list(lines(report)), report["sample"]["rows"])
