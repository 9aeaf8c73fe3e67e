"""Probes: logistic regressions for concepts, on a few latents or on the activations themselves.

Legend of shapes: N rows, D width, F latents, C concepts, k latents of a probe.

Sources: Gurnee et al. (2023), Finding Neurons in a Haystack, arXiv 2305.01610 (k-sparse probing); Karvonen et al.
(2025), SAEBench, arXiv 2503.09532 (on latents of sparse autoencoders). Here the k latents are those whose activations
correlate most with the concept: unlike the difference of means, that does not depend on the latents' scales.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

Array = np.ndarray[Any, Any]

_STEPS = 500  # of the solver; a perfectly separable concept would take more without a better probe
_DENSE_STEPS = 200  # for all dense probes at once: later steps change F1 in the third decimal
DENSE_PENALTY = 1e-4  # of dense probes: this times half of the squared weights, in log-likelihood per row


@dataclass(frozen=True)
class Probe:
    """A fitted probe: weights for its score, and two least scores for the answer yes.

    Attributes:
        weight: of each feature.
        bias: added; the score is the log-odds of the concept.
        f1_score: the least score for yes that gives the best F1 on the rows of the fit.
        balanced_score: the least score for yes that balances the two kinds of error: the log-odds of the concept's
            share in these rows.
    """

    weight: Array
    bias: float
    f1_score: float
    balanced_score: float

    def score(self, features: Array) -> Array:
        """Log-odds (N,)."""
        score_N: Array = features @ self.weight + self.bias
        return score_N


class LatentSums:
    """Sums of each latent's activations over the rows of each concept, in one pass over the firings.

    Args:
        values_NF: the code.
        member_NC, known_NC: which rows belong to each concept, and for which rows that is known; others do not count.
    """

    def __init__(self, values_NF: csr_array, member_NC: Array, known_NC: Array):
        member_NC = member_NC & known_NC
        self.rows_C, self.positive_C = known_NC.sum(0, dtype=float), member_NC.sum(0, dtype=float)
        values_FN = values_NF.astype(np.float64).T.tocsr()
        # Concepts of one family are known in the same rows, so these are summed only once.
        distinct, place_C = np.unique(known_NC, axis=1, return_inverse=True)
        place_C = place_C.ravel()
        self.sum_FC = np.asarray(values_FN @ distinct.astype(float))[:, place_C]
        self.square_FC = np.asarray(values_FN.power(2) @ distinct.astype(float))[:, place_C]
        self.inside_FC = np.asarray(values_FN @ member_NC.astype(float))

    def correlations(self) -> Array:
        """Correlation (C, F) of each latent's activation with each concept; 0 if either is constant."""
        covariance = self.rows_C * self.inside_FC - self.sum_FC * self.positive_C
        latent_variance = self.rows_C * self.square_FC - self.sum_FC**2
        concept_variance = self.positive_C * (self.rows_C - self.positive_C)
        # The remaining variance of a constant latent is a rounding error.
        defined = (latent_variance > 1e-9 * self.rows_C * self.square_FC) & (concept_variance > 0)
        scale = np.sqrt(latent_variance.clip(0)) * np.sqrt(concept_variance)
        correlation_CF: Array = np.divide(covariance, scale, out=np.zeros_like(covariance), where=defined).T
        return correlation_CF

    def mean_differences(self) -> Array:
        """Mean activation (C, F) in the rows of each concept minus the mean in the other rows."""
        inside = self.inside_FC / np.maximum(self.positive_C, 1)
        outside = (self.sum_FC - self.inside_FC) / np.maximum(self.rows_C - self.positive_C, 1)
        difference_CF: Array = (inside - outside).T
        return difference_CF


def best_latents(correlation_CF: Array, most: int) -> Array:
    """The latents (C, most) that correlate most with each concept, with either sign, the best first."""
    return np.argsort(-np.abs(correlation_CF), axis=1, kind="stable")[:, :most]


def sparse_probe(values_NF: csc_array, latents: Array, member_N: Array, known_N: Array) -> Probe:
    """Logistic regression on a few latents, whose activations are scaled to deviation 1 for the fit.

    Rows in which none of them fires are all equal, so they count as one weighted row: the fit is exact, and its time
    depends only on the firings.
    """
    features, member_N = values_NF[:, latents].toarray()[known_N].astype(float), member_N[known_N]
    firing_N = features.any(1)
    silent = np.array([(~firing_N & member_N).sum(), (~firing_N & ~member_N).sum()], float)
    rows = np.concatenate([features[firing_N], np.zeros((2, len(latents)))])
    truth = np.concatenate([member_N[firing_N], [True, False]])
    return fit_probe(rows, truth, np.concatenate([np.ones(firing_N.sum()), silent]))


def fit_probe(features: Array, member_N: Array, weight_N: Array) -> Probe:
    """Logistic regression with scikit-learn's penalty; if all rows are equal, a probe with only a bias.

    Args:
        weight_N: how many rows each row represents.
    """
    total = weight_N.sum()
    mean = weight_N @ features / total
    deviation = np.sqrt(np.maximum(weight_N @ features**2 / total - mean**2, 0))
    # The remaining variance of a constant feature is a rounding error.
    scale = np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)
    bias = _log_odds(float(weight_N @ member_N), total)
    weight = np.zeros(features.shape[1])
    present = weight_N > 0
    if np.isfinite(scale).any() and member_N[present].any() and not member_N[present].all():
        solver = LogisticRegression(max_iter=_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.fit(((features - mean) / scale)[present], member_N[present], sample_weight=weight_N[present])
        weight = solver.coef_[0] / scale
        bias = float(solver.intercept_[0] - mean @ weight)
    return _with_least_scores(features @ weight + bias, weight, bias, member_N, weight_N)


def dense_probes(
    x_ND: Array, member_NC: Array, known_NC: Array, device: torch.device, penalty: float = DENSE_PENALTY
) -> list[Probe]:
    """Logistic regression of each concept on the activations, which are scaled to deviation 1 for the fit.

    All probes are fitted at once: the product of the activations with all weights takes as long as with a few.

    Args:
        penalty: this times half of the squared weights, in log-likelihood per row.
    """
    x = torch.from_numpy(x_ND).to(device)
    mean_D, deviation_D = x.mean(0), x.std(0, correction=0)
    scale_D = torch.where(deviation_D > 1e-6 * mean_D.abs(), deviation_D, torch.inf)
    x = (x - mean_D) / scale_D
    truth, known = (torch.from_numpy(part.astype(np.float32)).to(device) for part in (member_NC & known_NC, known_NC))
    rows_C = known.sum(0).clamp_min(1)
    share_C = (truth.sum(0) / rows_C).clamp(1e-6, 1 - 1e-6)
    weights = torch.cat([torch.zeros(x.shape[1], truth.shape[1], device=device), torch.logit(share_C)[None]])
    weights.requires_grad_(True)
    solver = torch.optim.LBFGS(
        [weights], max_iter=_DENSE_STEPS, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    @torch.no_grad()
    def loss() -> float:
        score = x @ weights[:-1] + weights[-1]
        error = known * (score.sigmoid() - truth) / rows_C
        weights.grad = torch.cat([x.T @ error + penalty * weights[:-1], error.sum(0, keepdim=True)])
        likelihood = known * (torch.nn.functional.softplus(score) - truth * score) / rows_C
        return float(likelihood.sum() + penalty / 2 * weights[:-1].square().sum())

    solver.step(loss)
    weight_DC = (weights.detach()[:-1] / scale_D[:, None]).cpu().double().numpy()
    bias_C = weights.detach()[-1].cpu().double().numpy() - mean_D.cpu().double().numpy() @ weight_DC
    score_NC = x_ND @ weight_DC.astype(np.float32) + bias_C
    return [
        _with_least_scores(
            score_NC[known_N, concept],
            weight_DC[:, concept],
            float(bias_C[concept]),
            member_NC[known_N, concept],
            np.ones(known_N.sum()),
        )
        for concept, known_N in enumerate(known_NC.T)
    ]


def _with_least_scores(score_N: Array, weight: Array, bias: float, member_N: Array, weight_N: Array) -> Probe:
    """A probe with its least scores for yes, from its scores on the rows of the fit."""
    balanced = _log_odds(float(weight_N @ member_N), weight_N.sum())
    return Probe(weight, bias, best_f1_score(score_N, member_N, weight_N), balanced)


def _log_odds(positive: float, total: float) -> float:
    share = np.clip(positive / total, 0.5 / (total + 1), 1 - 0.5 / (total + 1))
    return float(np.log(share / (1 - share)))


def best_f1_score(score_N: Array, member_N: Array, weight_N: Array) -> float:
    """The least score for yes that gives the best F1, in the middle of the gap below it; -inf if always yes is best."""
    order = np.argsort(-score_N, kind="stable")
    score, weight = score_N[order], weight_N[order]
    yes, hit = np.cumsum(weight), np.cumsum(weight * member_N[order])
    f1 = 2 * hit / np.maximum(yes + hit[-1], 1e-12)
    ends = np.append(score[1:] < score[:-1], True)
    best = int(np.flatnonzero(ends)[np.argmax(f1[ends])])
    return float(score[best] + score[best + 1]) / 2 if best + 1 < len(score) else -np.inf


def f1_of(yes_N: Array, member_N: Array) -> float:
    """F1 of yes and no answers; 0 if no row is a member and none has a yes."""
    return float(2 * (yes_N & member_N).sum() / max(yes_N.sum() + member_N.sum(), 1))
