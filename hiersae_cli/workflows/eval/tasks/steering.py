"""Steering: whether adding a latent's direction raises the tokens that follow its firings.

Legend of shapes: N rows, V vocabulary, E edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.intervals import Bootstrap, Figure
from hiersae_cli.metrics.steering import DAMAGE, Steering, targets
from hiersae_cli.workflows.eval.sample import SampleWindows
from hiersae_cli.workflows.eval.tasks.base import Array, DownstreamTask, ProbedConcepts, TaskCodes, TaskInputs

_TOKENS = 1024  # held-out tokens in which directions are tried, again and again
_FAMILIES = 12  # of a tree: an edge of each is measured
_FIRST_STRENGTH = 0.3  # of the added direction in the first try, as a share of the activations' deviation
_LEAST_FIRINGS = 20  # of both latents of an edge


@dataclass(frozen=True)
class SteeringTrials:
    """Where directions are tried, and the tokens that they should raise.

    Attributes:
        windows: the windows of the host's text.
        following_N: the token that follows each row to fit on; -1 for none.
        deviation: root of the activations' summed variance.
    """

    windows: Steering
    following_N: Array
    deviation: float

    def following_V(self, rows: Array | slice = slice(None)) -> Array:
        """How often each token follows some of the rows to fit on."""
        tokens = self.following_N[rows]
        return np.bincount(tokens[tokens >= 0], minlength=self.windows.vocabulary)


class SteeringByLatents(DownstreamTask[SteeringTrials, dict[str, Array]]):
    """Effects (E,) of the directions of some parents and their children, by the name of the figure."""

    name = "steering"
    metrics = ("steering_parent", "steering_child", "steering_child_by_parent")
    runs_host = True

    def prepare(self, inputs: TaskInputs, probed: ProbedConcepts) -> SteeringTrials:
        """Run the host on the windows as they are; raises ``FileError`` if no window has two tokens."""
        acts = inputs.acts
        windows = SampleWindows.spread(acts, inputs.held_out, _TOKENS)
        following = np.append(windows.tokens[1:], -1)
        following[np.append(acts.column("position")[1:], 0) == 0] = -1
        deviation = float(np.sqrt(probed.fit.x_ND.var(0, dtype=float).sum()))
        return SteeringTrials(
            Steering(inputs.host, acts.module, *windows.padded()), following[inputs.fit_rows], deviation
        )

    def measure(self, codes: TaskCodes, prepared: SteeringTrials) -> dict[str, Array]:
        """Effects of an edge of each of a few families, chosen at random; none without a tree."""
        if codes.own_F is None:
            return {}
        effects = [_effects(codes, prepared, child, codes.own_F[child]) for child in _children(codes, codes.own_F)]
        known = np.array([effect for effect in effects if np.isfinite(effect).all()])
        return dict(zip(self.metrics, known.T, strict=True)) if len(known) else {}

    def figures(self, result: dict[str, Array], probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        """Means over the edges."""
        return {name: bootstrap.mean_over_units(effect_E) for name, effect_E in result.items()}


def _children(codes: TaskCodes, tree_F: Array) -> Array:
    """One child of each of a few parents, chosen at random among those that fire often enough."""
    fired_F = np.diff(codes.fit_columns.indptr)
    usable_F = (tree_F != NONE) & (fired_F >= _LEAST_FIRINGS)
    usable_F &= fired_F[tree_F] >= _LEAST_FIRINGS
    children = np.random.default_rng(0).permutation(np.flatnonzero(usable_F))
    first = np.unique(tree_F[children], return_index=True)[1]
    return children[np.sort(first)][:_FAMILIES]


def _effects(codes: TaskCodes, trials: SteeringTrials, child: int, parent: int) -> Array:
    """Effects (3,) of the parent's direction on its tokens, the child's on its tokens, the parent's on the child's."""
    by_child_V, by_parent_V = _response(codes, trials, child), _response(codes, trials, parent)
    of_child_V, of_parent_V = _targets(codes, trials, child), _targets(codes, trials, parent)
    return np.array([of_parent_V @ by_parent_V, of_child_V @ by_child_V, of_child_V @ by_parent_V])


def _targets(codes: TaskCodes, trials: SteeringTrials, latent: int) -> Array:
    columns = codes.fit_columns
    rows = columns.indices[columns.indptr[latent] : columns.indptr[latent + 1]]
    return targets(trials.following_V(rows), trials.following_V())


def _response(codes: TaskCodes, trials: SteeringTrials, latent: int) -> Array:
    """Change (V,) of log-probabilities per nat of damage; NaN if the direction cannot do the wanted damage."""
    direction_D = codes.model.W_dec_FD[latent].detach()
    change_V, damage = trials.windows.response(direction_D, _FIRST_STRENGTH * trials.deviation)
    return change_V / damage if 0.5 < damage / DAMAGE < 2 else np.full(trials.windows.vocabulary, np.nan)


TASK = SteeringByLatents()
