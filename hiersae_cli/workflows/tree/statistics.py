"""The statistics of a tree's nodes, as in ``tree.json``.

Legend of shapes: F latents of all levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.formats.numbers import finite_or_none
from hiersae_cli.metrics.catalogue import SOFT
from hiersae_cli.metrics.firings import NONE, FiringCounts
from hiersae_cli.metrics.tree import edge_statistics


def statistics_of(counts: FiringCounts, soft: FiringCounts | None) -> list[dict[str, Any]]:
    """The statistics of every latent; undefined ones are None."""
    rows, active_F, parent_F = counts.rows, counts.active_F, counts.parent_active_F
    edges = edges_of(counts)
    if soft:
        edges |= {f"{name}{SOFT}": values for name, values in edges_of(soft).items()}
    statistics = []
    for latent, parent in enumerate(counts.parent_F.tolist()):
        own: dict[str, Any] = {
            "n_rows": rows,
            "n_active": int(active_F[latent]),
            "rate": active_F[latent] / rows,
            "mean_activation": finite_or_none(counts.mean_F[latent]),
            "dead": not active_F[latent],
        }
        if parent != NONE:
            own |= {"n_parent": int(parent_F[latent]), "n_both": int(counts.both_F[latent])}
            own |= {name: finite_or_none(values[latent]) for name, values in edges.items()}
        statistics.append(own)
    return statistics


def edges_of(counts: FiringCounts) -> dict[str, np.ndarray]:
    """The statistics of the edge to each latent's parent, (F,) each."""
    return edge_statistics(counts.parent_active_F, counts.active_F, counts.both_F, counts.rows)
