"""Absorption: a more specific latent carries a concept in place of the concept's own latents, which stay silent.

Legend of shapes: N rows, D width, F latents.

Source: Chanin et al. (2024), A is for Absorption, arXiv 2409.14507 (full form), and Karvonen et al. (2025), SAEBench,
arXiv 2503.09532 (fractional form). Published for first letters and models with 1B parameters and more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from hiersae_cli.metrics.ratio import ratio

Array = np.ndarray[Any, Any]

LEAST_COSINE, LEAST_SHARE = 0.025, 0.4  # what an absorber needs in the full form
FRACTION_COSINE, ABSORBERS = 0.1, 3  # least cosine and most absorbers in the fractional form


def absorption(
    values_NF: csr_array, decoder_FD: Array, direction_D: Array, projection_N: Array, main: Array
) -> tuple[Array, Array]:
    """For rows in which a probe detects a concept: which are absorbed, (N,) bool, and the absorbed share of each, (N,).

    A row is absorbed if none of the main latents fires and another latent, whose decoder row has cosine >= .025 with
    the probe's direction, carries >= .4 of the activation's projection on that direction. The share is A / (A + M): the
    main latents carry M, and A is carried by the three other latents that carry most, among those with cosine >= .1.
    The share is 0 if M is the whole projection or more.

    Args:
        values_NF: the codes of the rows.
        direction_D: the direction of the probe.
        projection_N: projection of the rows' activations, minus their mean, on the unit vector of that direction.
        main: the concept's main latents, see ``splitting``.
    """
    unit_D = direction_D / max(float(np.linalg.norm(direction_D)), 1e-30)
    along_F = decoder_FD @ unit_D
    cosine_F = along_F / np.maximum(np.linalg.norm(decoder_FD, axis=1), 1e-30)
    is_main_F = np.zeros(len(along_F), bool)
    is_main_F[main] = True
    rows = values_NF.shape[0]
    row_n = np.repeat(np.arange(rows), np.diff(values_NF.indptr))
    latent_n, carried_n = values_NF.indices, values_NF.data * along_F[values_NF.indices]
    main_n = is_main_F[latent_n]
    silent_N = np.bincount(row_n[main_n & (values_NF.data > 0)], minlength=rows) == 0
    by_main_N = np.bincount(row_n[main_n], carried_n[main_n], minlength=rows).clip(0)

    absorber_n = ~main_n & (cosine_F[latent_n] >= LEAST_COSINE)
    most_N = np.zeros(rows)
    np.maximum.at(most_N, row_n[absorber_n], carried_n[absorber_n])
    absorbed_N = silent_N & (projection_N > 0) & (most_N >= LEAST_SHARE * projection_N)

    absorber_n = ~main_n & (cosine_F[latent_n] >= FRACTION_COSINE)
    row_m, carried_m = row_n[absorber_n], carried_n[absorber_n]
    order = np.lexsort((-carried_m, row_m))
    row_m, carried_m = row_m[order], carried_m[order]
    rank_m = np.arange(len(row_m)) - np.searchsorted(row_m, row_m)
    first_m = rank_m < ABSORBERS
    by_others_N = np.bincount(row_m[first_m], carried_m[first_m].clip(0), minlength=rows)
    share_N = ratio(by_others_N, by_main_N + by_others_N, 0.0)
    return absorbed_N, np.where(by_main_N >= projection_N, 0.0, share_N)
