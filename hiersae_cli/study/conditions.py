"""The conditions of a study: a dictionary under a tree each, and which of its latents can be shown.

Legend of shapes: R rows of the index, F latents of a dictionary, H rows of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.browse.index import Index
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.activations import DROPPED, HELD_OUT, TRAIN
from hiersae_cli.formats.index import FiringLists
from hiersae_cli.formats.index_layout import BASELINE, RUN
from hiersae_cli.metrics.description import FiringRows, most_informative_parents
from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.recovery import shuffled_parents
from hiersae_cli.study.protocol import FLAT, HIERARCHY, SHUFFLED

LEAST_FIRINGS = 40  # held-out ones that a latent needs to be shown
CHILDREN = 3  # of a parent that are shown
_SAMPLED, _LEAST_SILENT = 4000, 20  # held-out rows searched for windows in which a latent is silent
_TEXTS = 64  # of a latent, in which its marks are counted
_TREE_ROWS = 200_000  # training rows that the post-hoc tree of the baseline is fitted on

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Condition:
    """A dictionary under a tree, from which the items of a condition are drawn.

    Attributes:
        name: of the dictionary in the index.
        lists: its firings.
        parent_F: the tree.
        level_F: of each latent, so that an intruder has the same level as the others.
        rate_F: share of held-out rows in which each fires.
        usable_F: whether it fires often enough to be shown, and its marks are sparse enough.
        dense: how many latents are left out only since their marks are too dense.
        sample_H: held-out rows in which silence is looked for, ascending.
        around: rows on each side of a context's focus.
        seed: of the children that are shown.
    """

    name: str
    lists: FiringLists
    parent_F: Array
    level_F: Array
    rate_F: Array
    usable_F: Array
    dense: int
    sample_H: Array
    around: int
    seed: int

    def id_of(self, latent: int) -> str:
        """A latent's name in the items."""
        return f"{self.name}:{latent}"

    def usable(self) -> Array:
        """The latents that fire often enough."""
        return np.flatnonzero(self.usable_F)

    def with_silence(self) -> Array:
        """Usable latents that are silent in enough windows for an intruder."""
        enough = [latent for latent in self.usable().tolist() if len(self.silent_rows(latent)) >= _LEAST_SILENT]
        return np.array(enough, int)

    def with_parent(self) -> Array:
        """Usable latents whose parent is usable too."""
        child = np.flatnonzero(self.usable_F & (self.parent_F != NONE))
        return child[self.usable_F[self.parent_F[child]]]

    def families(self) -> Array:
        """Usable latents with enough usable children."""
        child = self.with_parent()
        parent, count = np.unique(self.parent_F[child], return_counts=True)
        return parent[count >= CHILDREN]

    def silent_rows(self, latent: int) -> Array:
        """Rows of the sample in whose window a latent does not fire."""
        firing = self.lists.rows_of(latent)
        first, last = (np.searchsorted(firing, self.sample_H + end) for end in (-self.around, self.around + 1))
        return self.sample_H[first == last]

    def children(self, parent: int) -> Array:
        """Three usable children of a parent, the same at every call."""
        child = np.flatnonzero(self.usable_F & (self.parent_F == parent))
        random = np.random.default_rng((self.seed, 3, parent))
        return np.sort(random.choice(child, CHILDREN, replace=False))


def conditions_of(index: Index, seed: int, most_marks: float) -> dict[str, Condition]:
    """The conditions by name: the run, its baseline under a post-hoc tree, and the run with its parents shuffled.

    Latents that mark more than the share ``most_marks`` of the tokens of their texts are not shown. Raises
    ``UsageError`` if the index has no baseline.
    """
    if BASELINE not in index.file.lists:
        raise UsageError("the study needs a flat dictionary to compare with", "Give it: --baseline RUN.")
    split_R = np.asarray(index.file.columns["split"])
    held_out_R = split_R == HELD_OUT
    held_out = np.flatnonzero(held_out_R)
    sample_H = np.sort(np.random.default_rng((seed, 4)).permutation(held_out)[:_SAMPLED])
    around = index.contexts.around

    def condition(name: str, parent_F: Array, level_F: Array) -> Condition:
        lists = index.file.lists[name]
        count_F = np.array([held_out_R[lists.rows_of(latent)].sum() for latent in range(lists.latents)], dtype=float)
        rate_F = count_F / max(len(held_out), 1)
        often_F = count_F >= LEAST_FIRINGS
        sparse_F = often_F.copy()
        for latent in np.flatnonzero(often_F).tolist():
            sparse_F[latent] = share_marked(*lists.of(latent), held_out_R, around) <= most_marks
        dense = int((often_F & ~sparse_F).sum())
        return Condition(name, lists, parent_F, level_F, rate_F, sparse_F, dense, sample_H, around, seed)

    learned_F, levels = index.nodes.parent_F, index.nodes.levels
    level_F = np.array(levels.level_F)
    flat = index.file.lists[BASELINE]
    flat_F = post_hoc_tree(flat, np.flatnonzero(split_R == TRAIN), np.flatnonzero(split_R != DROPPED))
    return {
        HIERARCHY: condition(RUN, learned_F, level_F),
        FLAT: condition(BASELINE, flat_F, np.zeros(flat.latents, int)),
        SHUFFLED: condition(RUN, shuffled_parents(learned_F, levels, seed), level_F),
    }


def share_marked(row_n: Array, value_n: Array, held_out_R: Array, around: int) -> float:
    """The share of tokens that a latent marks in its held-out texts, of some firings of every strength."""
    of_held_out_n = held_out_R[row_n]
    row, value = row_n[of_held_out_n], value_n[of_held_out_n]
    if not len(row):
        return 0.0
    places = np.linspace(0, len(row) - 1, min(len(row), _TEXTS)).astype(int)
    focus = row[np.argsort(-value, kind="stable")[places]]
    first, last = np.searchsorted(row, focus - around), np.searchsorted(row, focus + around, side="right")
    return float((last - first).mean() / (2 * around + 1))


def post_hoc_tree(lists: FiringLists, training_rows: Array, all_rows: Array) -> Array:
    """The most informative parents (F,) of a flat dictionary, fitted on training rows as ``hiersae eval`` does.

    On ``all_rows`` if the index has no training rows.
    """
    rows = training_rows if len(training_rows) else all_rows
    rows = rows[:: max(1, -(-len(rows) // _TREE_ROWS))]
    place_m, latent_m = lists.at(rows)
    firings = FiringRows(lists.latents)
    firings.add(
        Firings(len(rows), lists.latents, place_m * lists.latents + latent_m, np.ones(len(place_m), np.float32))
    )
    return most_informative_parents(firings.pairs())
