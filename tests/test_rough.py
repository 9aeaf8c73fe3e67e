"""Candidates from products in bfloat16: codes are those of products in float32, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hiersae_cli.config.train import TrainConfig
from hiersae_cli.sae import SparseAutoencoder, build
from hiersae_cli.sae.kernels import rough
from hiersae_cli.sae.kernels.sparse import dense

WIDTH = 512
MODELS: dict[str, dict[str, Any]] = {
    "batchtopk": {"arch": "batchtopk", "widths": (2048,), "k": (24,)},
    "matryoshka": {"arch": "matryoshka", "widths": (512, 1536), "k": (24,)},
    "two passes": {"arch": "batchtopk", "widths": (2048,), "k": (24,), "refine": True},
    "hier": {"arch": "hier", "widths": (2048, 2048), "k": (12, 12)},
    "topk": {"arch": "topk", "widths": (2048,), "k": (24,)},
}


def a_model(name: str, x_BD: torch.Tensor) -> SparseAutoencoder:
    """A model with random weights and the thresholds that give its L0."""
    model = build(TrainConfig(acts=[], **MODELS[name]), WIDTH)
    model.initialise(x_BD.mean(0), 0)
    with torch.no_grad():
        model.b_enc_F.normal_(std=0.2, generator=torch.Generator().manual_seed(2))
    model.train().calibrate([x_BD])
    return model.eval()


@pytest.fixture(scope="module")
def x_BD() -> torch.Tensor:
    return torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1)) + 3


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each reading was rough; every processor computes in bfloat16, some slowly."""
    read, calls = rough.RoughEncoder.read, list[bool]()

    def watched(self: rough.RoughEncoder, *inputs: Any) -> Any:
        reading = read(self, *inputs)
        calls.append(reading is not None)
        return reading

    monkeypatch.setattr(rough, "has_bfloat16_products", lambda: True)
    monkeypatch.setattr(rough.RoughEncoder, "read", watched)
    return calls


@pytest.mark.parametrize("name", MODELS)
def test_codes_are_those_of_float32(
    name: str, x_BD: torch.Tensor, used: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = a_model(name, x_BD)
    with torch.inference_mode():
        code = dense(model.codes(x_BD))
        assert used == {"topk": [], "hier": [True, True]}.get(name, [True])
        monkeypatch.setattr(rough, "has_bfloat16_products", lambda: False)
        assert torch.equal(code, dense(model.codes(x_BD)))
    assert float((code > 0).sum(1).float().mean()) == pytest.approx(24, rel=0.2)


def test_new_weights_are_noticed(x_BD: torch.Tensor, used: list[bool]) -> None:
    model = a_model("batchtopk", x_BD)
    with torch.no_grad():
        before = model.encode(x_BD)
        model.W_enc_FD.mul_(-1)
        assert not torch.equal(before, model.encode(x_BD))
        model.W_enc_FD.mul_(-1)
        assert torch.equal(before, model.encode(x_BD)) and used == [True] * 3


def test_float32_is_used_where_bfloat16_does_not_help(x_BD: torch.Tensor, used: list[bool]) -> None:
    model = a_model("batchtopk", x_BD)
    with torch.no_grad():
        model.encode(x_BD[:4])  # few rows
        outlier_BD = x_BD.clone()
        outlier_BD[7] *= 100
        model.encode(outlier_BD)  # the bound on the error would be wide
        model.train().codes(x_BD)  # training
    assert used == [False, False]
