"""The nodes of a run's tree: their ids, parents, children and names.

Legend of shapes: F latents of all levels, C children of a node.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.browse.dictionary import IndexedDictionary
from hiersae_cli.browse.model import Neighbour
from hiersae_cli.formats.labels import Label, Labels
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import NONE

Array = np.ndarray[Any, Any]


class Nodes:
    """The tree of a dictionary's latents, which are numbered through all levels from the coarsest."""

    def __init__(self, levels: Levels, dictionary: IndexedDictionary, labels: Labels):
        self._dictionary, self._labels = dictionary, labels
        self.levels, self.ids = levels, levels.ids
        self.parent_F: Array = np.asarray(dictionary.tables["parent"])
        self._by_parent = np.argsort(self.parent_F, kind="stable")
        self._sorted_parents = self.parent_F[self._by_parent]
        self.hints = dictionary.hints

    def children(self, latent: int) -> Array:
        """The children of a latent, (C,), ascending."""
        first, last = np.searchsorted(self._sorted_parents, (latent, latent + 1))
        return self._by_parent[first:last]

    def ancestors(self, latent: int) -> list[int]:
        """The nodes above a latent, from its root down to its parent."""
        ancestors: list[int] = []
        above = int(self.parent_F[latent])
        while above != NONE:
            ancestors.append(above)
            above = int(self.parent_F[above])
        return ancestors[::-1]

    def labels(self) -> dict[str, Label]:
        """The current labels, by node."""
        return self._labels.current()

    def neighbour(self, latent: int, cosine: float | None = None) -> Neighbour:
        """A latent as other pages list it."""
        label = self.labels().get(self.ids[latent])
        rate = float(self._dictionary.rate_F[latent])
        return Neighbour(self.ids[latent], label.text if label else None, self.hints[latent], rate, cosine)
