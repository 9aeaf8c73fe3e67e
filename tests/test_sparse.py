"""The sparse products of training have the values and gradients of the dense ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.sae.kernels import sparse
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode, dense


def drawn(rows: int, latents: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A mask, in which rows and columns may be empty, and two factors, in float64."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, latents, generator=generator) < torch.rand((), generator=generator) ** 2
    a, w = (torch.randn(size, width, generator=generator, dtype=torch.float64) for size in (rows, latents))
    return mask, a.requires_grad_(), w.requires_grad_()


def gradients(loss: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, inputs))


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 20), st.integers(1, 8), st.integers(0, 10**6), st.booleans())
def test_products_are_the_dense_ones(rows: int, latents: int, width: int, seed: int, gathered: bool) -> None:
    mask, a, w = drawn(rows, latents, width, seed)
    pattern = Pattern.of(mask)
    with pytest.MonkeyPatch.context() as patch:
        if gathered:  # as on devices without a sampled product, in blocks of a few rows
            patch.setattr(torch.backends.mkl, "is_available", lambda: False)
            patch.setattr(sparse, "_BLOCK", 20)
        code = SparseCode(pattern, torch.relu(pattern.dots(a, w)))
        out = code.decode(w)
        sparse_gradients = gradients(out.pow(3).sum(), a, w)
    code_BF = torch.relu(a @ w.T) * mask
    assert torch.allclose(dense([code]), code_BF)
    assert torch.allclose(out, code_BF @ w)
    for ours, theirs in zip(sparse_gradients, gradients((code_BF @ w).pow(3).sum(), a, w), strict=True):
        assert torch.allclose(ours, theirs)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(2, 20), st.integers(0, 10**6))
def test_parts_of_a_code(rows: int, latents: int, seed: int) -> None:
    mask, *_ = drawn(rows, latents, 1, seed)
    other, *_ = drawn(rows, latents, 1, seed + 1)
    pattern, half = Pattern.of(mask), latents // 2
    code = SparseCode(pattern, torch.arange(1.0, len(pattern) + 1))
    code_BF = dense([code])
    assert torch.equal(code_BF > 0, mask)
    assert torch.equal(pattern.counts(), mask.sum(0))
    assert torch.equal(dense([code.among(slice(0, half))])[:, :half], code_BF[:, :half])
    assert not dense([code.among(slice(0, half))])[:, half:].any()
    assert torch.equal(dense([code.among(slice(0, half)), code.among(slice(half, latents))]), code_BF)
    assert torch.equal(code.at(Pattern.of(other)), code_BF[other])
    columns = Pattern.of(mask[:, half:], half, latents)
    assert torch.equal(columns.latent_n, pattern.where(pattern.latent_n >= half).latent_n)


def test_a_zero_activation_is_no_firing() -> None:
    code = SparseCode(Pattern.of(torch.ones(1, 3, dtype=torch.bool)), torch.tensor([1.0, 0.0, 2.0]))
    assert code.fired.latent_n.tolist() == [0, 2]
