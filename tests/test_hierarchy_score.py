"""Hierarchy score: the probe against a direct fit, and the score of trees that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from hiersae_cli.metrics import hierarchy_score
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.metrics.hierarchy_score import ProbeSums, hierarchy_hits, nearest_latents
from hiersae_cli.metrics.reconstruction import Moments

PARENTS, CHILDREN = 16, 3  # children of each, of which at most one fires
PARENT = torch.cat([torch.full((PARENTS,), -1), torch.arange(PARENTS).repeat_interleave(CHILDREN)])
CHILD_E = torch.arange(PARENTS, len(PARENT))


def activations(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (rows, 32), the true code (rows, 64) and the dictionary (64, 32) of a superposed tree."""
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(len(PARENT), 32, generator=generator), dim=1)
    on = torch.rand(rows, PARENTS, generator=generator) < 0.08
    which = torch.randint(0, CHILDREN + 1, (rows, PARENTS), generator=generator)
    children = (on[..., None] & (which[..., None] == torch.arange(CHILDREN))).flatten(1)
    code = torch.cat([on, children], 1).float()
    x = code @ decoder + 5 + 0.05 * torch.randn(rows, 32, generator=generator)
    return x, code, decoder


def summed(x: torch.Tensor, code: torch.Tensor, parts: int = 3) -> ProbeSums:
    moments = Moments(x[0])
    sums = ProbeSums(moments, code.shape[1])
    for x_B, code_B in zip(x.chunk(parts), code.chunk(parts), strict=True):
        moments.add(x_B)
        sums.add(x_B, Firings.of(code_B))
    return sums


def share_of_hits(sums: ProbeSums, decoder: torch.Tensor, parent_E: torch.Tensor) -> float:
    hits_E = hierarchy_hits(nearest_latents(sums.directions(), decoder), CHILD_E.numpy(), parent_E.numpy())
    return float(hits_E.mean())


def test_probes_are_those_of_ridge_regression() -> None:
    x, code, _ = activations(2000)
    fitted = Ridge(alpha=2000 * 0.3 * x.double().var(0, correction=0).median().item()).fit(x.double(), code > 0)
    found = summed(x, code).directions(ridge=0.3)
    np.testing.assert_allclose(found, fitted.coef_, atol=1e-5)


def test_the_true_tree_scores_one_and_a_wrong_one_nothing() -> None:
    x, code, decoder = activations(5000)
    assert share_of_hits(summed(x, code), decoder, PARENT[CHILD_E]) > 0.95
    assert share_of_hits(summed(x, code), decoder, (PARENT[CHILD_E] + 1) % PARENTS) < 0.2


def test_a_parent_that_covers_everything_is_no_hit() -> None:
    x, code, decoder = activations(5000)
    constant = torch.nn.functional.normalize(x.mean(0, keepdim=True), dim=1)
    decoder = torch.cat([decoder, constant])
    code = torch.cat([code, torch.ones(len(code), 1)], 1)
    covering = torch.full((len(CHILD_E),), len(PARENT))
    assert share_of_hits(summed(x, code), decoder, covering) < 0.1


def test_the_nearest_latents_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy_score, "_CELLS", 500)  # a few directions at a time
    x, code, decoder = activations(2000)
    directions, lengths = summed(x, code).directions(), torch.rand(len(decoder), 1) + 0.5
    cosine = torch.nn.functional.normalize(directions, dim=1) @ decoder.double().T
    expected = cosine.argsort(dim=1, descending=True)[:, :5].sort(1).values
    # Neither scale changes what is near: of a probe that hardly has a length, of a row that is no unit vector.
    found = nearest_latents(directions * 1e-60, decoder * lengths)
    assert (np.sort(found, 1) == expected.numpy()).all()


def test_a_single_row_is_no_error() -> None:
    x, code, _ = activations(1)
    assert summed(x, code, parts=1).directions().isfinite().all()
