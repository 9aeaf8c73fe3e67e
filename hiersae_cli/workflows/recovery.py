"""What ``hiersae eval`` says of trees as wholes: description length, hierarchy score, recovery of a known truth.

Legend of shapes: B rows of a batch, D width, F latents, N true features, K blocks of documents, n weightings of
the blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hiersae_cli.console import Console
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.metrics.description import PairCounts, SupportCode, chow_liu, most_informative_parents
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.hierarchy_score import ProbeSums, hierarchy_hits
from hiersae_cli.metrics.intervals import Bootstrap, Draws, Share
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, EdgeSums
from hiersae_cli.metrics.recovery import (
    DetectorSums,
    edge_recovery,
    match_features,
    mean_correlation,
    shuffled_parents,
    uniqueness,
    within_reach,
)
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.synth import Truth

Array = np.ndarray[Any, Any]
Figures = dict[str, Draws | Share]

# Trees of a run, by what is added to a metric's name: its own (learned, or the best parents of a flat run), the
# best that its firings allow, and the control.
_OWN, _CHOW_LIU, _SHUFFLED = "", "_chow_liu", "_shuffled"


class TreeSums:
    """What is summed over held-out rows for one run.

    Args:
        model: the run's.
        learned_F: its tree, the index of each latent's parent or ``NONE``; None for a flat run.
        pairs: counts over training rows, that post-hoc trees and codes are fitted on; None where there are no such
            rows, and then no such figures.
        truth: of synthetic activations.
        mean_D: of the activations, roughly.
        blocks: K.
        seed: of the shuffled control.
    """

    def __init__(
        self,
        model: SparseAutoencoder,
        learned_F: Array | None,
        pairs: PairCounts | None,
        truth: Truth | None,
        mean_D: torch.Tensor,
        blocks: int,
        seed: int,
    ):
        self._decoder_FD = model.W_dec_FD.detach()
        self._truth = truth
        self._trees: dict[str, Array] = {} if learned_F is None else {_OWN: learned_F}
        self._codes: dict[str, SupportCode] = {}
        self._both: dict[str, EdgeSums] = {}
        if pairs:
            self._fit(pairs, blocks)
        if _OWN in self._trees:
            self._trees[_SHUFFLED] = shuffled_parents(self._trees[_OWN], model.widths, seed)
        self._probes = ProbeSums(mean_D, model.latents)
        if truth:
            self._matching = match_features(self._decoder_FD, truth.features_ND)
            self._detectors = DetectorSums(blocks, self._matching.nearest_F)

    def _fit(self, pairs: PairCounts, blocks: int) -> None:
        """Post-hoc trees, and the codes of the flat dictionary and of trees."""
        latents = len(self._decoder_FD)
        self._flat = SupportCode.fitted(np.full(latents, NONE), pairs)
        self._trees[_CHOW_LIU] = chow_liu(pairs)
        for suffix, parent_F in self._trees.items():
            self._codes[suffix] = SupportCode.fitted(parent_F, pairs)
            # Roots are summed with latent 0, and not read.
            self._both[suffix] = EdgeSums(blocks, torch.arange(latents), torch.from_numpy(parent_F.clip(min=0)))
        # The parents of a flat run are more frequent latents, but it is coded through the best tree there is.
        if _OWN not in self._trees:
            self._trees[_OWN] = most_informative_parents(pairs)

    def add(
        self, x_BD: torch.Tensor, code_BF: torch.Tensor, block_B: torch.Tensor, truth_BN: torch.Tensor | None
    ) -> None:
        """Take in a batch, with the true features of its rows where there is a truth."""
        for sums in self._both.values():
            sums.add(code_BF, block_B)
        self._probes.add(x_BD, code_BF)
        if truth_BN is not None:
            self._detectors.add(code_BF, truth_BN, block_B)

    def figures(self, sums: CodeSums, data: DataSums, bootstrap: Bootstrap, least_firings: int) -> Figures:
        """All figures by their names in the report; edges whose child fires less than ``least_firings`` are no trials.

        That holds for the hierarchy score alone: the code is of all latents, and recovery is of weights.
        """
        found = self._description(sums, data, bootstrap) | self._hierarchy(sums.fired_KF.sum(0) >= least_firings)
        if self._truth:
            found |= self._detection(int(data.rows_K.sum()), bootstrap) | self._edges(self._truth)
        return found

    def _description(self, sums: CodeSums, data: DataSums, bootstrap: Bootstrap) -> Figures:
        def a_token(code: SupportCode, both_KF: Array) -> Draws:
            bits_K = code.bits(data.rows_K, sums.fired_KF, both_KF)
            rows = int(data.rows_K.sum())
            return bootstrap.draws(lambda w_nK: (w_nK @ bits_K) / (w_nK @ data.rows_K), rows, "bits")

        if not self._codes:
            return {}
        own = _OWN if _OWN in self._codes else _CHOW_LIU
        return {
            "bits_per_token": a_token(self._flat, np.zeros_like(sums.fired_KF)),
            "bits_per_token_tree": a_token(self._codes[own], self._both[own].both_KE),
            "bits_per_token_chow_liu": a_token(self._codes[_CHOW_LIU], self._both[_CHOW_LIU].both_KE),
        }

    def _hierarchy(self, known_F: Array) -> Figures:
        found: Figures = {}
        direction_FD = self._probes.directions()
        for suffix, parent_F in self._trees.items():
            child_E = np.flatnonzero((parent_F != NONE) & known_F)
            if len(child_E):
                parent_E = torch.from_numpy(parent_F[child_E])
                hits_E = hierarchy_hits(
                    direction_FD[child_E], self._decoder_FD.cpu(), torch.from_numpy(child_E), parent_E
                )
                found[f"hierarchy_score{suffix}"] = Share(int(hits_E.sum()), len(hits_E))
        return found

    def _detection(self, rows: int, bootstrap: Bootstrap) -> Figures:
        latents = len(self._decoder_FD)
        found: Figures = {
            "mcc": _plain(mean_correlation(self._matching), int((self._matching.matched_F != NONE).sum())),
            "uniqueness": _plain(uniqueness(self._matching), latents),
        }
        whole = self._detectors.scores(np.ones((1, bootstrap.weights_RK.shape[1])))
        resampled = self._detectors.scores(bootstrap.weights_RK)
        return found | {name: Draws(float(whole[name][0]), resampled[name], rows, "1") for name in whole}

    def _edges(self, truth: Truth) -> Figures:
        found: Figures = {}
        parent_N = truth.parent_N.numpy()
        reachable_N = within_reach(truth.probability_N.numpy(), len(self._decoder_FD))
        for prefix, suffix in (("edge", _OWN), ("ancestor", _OWN), ("edge", _CHOW_LIU), ("edge", _SHUFFLED)):
            if suffix not in self._trees:
                continue
            tree_F, ancestors = self._trees[suffix], prefix == "ancestor"
            edges = edge_recovery(self._matching, tree_F, parent_N, reachable_N, ancestors=ancestors)
            found[f"{prefix}_f1{suffix}"] = _plain(edges.f1, edges.recovered)
            if suffix == _OWN and edges.recovered and edges.reachable:
                found[f"{prefix}_precision"] = Share(edges.correct, edges.recovered)
                found[f"{prefix}_recall"] = Share(edges.found, edges.reachable)
        return found


@torch.inference_mode()
def count_pairs(
    model: SparseAutoencoder,
    name: str,
    acts: ActivationSet,
    rows: Array,
    batch: int,
    device: torch.device,
    console: Console,
) -> PairCounts:
    """Firings of pairs of latents over ``rows`` (ascending)."""
    pairs = PairCounts(model.latents)
    with console.progress(f"pairs of {name}", len(rows), "tokens") as progress:
        for start in range(0, len(rows), batch):
            x_BD = acts.rows_at(rows[start : start + batch]).to(device, torch.float32)
            pairs.add(model.encode(x_BD))
            progress.advance(len(x_BD))
    return pairs


def _plain(value: float, n: int) -> Draws:
    """A share that rests on weights alone, not on rows: there is nothing to resample, so no interval."""
    return Draws(value, np.empty(0), n, "1")
