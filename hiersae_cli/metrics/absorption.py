"""Absorption: a latent of something finer keeps the concept's latents silent, and carries the concept itself.

Legend of shapes: N rows, D width, F latents.

Source: Chanin et al. (2024), A is for Absorption, arXiv 2409.14507 (full form), and Karvonen et al. (2025), SAEBench,
arXiv 2503.09532 (fractional form). Published for first letters and models of 1B parameters and more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

Array = np.ndarray[Any, Any]

LEAST_COSINE, LEAST_SHARE = 0.025, 0.4  # of an absorber, in the full form
FRACTION_COSINE, ABSORBERS = 0.1, 3  # in the fractional form


def absorption(
    values_NF: csr_array, decoder_FD: Array, direction_D: Array, projection_N: Array, main: Array
) -> tuple[Array, Array]:
    """Of rows in which a probe detects a concept: which are absorbed (N,) bool, and the share (N,) that is.

    A row is absorbed where none of the main latents fires and one other, whose decoder row has cosine >= .025 with the
    probe's direction, carries >= .4 of the activation's projection on that. The share is A / (A + M), M what the main
    latents carry and A what the three that carry most of the others do, of those with cosine >= .1; 0 where M is all of
    the projection.

    Args:
        values_NF: the codes of the rows.
        direction_D: of the probe.
        projection_N: of the rows' activations, less their mean, on the unit vector of that direction.
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
    both_N = by_main_N + by_others_N
    share_N = np.divide(by_others_N, both_N, out=np.zeros(rows), where=both_N > 0)
    return absorbed_N, np.where(by_main_N >= projection_N, 0.0, share_N)
