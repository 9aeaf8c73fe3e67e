"""A node and its family: how children divide a parent, and why a child has its parent.

Legend of shapes: R indexed rows, F latents, C children of a parent, or candidate parents.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hiersae_cli.browse.contexts import ContextReader
from hiersae_cli.browse.dictionary import IndexedDictionary
from hiersae_cli.browse.model import ChildPart, ChildView, Context, Edge, Evidence, Neighbour, ParentView
from hiersae_cli.browse.nodes import Nodes
from hiersae_cli.formats.index import IndexFile
from hiersae_cli.formats.numbers import rounded, rounded_or_none
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.tree import edge_statistics, max_mi_bits

TOGETHER = 12  # children whose contexts are shown, or loaded, at once
_CHILDREN, _SIBLINGS, _NEXT_BEST, _CANDIDATES = 600, 24, 5, 24
_CONTEXTS, _OF_CHILD = 6, 3

Array = np.ndarray[Any, Any]


class Family:
    """The views of parents and children, and the statistics of every edge."""

    def __init__(self, file: IndexFile, nodes: Nodes, dictionary: IndexedDictionary, contexts: ContextReader):
        self._nodes, self._dictionary, self._contexts = nodes, dictionary, contexts
        self._held_out_R = contexts.held_out_R
        self.held_out_rows = int(self._held_out_R.sum())
        tables, parent_F = dictionary.tables, nodes.parent_F
        self.soft = "active_soft" in tables
        suffix = "_soft" if self.soft else ""
        self._active_F, self._both_F = (np.asarray(tables[f"{name}{suffix}"]) for name in ("active", "both"))
        self._parent_active_F = np.where(parent_F == NONE, 0, self._active_F[parent_F])
        counts = (self._parent_active_F, self._active_F, self._both_F, self.held_out_rows)
        self.statistics = edge_statistics(*counts) | {"max_mi_bits": max_mi_bits(counts[0], counts[1], counts[3])}
        for values in self.statistics.values():
            values[parent_F == NONE] = np.nan

    def as_parent(self, latent: int) -> ParentView | None:
        """How the children of a latent divide its firing; None if it has no children.

        Only the first ``TOGETHER`` children have their contexts.
        """
        parts = self._parts(latent)
        if not parts:
            return None
        lists = self._dictionary.lists
        fired = int(lists.fired_F[latent])
        parent_R = self._dictionary.marked(latent)
        child_R = np.zeros(len(parent_R), bool)
        for child, _, _ in parts:
            child_R[lists.rows_of(child)] = True
        alone_R = parent_R & ~child_R
        child_C = self._nodes.children(latent)
        return ParentView(
            children=[
                ChildPart(
                    node=self._nodes.neighbour(child),
                    share=rounded(share),
                    overlap=rounded_or_none(overlap),
                    edge=self._edge(child, latent),
                    contexts=self._dictionary.strongest(child, _OF_CHILD) if place < TOGETHER else [],
                )
                for place, (child, share, overlap) in enumerate(parts[:_CHILDREN])
            ],
            together=Evidence(
                n_rows=self.held_out_rows,
                n_parent=int(self._active_F[latent]),
                n_child=int(self._active_F[child_C].sum()),
                n_both=int(self._both_F[child_C].sum()),
                soft=self.soft,
            ),
            alone=rounded_or_none(alone_R.sum() / fired) if fired else None,
            alone_contexts=self._dictionary.strongest(latent, _CONTEXTS, alone_R),
            child_contexts=self._dictionary.strongest(latent, _CONTEXTS, child_R),
            children_left_out=max(0, len(parts) - _CHILDREN),
        )

    def child_contexts(self, latent: int, part: int) -> list[tuple[Neighbour, list[Context]]]:
        """The strongest contexts of the children from ``part * TOGETHER`` on, in the order of ``as_parent``."""
        parts = self._parts(latent)[:_CHILDREN][part * TOGETHER : (part + 1) * TOGETHER]
        return [(self._nodes.neighbour(child), self._dictionary.strongest(child, _OF_CHILD)) for child, _, _ in parts]

    def _parts(self, latent: int) -> list[tuple[int, float, float]]:
        """The children of a latent, those that fire most with it first.

        With each its share of the parent's firings, and the share of these at which a sibling fires too.
        """
        lists = self._dictionary.lists
        parent_R = self._dictionary.marked(latent)
        fired = int(lists.fired_F[latent])
        inside = {}
        children_R = np.zeros(len(parent_R), np.int32)
        for child in self._nodes.children(latent).tolist():
            row_n = lists.rows_of(child)
            inside[child] = row_n[parent_R[row_n]]
            children_R[inside[child]] += 1
        parts = [
            (child, len(row_n) / max(fired, 1), (children_R[row_n] > 1).mean() if len(row_n) else math.nan)
            for child, row_n in inside.items()
        ]
        return sorted(parts, key=lambda part: (-part[1], part[0]))

    def as_child(self, latent: int) -> ChildView | None:
        """Why a latent has its parent; None for a latent of the coarsest level."""
        if latent < self._nodes.levels.widths[0]:
            return None
        parent = int(self._nodes.parent_F[latent])
        if parent == NONE:
            return ChildView(None, [], [], [], self._next_best(latent, parent))
        parent_R = self._dictionary.marked(parent)
        sibling_C = self._nodes.children(parent)
        sibling_C = sibling_C[sibling_C != latent]
        decoder_FD = self._dictionary.decoder_FD
        cosine_F = self._dictionary.cosines(decoder_FD[latent])
        order = np.lexsort((sibling_C, -cosine_F[sibling_C]))[:_SIBLINGS]
        return ChildView(
            edge=self._edge(latent, parent),
            with_parent=self._dictionary.strongest(latent, _CONTEXTS, parent_R),
            without_parent=self._dictionary.strongest(latent, _CONTEXTS, ~parent_R),
            siblings=[
                self._nodes.neighbour(sibling, rounded(cosine_F[sibling])) for sibling in sibling_C[order].tolist()
            ],
            next_best=self._next_best(latent, parent),
        )

    def _edge(self, latent: int, parent: int) -> Edge:
        statistics = {name: rounded_or_none(values[latent]) for name, values in self.statistics.items()}
        return self._as_edge(
            latent,
            parent,
            (self._parent_active_F[latent], self._active_F[latent], self._both_F[latent]),
            statistics,
            self.soft,
        )

    def _next_best(self, latent: int, parent: int) -> list[Edge]:
        """The edges that it would have to other latents of the level above that fire with it most beyond chance."""
        lists, dictionary = self._dictionary.lists, self._dictionary
        row_n = lists.rows_of(latent)
        level, _ = self._nodes.levels.place(latent)
        above = self._nodes.levels.slices[level - 1]
        together_C = dictionary.firing_at(row_n)[above]
        excess_C = together_C - len(row_n) * dictionary.rate_F[above]
        if above.start <= parent < above.stop:
            excess_C[parent - above.start] = 0
        chosen = np.lexsort((np.arange(len(excess_C)), -excess_C))[:_CANDIDATES]
        candidate_C = chosen[excess_C[chosen] > 0] + above.start
        child_R = dictionary.marked(latent) & self._held_out_R
        n_child = int(child_R.sum())
        rows_of = [lists.rows_of(candidate) for candidate in candidate_C.tolist()]
        parent_C = np.array([int(self._held_out_R[rows].sum()) for rows in rows_of])
        both_C = np.array([int(child_R[rows].sum()) for rows in rows_of])
        rows = self.held_out_rows
        statistics = edge_statistics(parent_C, n_child, both_C, rows)
        statistics["max_mi_bits"] = max_mi_bits(parent_C, n_child, rows)
        order = np.lexsort((candidate_C, -np.nan_to_num(statistics["mi_bits"])))[:_NEXT_BEST]
        return [
            self._as_edge(
                latent,
                int(candidate_C[place]),
                (parent_C[place], n_child, both_C[place]),
                {name: rounded_or_none(values[place]) for name, values in statistics.items()},
                False,
            )
            for place in order.tolist()
        ]

    def _as_edge(
        self, latent: int, parent: int, counts: tuple[int, int, int], statistics: dict[str, float | None], soft: bool
    ) -> Edge:
        names = ("mi_bits", "max_mi_bits", "mi_over_max", "p_parent_given_child", "p_child_given_parent", "lift")
        n_parent, n_child, n_both = map(int, counts)
        return Edge(
            parent=self._nodes.ids[parent],
            child=self._nodes.ids[latent],
            n_rows=self.held_out_rows,
            n_parent=n_parent,
            n_child=n_child,
            n_both=n_both,
            soft=soft,
            **{name: statistics[name] for name in names},
        )
