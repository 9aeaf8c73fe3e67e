"""Hierarchy score: the probe against a direct fit, and the score of trees that are known."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Ridge

from hiersae_cli.metrics.hierarchy_score import ProbeSums, hierarchy_hits

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
    sums = ProbeSums(x[0], code.shape[1])
    for x_B, code_B in zip(x.chunk(parts), code.chunk(parts), strict=True):
        sums.add(x_B, code_B)
    return sums


def test_probes_are_those_of_ridge_regression() -> None:
    x, code, _ = activations(2000)
    fitted = Ridge(alpha=2000 * 0.3 * x.double().var(0, correction=0).median().item()).fit(x.double(), code > 0)
    found = summed(x, code).directions(ridge=0.3)
    np.testing.assert_allclose(found, fitted.coef_, atol=1e-5)


def test_the_true_tree_scores_one_and_a_wrong_one_nothing() -> None:
    x, code, decoder = activations(5000)
    directions = summed(x, code).directions()[CHILD_E]
    assert hierarchy_hits(directions, decoder, CHILD_E, PARENT[CHILD_E]).mean() > 0.95
    assert hierarchy_hits(directions, decoder, CHILD_E, (PARENT[CHILD_E] + 1) % PARENTS).mean() < 0.2


def test_a_parent_that_covers_everything_is_no_hit() -> None:
    x, code, decoder = activations(5000)
    constant = torch.nn.functional.normalize(x.mean(0, keepdim=True), dim=1)
    decoder = torch.cat([decoder, constant])
    code = torch.cat([code, torch.ones(len(code), 1)], 1)
    covering = torch.full((len(CHILD_E),), len(PARENT))
    assert hierarchy_hits(summed(x, code).directions()[CHILD_E], decoder, CHILD_E, covering).mean() < 0.1


def test_a_single_row_is_no_error() -> None:
    x, code, _ = activations(1)
    assert summed(x, code, parts=1).directions().isfinite().all()
