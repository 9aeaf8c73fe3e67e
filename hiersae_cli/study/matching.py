"""Matched sets: one latent of each condition, alike in firing rate.

Legend of shapes: N candidates, K rates that candidates are matched on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hiersae_cli.errors import UsageError
from hiersae_cli.study.conditions import Condition
from hiersae_cli.study.protocol import CHILD, CONDITIONS, EDGE, EXAMPLE, LABEL, SHUFFLED

FEWER = (
    "Ask for fewer --sets, leave the task out with --tasks, index more rows (hiersae dashboard --tokens), or let in "
    "latents with denser marks (--most-marks)."
)
_FURTHEST = float(np.log(2))  # matched latents differ by no more than this in the logarithm of each rate

# Of each condition, the latents that an item of a task can be about.
_CANDIDATES = {
    EXAMPLE: Condition.with_silence,
    CHILD: Condition.families,
    EDGE: Condition.with_parent,
    LABEL: Condition.usable,
}

Array = np.ndarray[Any, Any]


def matched_sets(
    task: str, conditions: Mapping[str, Condition], learned_F: Array, least: int, most: int, random: np.random.Generator
) -> tuple[dict[str, Array], dict[str, Any]]:
    """``least`` to ``most`` latents by condition, those at one place alike in their rates; and how well they match.

    No latent is taken twice. The hierarchy and the shuffled parents share a dictionary: a latent taken for one is not
    shown for the other. An edge that shuffling left as it was learned is no candidate.

    Args:
        learned_F: the parents that the hierarchy learned.

    Raises ``UsageError`` if there are fewer than ``least`` sets.
    """
    names = CONDITIONS[task]
    candidates = {name: _CANDIDATES[task](conditions[name]) for name in names}
    if SHUFFLED in candidates and task == EDGE:
        shuffled_F, shuffled_N = conditions[SHUFFLED].parent_F, candidates[SHUFFLED]
        candidates[SHUFFLED] = shuffled_N[shuffled_F[shuffled_N] != learned_F[shuffled_N]]
    log_rates = {name: _log_rates(task, conditions[name], latent_N) for name, latent_N in candidates.items()}
    if empty := [name for name in names if not len(candidates[name])]:
        raise UsageError(f"no candidates of {', '.join(empty)} for the task {task}", FEWER)
    taken: dict[str, set[int]] = {name: set() for name in names}
    chosen: dict[str, list[int]] = {name: [] for name in names}
    distances: list[float] = []
    first, *others = names
    for place in random.permutation(len(candidates[first])).tolist():
        latent = int(candidates[first][place])
        if latent in taken[first]:
            continue
        not_free = {**taken, **({SHUFFLED: taken[SHUFFLED] | {latent}} if SHUFFLED in taken else {})}
        partners = _partners(log_rates[first][place], others, candidates, log_rates, not_free)
        if partners is None:
            continue
        for name, (partner, distance) in {first: (latent, 0.0), **partners}.items():
            chosen[name].append(partner)
            distances += [distance] if name != first else []
            for other in names:
                # A family of shuffled children is another family, whoever its parent was.
                same_latents = conditions[other].name == conditions[name].name
                if other == name or (task != CHILD and same_latents):
                    taken[other].add(partner)
        if len(chosen[first]) == most:
            break
    if len(chosen[first]) < least:
        raise UsageError(
            f"--sets {least}: only {len(chosen[first])} matched sets can be drawn for the task {task}", FEWER
        )
    places = {name: np.searchsorted(candidates[name], latents) for name, latents in chosen.items()}
    summary = {
        "candidates": {name: len(latent_N) for name, latent_N in candidates.items()},
        "mean_rate": {name: float(np.exp(log_rates[name][place][:, 0]).mean()) for name, place in places.items()},
        "mean_ratio": float(np.exp(np.mean(distances))),
        "largest_ratio": float(np.exp(np.max(distances))),
    }
    return {name: np.array(latents) for name, latents in chosen.items()}, summary


def _log_rates(task: str, condition: Condition, latent_N: Array) -> Array:
    """What candidates are matched on, (N, K): logarithms of firing rates."""
    if task == CHILD:
        means = [np.log(condition.rate_F[condition.children(parent)]).mean() for parent in latent_N.tolist()]
        return np.array(means).reshape(-1, 1)
    columns = [condition.rate_F[latent_N]]
    if task == EDGE:
        columns.append(condition.rate_F[condition.parent_F[latent_N]])
    return np.log(np.stack(columns, 1))


def _partners(
    log_rate_K: Array,
    others: list[str],
    candidates: Mapping[str, Array],
    log_rates: Mapping[str, Array],
    taken: Mapping[str, set[int]],
) -> dict[str, tuple[int, float]] | None:
    """The nearest free candidate of each other condition and its distance; None if a condition has none near enough."""
    partners = {}
    for name in others:
        free_N = np.array([latent not in taken[name] for latent in candidates[name].tolist()])
        distance_N = np.where(free_N, np.abs(log_rates[name] - log_rate_K).max(1), np.inf)
        nearest = int(distance_N.argmin())
        if distance_N[nearest] > _FURTHEST:
            return None
        partners[name] = (int(candidates[name][nearest]), float(distance_N[nearest]))
    return partners
