"""Untrained dictionaries: their directions against scikit-learn's, their codes by hand, and their L0."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA as Reference

from hiersae_cli.sae.controls import NEURONS, PCA, RANDOM, controls
from hiersae_cli.sae.flat import TopK


def activations(rows: int = 500, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 3.0, 1.0, 0.5, 2.0, 0.2])
    return torch.randn(rows, width, generator=generator) * scale + torch.arange(width)


def of(x: torch.Tensor, latents: int = 40, k: float = 3.2, seed: int = 0) -> dict[str, TopK]:
    return controls(x.mean(0), torch.cov(x.T), latents, k, seed)


def test_every_control_is_a_dictionary_of_unit_rows_with_the_wanted_l0() -> None:
    x = activations()
    made = of(x)
    assert {name: model.latents for name, model in made.items()} == {RANDOM: 40, NEURONS: 12, PCA: 12}
    for model in made.values():
        code = model.encode(x)
        assert code.shape == (len(x), model.latents)
        assert ((code > 0).sum(1) == 3).all() and (code >= 0).all()
        torch.testing.assert_close(model.W_dec_FD.norm(dim=1), torch.ones(model.latents))
        assert torch.equal(model.W_enc_FD, model.W_dec_FD)


def test_neurons_are_coordinates_with_their_sign() -> None:
    x = activations()
    model = of(x)[NEURONS]
    code = model.encode(x[:1])[0]
    centred = x[0] - x.mean(0)
    strongest = centred.abs().topk(3)
    assert sorted(code[code > 0].tolist()) == pytest.approx(sorted(strongest.values.tolist()))
    kept = torch.zeros(6)
    kept[strongest.indices] = centred[strongest.indices]
    torch.testing.assert_close(model.decode(code[None])[0], kept + x.mean(0))


def test_principal_directions_are_those_of_scikit_learn() -> None:
    x = activations()
    model = of(x, k=6)[PCA]
    expected = torch.from_numpy(Reference().fit(x.double().numpy()).components_).float()
    assert ((model.W_dec_FD[::2] * expected).sum(1).abs() > 0.9999).all()
    torch.testing.assert_close(model.W_dec_FD[1::2], -model.W_dec_FD[::2])
    torch.testing.assert_close(model(x), x, rtol=1e-4, atol=1e-4)  # with all directions nothing is lost


def test_random_rows_depend_on_the_seed_alone() -> None:
    x = activations()
    same, other = of(x, seed=0)[RANDOM], of(x, seed=1)[RANDOM]
    assert torch.equal(of(x)[RANDOM].W_dec_FD, same.W_dec_FD) and not torch.equal(same.W_dec_FD, other.W_dec_FD)


def test_a_k_beyond_the_dictionary_is_all_of_it() -> None:
    x = activations()
    model = of(x, latents=4, k=100)[RANDOM]
    assert model.k == (4,) and torch.equal(model.encode(x) > 0, (x - x.mean(0)) @ model.W_dec_FD.T > 0)
