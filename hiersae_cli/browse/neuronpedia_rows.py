"""Features as rows of SAEDashboard and Neuronpedia: one object per latent, with the names that these tools read.

Legend of shapes: R indexed rows, V vocabulary, n firings, C candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import Context
from hiersae_cli.formats.numbers import rounded

_BINS = 50
_TOP, _PER_DECILE = 20, 5
_CORRELATED, _CANDIDATES = 3, 16

Array = np.ndarray[Any, Any]


def feature_row(index: Index, latent: int, logits_V: Array | None) -> dict[str, Any]:
    """The row of a latent; latents are numbered through all levels from the coarsest.

    Fields that only those tools measure (alignment with neurons, attention heads) are empty lists, since readers
    expect them. ``logits_V`` is what the latent adds to the logits; None if the logit lens does not apply.

    - ``activations``: the strongest contexts (``bin_min`` and ``bin_contains`` -1), then contexts from each decile of
      activation, where ``bin_contains`` is the share of firings in it.
    - ``freq_hist_data_bar_*``: firings by activation, in 50 equal bins from 0; ``values`` are the bins' middles.
    - ``correlated_features_*``: the latents with the largest Pearson correlation of activations over the indexed rows;
      ``l1`` is the cosine of activations, as in those tools.
    """
    dictionary, contexts = index.dictionary, index.contexts
    row_n, value_n = dictionary.lists.of(latent)
    promoted, suppressed = dictionary.lens(latent, "promoted"), dictionary.lens(latent, "suppressed")
    correlated = _correlated(index, latent, row_n, value_n)
    seed = (index.file.header["made_of"]["seed"], latent)
    top = dictionary.strongest(latent, _TOP)
    activations = [_activation(context, -1, rounded(value_n.max()), -1) for context in top]
    for decile in contexts.deciles(row_n, value_n, _PER_DECILE, seed):
        share = rounded(decile.count / len(row_n))
        activations += [_activation(context, decile.low, decile.high, share) for context in decile.contexts]
    return {
        "feature_index": latent,
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "neuron_alignment_l1": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "correlated_features_indices": [other for other, _, _ in correlated],
        "correlated_features_pearson": [rounded(pearson) for _, pearson, _ in correlated],
        "correlated_features_l1": [rounded(cosine) for _, _, cosine in correlated],
        "neg_str": [token.text for token in suppressed],
        "neg_values": [token.value for token in suppressed],
        "pos_str": [token.text for token in promoted],
        "pos_values": [token.value for token in promoted],
        "frac_nonzero": rounded(dictionary.rate_F[latent]),
        **_bars("freq", value_n, (0.0, float(value_n.max(initial=0.0)))),
        **_bars("logits", np.zeros(0) if logits_V is None else logits_V, None),
        "decoder_weights_dist": [],
        "activations": activations,
    }


def _activation(context: Context, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "bin_min": low,
        "bin_max": high,
        "bin_contains": share,
        "tokens": context.tokens,
        "values": context.activations,
        "qualifying_token_index": context.focus,
    }


def _bars(name: str, values: Array, limits: tuple[float, float] | None) -> dict[str, list[float]]:
    counts, edges = np.histogram(values, _BINS, limits) if len(values) else (np.zeros(0, int), np.zeros(1))
    return {
        f"{name}_hist_data_bar_values": [rounded(middle) for middle in ((edges[:-1] + edges[1:]) / 2).tolist()],
        f"{name}_hist_data_bar_heights": counts.tolist(),
    }


def _correlated(index: Index, latent: int, row_n: Array, value_n: Array) -> list[tuple[int, float, float]]:
    """The most correlated latents, each with the Pearson correlation and the cosine of activations.

    Only latents that fire with it most beyond chance are candidates.
    """
    dictionary, rows = index.dictionary, index.file.rows
    if not len(row_n):
        return []
    excess_C = dictionary.firing_at(row_n) - len(row_n) * dictionary.rate_F
    excess_C[latent] = 0
    candidates = np.lexsort((np.arange(len(excess_C)), -excess_C))[:_CANDIDATES]
    activation_R = np.zeros(dictionary.lists.rows)
    activation_R[row_n] = value_n
    sums = value_n.sum(dtype=np.float64), np.square(value_n, dtype=np.float64).sum()
    correlated = []
    for other in candidates[excess_C[candidates] > 0].tolist():
        other_row_n, other_value_n = dictionary.lists.of(other)
        other_sum, other_square = other_value_n.sum(dtype=np.float64), np.square(other_value_n, dtype=np.float64).sum()
        product = float(activation_R[other_row_n] @ other_value_n)
        deviations = (sums[1] - sums[0] ** 2 / rows) * (other_square - other_sum**2 / rows)
        if deviations > 0:
            pearson = (product - sums[0] * other_sum / rows) / deviations**0.5
            correlated.append((other, pearson, product / (sums[1] * other_square) ** 0.5))
    return sorted(correlated, key=lambda row: (-row[1], row[0]))[:_CORRELATED]
