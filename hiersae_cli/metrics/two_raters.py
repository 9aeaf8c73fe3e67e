"""Agreement of two raters on nominal values, beyond chance.

Legend of shapes: V values, n tables.

Both coefficients are (p_o - p_e) / (1 - p_e), where p_o is the share of units on which the raters agree. They differ in
the agreement by chance p_e:
    Cohen's kappa: p_e = sum of p_v q_v, with p_v and q_v the shares of value v by each rater.
    Gwet's AC1: p_e = sum of m_v (1 - m_v) / (V - 1), with m_v = (p_v + q_v) / 2.
If nearly all answers are the same, kappa is low even though the raters agree, and AC1 is not.
Sources: Cohen (1960), Educational and Psychological Measurement 20; Gwet (2008), British Journal of Mathematical and
Statistical Psychology 61.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def confusion(first: Array, second: Array, values: int) -> Array:
    """How often each pair of values was given to a unit, (V, V); values are numbered from 0."""
    return np.bincount(first * values + second, minlength=values * values).reshape(values, values)


def cohen_kappa(count_nVV: Array) -> Array:
    """Cohen's kappa of tables of pairs, (n,); NaN without units, or if both raters give only one value."""
    share_nVV = _shares(count_nVV)
    by_chance_n = (share_nVV.sum(2) * share_nVV.sum(1)).sum(1)
    return _beyond(share_nVV, by_chance_n)


def gwet_ac1(count_nVV: Array) -> Array:
    """Gwet's AC1 of tables of pairs, (n,); NaN without units."""
    share_nVV = _shares(count_nVV)
    mean_nV = (share_nVV.sum(2) + share_nVV.sum(1)) / 2
    return _beyond(share_nVV, (mean_nV * (1 - mean_nV)).sum(1) / (count_nVV.shape[-1] - 1))


def resampled_tables(count_VV: Array, resamples: int, seed: int) -> Array:
    """Tables under resampling of the units, (n, V, V)."""
    units = int(count_VV.sum())
    draw = np.random.default_rng(seed)
    tables_nP = draw.multinomial(units, count_VV.ravel() / max(units, 1), size=resamples)
    return tables_nP.reshape(resamples, *count_VV.shape)


def _shares(count_nVV: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: Array = count_nVV / count_nVV.sum((1, 2))[:, None, None]
    return shares


def _beyond(share_nVV: Array, by_chance_n: Array) -> Array:
    observed_n = np.trace(share_nVV, axis1=1, axis2=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond: Array = np.where(by_chance_n < 1, (observed_n - by_chance_n) / (1 - by_chance_n), np.nan)
    return beyond
