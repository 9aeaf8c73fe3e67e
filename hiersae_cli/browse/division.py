"""How the firings of every parent are divided among its children: the figures of the map.

Legend of shapes: R indexed rows, F latents, n firings of a latent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.browse.dictionary import IndexedDictionary
from hiersae_cli.browse.nodes import Nodes

Array = np.ndarray[Any, Any]


def divide(nodes: Nodes, dictionary: IndexedDictionary) -> dict[str, Array]:
    """Shares of firings in all indexed rows, (F,) each; NaN where undefined.

    ``share`` of a child: of its parent's firings, those at which it fires. ``overlap`` of a child: of these, those at
    which a sibling fires too. ``alone`` of a parent: of its firings, those at which no child fires.
    """
    lists = dictionary.lists
    share_F, overlap_F, alone_F = (np.full(dictionary.latents, np.nan) for _ in range(3))
    children_R = np.zeros(lists.rows, np.int32)  # how many of the children fire in each row
    inside_R = np.zeros(lists.rows, bool)
    for parent in np.unique(nodes.parent_F[nodes.parent_F >= 0]).tolist():
        row_n = lists.rows_of(parent)
        if not len(row_n):
            continue
        inside_R[row_n] = True
        inside = [(child, lists.rows_of(child)) for child in nodes.children(parent).tolist()]
        inside = [(child, rows[inside_R[rows]]) for child, rows in inside]
        for _, rows in inside:
            children_R[rows] += 1
        for child, rows in inside:
            share_F[child] = len(rows) / len(row_n)
            if len(rows):
                overlap_F[child] = (children_R[rows] > 1).mean()
        alone_F[parent] = (children_R[row_n] == 0).mean()
        inside_R[row_n] = False
        children_R[row_n] = 0
    return {"share": share_F, "overlap": overlap_F, "alone": alone_F}
