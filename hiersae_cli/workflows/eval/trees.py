"""Trees in ``hiersae eval``: their edges, description length, hierarchy score and recovery of a known truth.

Legend of shapes: B rows of a batch, D width, F latents, N true features, E edges and P parents of a tree, K blocks of
documents, n weightings of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from hiersae_cli.formats.report import OWN
from hiersae_cli.metrics.catalogue import CHOW_LIU, OF_EDGE, SHUFFLED, metric_of
from hiersae_cli.metrics.description import FiringRows, SupportCode, chow_liu, most_informative_parents
from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.hierarchy_score import ProbeSums, hierarchy_hits, nearest_latents
from hiersae_cli.metrics.intervals import Bootstrap, Draws, Figure, Share
from hiersae_cli.metrics.ratio import ratio
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, EdgeSums, Moments
from hiersae_cli.metrics.recovery import (
    DetectorSums,
    edge_f1,
    edge_recovery,
    match_features,
    shuffled_parents,
    within_reach,
)
from hiersae_cli.metrics.shift_null import ShiftNull
from hiersae_cli.metrics.tree import edge_statistics, max_mi_bits, or_distance, sibling_cosine, sibling_overlap
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.synth import Truth

Array = np.ndarray[Any, Any]
Figures = dict[str, Figure]

LEAST_FIRINGS = 20  # of a child in the sample: with fewer, its edge is left out of the means
BEYOND = 3.0  # deviations above the circular-shift null from which an edge counts as beyond it

# Figures of the families of a tree: parents with their children.
_FAMILY_METRICS = ("or_distance", "sibling_overlap")
TREE_METRICS = (*OF_EDGE, *_FAMILY_METRICS, "nested_firings")

_SHIFTS = 20
_EDGES, _WEIGHTINGS = 512, 64  # in one table of statistics


class TreeSums:
    """Sums over held-out rows for the trees of one dictionary.

    Args:
        model: the dictionary.
        learned_F: its tree, the index of each latent's parent or ``NONE``; None for a flat one.
        fitted: its firings in training rows. Post-hoc trees and codes are fitted on them; without rows there are none.
        truth: the true features of synthetic activations.
        moments: of the held-out rows' activations; the caller adds the rows.
        blocks: K.
        seed: for the shuffled control and the shifts.

    Attributes:
        trees: parents (F,) by ``OWN``, ``CHOW_LIU`` and ``SHUFFLED``; a tree that does not exist is missing.
        edges: sums over the edges of each tree.
        codes: how supports are coded under each tree, if codes are fitted.
    """

    def __init__(
        self,
        model: SparseAutoencoder,
        learned_F: Array | None,
        fitted: FiringRows,
        truth: Truth | None,
        moments: Moments,
        blocks: int,
        seed: int,
    ):
        self._decoder_FD = model.W_dec_FD.detach()
        self._truth = truth
        self.trees: dict[str, Array] = {} if learned_F is None else {OWN: learned_F}
        self.codes: dict[str, SupportCode] = {}
        if fitted.rows:
            pairs = fitted.pairs()
            self.trees = {OWN: most_informative_parents(pairs), **self.trees, CHOW_LIU: chow_liu(pairs)}
            self._flat = _coded(np.full(model.latents, NONE), fitted)
            self.codes = {suffix: _coded(parent_F, fitted) for suffix, parent_F in self.trees.items()}
        if OWN in self.trees:
            self.trees[SHUFFLED] = shuffled_parents(self.trees[OWN], model.levels, seed)
        self.edges = {suffix: EdgeSums(blocks, parent_F) for suffix, parent_F in self.trees.items()}
        self._null = ShiftNull(list(self.trees.values()), _SHIFTS, seed)
        self._probes = ProbeSums(moments, model.latents)
        if truth:
            self._matching = match_features(self._decoder_FD, truth.features_ND)
            self._detectors = DetectorSums(blocks, self._matching.nearest_F, len(truth))

    def add(self, x_BD: torch.Tensor, firings: Firings, block_B: torch.Tensor, truth_BN: torch.Tensor | None) -> None:
        """Add a batch, which is on the CPU, with the true features of its rows if there is a truth."""
        for edges in self.edges.values():
            edges.add(firings, block_B)
        self._probes.add(x_BD, firings)
        if truth_BN is not None:
            self._detectors.add(firings, truth_BN, block_B)

    def add_stretch(self, firings: Firings) -> None:
        """Add consecutive rows of a document, for the circular-shift null."""
        self._null.add(firings)

    def figures(self, sums: CodeSums, data: DataSums, bootstrap: Bootstrap) -> Figures:
        """All figures by their names in the report."""
        figures: Figures = {}
        for suffix, edges in self.edges.items():
            of_tree = tree_figures(edges, sums, data, bootstrap)
            figures |= {f"{name}{suffix}": figure for name, figure in of_tree.items()}
        figures |= self._over_edges(sums.fired_KF.sum(0), bootstrap)
        figures |= self._description(sums, data, bootstrap)
        if self._truth:
            figures |= self._detection(int(data.rows_K.sum()), bootstrap)
            figures |= self._recovered_edges(self._truth, bootstrap)
        return figures

    def table(self, suffix: str, sums: CodeSums, data: DataSums) -> dict[str, Array]:
        """Columns (E,) with the statistics of every edge of a tree, as in the file of edges."""
        edges, fired_F, rows = self.edges[suffix], sums.fired_KF.sum(0, dtype=float), data.rows_K.sum()
        child_E, parent_E, both_E = edges.child_E, edges.parent_E, edges.both_KE.sum(0, dtype=float)
        columns = {
            "child": child_E,
            "parent": parent_E,
            "n_rows": np.full(len(child_E), int(rows)),
            "n_parent": fired_F[parent_E].astype(int),
            "n_child": fired_F[child_E].astype(int),
            "n_both": both_E.astype(int),
            **edge_statistics(fired_F[parent_E], fired_F[child_E], both_E, rows),
            "max_mi_bits": max_mi_bits(fired_F[parent_E], fired_F[child_E], rows),
            "z_shift": self._null.scores(list(self.trees).index(suffix))[child_E],
            "hierarchy_hit": hierarchy_hits(self._near_FN, child_E, parent_E).astype(int),
        }
        # Every tree has the same columns, because all are in one file.
        fitted_F = self.codes[suffix].on_F if suffix in self.codes else np.full(len(fired_F), np.nan)
        return {**columns, "p_child_given_parent_fitted": fitted_F[child_E]}

    @cached_property
    def _near_FN(self) -> Array:
        return nearest_latents(self._probes.directions(), self._decoder_FD.cpu())

    def _description(self, sums: CodeSums, data: DataSums, bootstrap: Bootstrap) -> Figures:
        if not self.codes:
            return {}

        def per_token(code: SupportCode, edges: EdgeSums | None) -> Draws:
            both_KF = np.zeros_like(sums.fired_KF)
            if edges:
                both_KF[:, edges.child_E] = edges.both_KE
            bits_K, rows = code.bits(data.rows_K, sums.fired_KF, both_KF), int(data.rows_K.sum())
            return bootstrap.draws(lambda w_nK: (w_nK @ bits_K) / (w_nK @ data.rows_K), rows, "bits")

        return {
            "bits_per_token": per_token(self._flat, None),
            "bits_per_token_tree": per_token(self.codes[OWN], self.edges[OWN]),
            "bits_per_token_chow_liu": per_token(self.codes[CHOW_LIU], self.edges[CHOW_LIU]),
        }

    def _over_edges(self, fired_F: Array, bootstrap: Bootstrap) -> Figures:
        """Figures that are shares of edges, or depend only on the weights."""
        figures: Figures = {}
        for number, (suffix, edges) in enumerate(self.edges.items()):
            known_E = fired_F[edges.child_E] >= LEAST_FIRINGS
            child_E, parent_E = edges.child_E[known_E], edges.parent_E[known_E]
            z_E = self._null.scores(number)[child_E]
            measured = int(np.isfinite(z_E).sum())
            if measured:
                figures[f"beyond_shift{suffix}"] = Share(int((z_E > BEYOND).sum()), measured)
            if len(child_E):
                hits_E = hierarchy_hits(self._near_FN, child_E, parent_E)
                figures[f"hierarchy_score{suffix}"] = Share(int(hits_E.sum()), len(hits_E))
            cosine_P = sibling_cosine(self.trees[suffix], self._decoder_FD)
            if len(cosine_P):
                figures[f"sibling_cosine{suffix}"] = bootstrap.mean_over_units(cosine_P)
        return figures

    def _detection(self, rows: int, bootstrap: Bootstrap) -> Figures:
        matched_F = self._matching.matched_F != NONE
        cosine_F = self._matching.cosine_F[matched_F]
        figures: Figures = {
            "mcc": bootstrap.mean_over_units(cosine_F),
            "uniqueness": Share(len(np.unique(self._matching.nearest_F)), len(matched_F)),
        }
        blocks = bootstrap.weights_RK.shape[1]
        whole = self._detectors.scores(np.ones((1, blocks)))
        resampled = self._detectors.scores(bootstrap.weights_RK)
        return figures | {name: Draws(float(whole[name][0]), resampled[name], rows, "1", blocks) for name in whole}

    def _recovered_edges(self, truth: Truth, bootstrap: Bootstrap) -> Figures:
        figures: Figures = {}
        parent_N = truth.parent_N.numpy()
        reachable_N = within_reach(truth.probability_N.numpy(), len(self._decoder_FD))
        for prefix, suffix in (("edge", OWN), ("ancestor", OWN), ("edge", CHOW_LIU), ("edge", SHUFFLED)):
            if suffix not in self.trees:
                continue
            tree_F, ancestors = self.trees[suffix], prefix == "ancestor"
            edges = edge_recovery(self._matching, tree_F, parent_N, reachable_N, ancestors=ancestors)
            if edges.recovered or edges.reachable:
                figures[f"{prefix}_f1{suffix}"] = bootstrap.over_units(edges.units, edge_f1)
            if suffix == OWN and edges.recovered and edges.reachable:
                figures[f"{prefix}_precision"] = Share(edges.correct, edges.recovered)
                figures[f"{prefix}_recall"] = Share(edges.found, edges.reachable)
        return figures


def tree_figures(edges: EdgeSums, sums: CodeSums, data: DataSums, bootstrap: Bootstrap) -> Figures:
    """Means over the edges of a tree, and over its families, whose children fire often enough in the sample.

    A family is a parent with its children; only families of two or more children have siblings. ``nested_firings``
    counts all latents.
    """
    known_E = sums.fired_KF[:, edges.child_E].sum(0) >= LEAST_FIRINGS
    if not known_E.any():
        return {}
    child_KE, parent_KE = sums.fired_KF[:, edges.child_E], sums.fired_KF[:, edges.parent_E]
    size_P = np.bincount(edges.place_E)
    in_families = child_KE[:, np.argsort(edges.place_E, kind="stable")]
    children_KP = np.add.reduceat(in_families, np.cumsum(size_P) - size_P, axis=1)
    known_P = (edges.any_KP.sum(0) >= LEAST_FIRINGS) & (sums.fired_KF[:, edges.parent_P].sum(0) > 0)
    several_P = (size_P > 1) & (edges.any_KP.sum(0) > 0)
    per_edge = (parent_KE[:, known_E], child_KE[:, known_E], edges.both_KE[:, known_E])
    per_family = (sums.fired_KF[:, edges.parent_P[known_P]], edges.any_KP[:, known_P], edges.covered_KP[:, known_P])
    nested_K = (edges.both_KE.sum(1, dtype=float), sums.fired_KF.sum(1, dtype=float))
    siblings_K = (children_KP[:, several_P].sum(1, dtype=float), edges.any_KP[:, several_P].sum(1, dtype=float))

    def statistics(w_nK: Array) -> Array:
        """(metrics, n)."""
        rows_n = w_nK @ data.rows_K
        means = [
            *_means(per_edge, w_nK, lambda part, *counts: _of_edges(counts, rows_n[part, None])),
            *_means(per_family, w_nK, lambda part, *counts: [or_distance(*counts)]),
        ]
        overlap_n = sibling_overlap(*(w_nK @ counts_K for counts_K in siblings_K))
        return np.stack([*means, overlap_n, ratio(*(w_nK @ counts_K for counts_K in nested_K))])

    whole, resampled = statistics(np.ones((1, len(data.rows_K))))[:, 0], statistics(bootstrap.weights_RK)
    rows = int(data.rows_K.sum())
    trials = {"or_distance": int(known_P.sum()), "sibling_overlap": int(several_P.sum()), "nested_firings": rows}
    return {
        name: Draws(
            float(whole[number]),
            resampled[number],
            trials.get(name, int(known_E.sum())),
            metric_of(name).unit,
            len(data.rows_K),
        )
        for number, name in enumerate(TREE_METRICS)
        if trials.get(name, 1)
    }


def _of_edges(counts: Sequence[Array], n_rows: Array) -> list[Array]:
    n_parent, n_child, n_both = counts
    values = edge_statistics(n_parent, n_child, n_both, n_rows)
    return [values[name] for name in OF_EDGE]


def _means(counts_KE: Sequence[Array], weights_nK: Array, statistics: Callable[..., Sequence[Array]]) -> Array:
    """Means over edges of some statistics of weighted counts, (statistics, n); undefined values are left out.

    ``statistics`` takes the part of the weightings, then counts (part, edges). A part has few edges and weightings, so
    its tables stay in the processor's cache.
    """
    sums: Any = 0.0
    defined: Any = 0.0
    weightings = range(0, max(len(weights_nK), 1), _WEIGHTINGS)
    for first in range(0, max(counts_KE[0].shape[1], 1), _EDGES):
        counted = [weights_nK @ counts[:, first : first + _EDGES].astype(float) for counts in counts_KE]
        parts = []
        for start in weightings:
            part = slice(start, start + _WEIGHTINGS)
            values_Sne = np.stack(statistics(part, *(counts_ne[part] for counts_ne in counted)))
            known_Sne = np.isfinite(values_Sne)
            parts.append((np.where(known_Sne, values_Sne, 0.0).sum(2), known_Sne.sum(2)))
        sums = sums + np.concatenate([part_sums for part_sums, _ in parts], 1)
        defined = defined + np.concatenate([part_defined for _, part_defined in parts], 1)
    return ratio(sums, defined)


def _coded(parent_F: Array, fitted: FiringRows) -> SupportCode:
    return SupportCode.fitted(parent_F, fitted.rows, fitted.fired_F, fitted.both(parent_F))
