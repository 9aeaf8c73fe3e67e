"""The stability of a group: its dictionaries, and further runs, compared pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.metrics.intervals import Estimate
from hiersae_cli.metrics.stability import PairFigure, SeedDictionary, compare_seeds, mean_over_pairs
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.workflows.eval.passes import OtherSeed
from hiersae_cli.workflows.eval.score import ScoredGroup


def stability(group: ScoredGroup, further: Sequence[OtherSeed], config: EvalConfig) -> dict[str, Estimate]:
    """Means over the pairs of seeds, by the names of the figures in the report; none for a single seed."""
    dictionaries = [
        _compared(dictionary.subject.model, dictionary.encoded.live_F, dictionary.encoded.own_F)
        for dictionary in group.scored
    ]
    dictionaries += [_compared(other.subject.model, other.live_F, other.fitted.own_tree()) for other in further]
    figures: dict[str, dict[tuple[int, int], PairFigure | None]] = {}
    pairs = list(combinations(range(len(dictionaries)), 2))
    for i, j in pairs:
        for metric, figure in compare_seeds(dictionaries[i], dictionaries[j], config.seed).items():
            figures.setdefault(metric, dict.fromkeys(pairs))[i, j] = figure
    means = {metric: mean_over_pairs(of_pairs, config.confidence) for metric, of_pairs in figures.items()}
    return {metric: estimate for metric, estimate in means.items() if estimate.value is not None}


def _compared(model: SparseAutoencoder, live_F: np.ndarray, parent_F: np.ndarray | None) -> SeedDictionary:
    return SeedDictionary(model.W_dec_FD.detach(), model.levels, live_F, parent_F)
