"""Flat architectures: the gradients of JumpReLU's thresholds, and Matryoshka's loss."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from hiersae_cli.config.architectures import DictionaryOptions, JumpReLUOptions
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.sae import JumpReLU, Matryoshka, build
from hiersae_cli.sae.base import StepContext
from hiersae_cli.sae.kernels.sparse import dense
from hiersae_cli.sae.training import Trainer
from tests.helpers import hiersae

ROWS = 200_000


def one_latent(threshold: float, bandwidth: float, l0_weight: float, k: float = 0.5) -> JumpReLU:
    """A dictionary of one latent that copies its only input, in float64."""
    model = JumpReLU(1, JumpReLUOptions(widths=(1,), k=(k,), l0_weight=l0_weight, bandwidth=bandwidth)).double().train()
    with torch.no_grad():
        model.W_enc_FD.fill_(1.0)
        model.W_dec_FD.fill_(1.0)
        model.log_threshold_F.fill_(math.log(threshold) / 10)
    model.after_step(StepContext())
    return model


def threshold_gradient(model: JumpReLU, x_BD: torch.Tensor) -> float:
    """The gradient of the loss in the threshold itself, not in its scaled logarithm."""
    (gradient_F,) = torch.autograd.grad(model.step(x_BD, StepContext(0, 0.5)).loss, [model.log_threshold_F])
    return float(gradient_F) / 10 / float(model.threshold_F)


@pytest.mark.parametrize("threshold", [0.4, 1.0])
def test_straight_through_gradients_are_those_of_the_expected_loss(threshold: float) -> None:
    """For normal inputs the expected loss is smooth in the threshold t, with the normal density p: the expected
    error E[z^2; z <= t] has the slope t^2 p(t), L0 = P(z > t) has the slope -p(t)."""
    x_BD = torch.randn(ROWS, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    density = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
    of_error = threshold_gradient(one_latent(threshold, 0.1, l0_weight=0.0), x_BD)
    assert of_error == pytest.approx(threshold**2 * density, rel=0.05)
    l0 = 0.5 - math.erf(threshold / math.sqrt(2)) / 2
    of_penalty = threshold_gradient(one_latent(threshold, 0.1, l0_weight=3.0), x_BD) - of_error
    assert of_penalty == pytest.approx(3 * 2 * (l0 / 0.5 - 1) / 0.5 * -density, rel=0.05)


def test_only_firings_within_half_a_bandwidth_move_a_threshold() -> None:
    model = one_latent(1.0, bandwidth=0.2, l0_weight=1.0)
    for value, moves in ((0.89, False), (0.91, True), (1.09, True), (1.11, False), (-1.0, False)):
        assert bool(threshold_gradient(model, torch.tensor([[value]], dtype=torch.float64))) == moves


def test_the_penalty_lowers_thresholds_below_the_target_l0_and_raises_them_above_it() -> None:
    x_BD = torch.randn(4096, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for k, sign in ((0.9, 1), (0.05, -1)):
        with_penalty = threshold_gradient(one_latent(0.5, 0.2, l0_weight=50.0, k=k), x_BD)
        assert math.copysign(1, with_penalty) == sign


def test_thresholds_start_where_the_first_batch_has_the_target_l0() -> None:
    model = build(TrainConfig(acts=[], arch="jumprelu", widths=(64,), k=(6,)), 16)
    model.initialise(torch.zeros(16), 0)
    x_BD = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    assert len(model.train().step(x_BD, StepContext()).codes[0].fired) == pytest.approx(6 * 500, abs=2)


def test_a_matryoshka_loss_is_the_sum_of_its_prefixes_losses() -> None:
    groups = (3, 5, 8)
    model = Matryoshka(7, DictionaryOptions(widths=groups, k=(4,))).double()
    model.initialise(torch.ones(7), 0)
    x_BD = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    step = model.step(x_BD, StepContext())
    assert len(step.codes[0].fired) == 4 * 50  # of the whole dictionary, not of each prefix
    losses = []
    for end in (3, 8, 16):
        prefix_BF = dense(step.codes).clone()
        prefix_BF[:, end:] = 0
        losses.append((x_BD - model.decode(prefix_BF)).square().mean())
    assert step.loss.item() == pytest.approx(sum(losses).item(), rel=1e-9)
    assert step.error.item() == pytest.approx(losses[-1].item() * x_BD.numel(), rel=1e-9)
    assert model.widths == (16,)


def test_the_first_group_alone_explains_more_than_the_first_latents_of_batchtopk() -> None:
    generator = torch.Generator().manual_seed(4)
    directions = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    fired = torch.rand(60 * 256, 16, generator=generator) < torch.tensor([0.5] * 4 + [0.05] * 12)
    x_BD = (fired * (1 + torch.rand(len(fired), 16, generator=generator))) @ directions

    def explained_by_first(arch: str, widths: tuple[int, ...]) -> float:
        config = TrainConfig(acts=[], arch=arch, widths=widths, k=(2.6,), tokens=len(x_BD), batch=256, lr=0.01)
        model = build(config, 16)
        model.initialise(x_BD.mean(0), 0)
        trainer = Trainer(model.train(), config, 1.0)
        for batch in x_BD.split(256):
            trainer.step(batch)
        with torch.no_grad():
            code_BF = model.eval().encode(x_BD)
            code_BF[:, 4:] = 0
            return 1 - float((x_BD - model.decode(code_BF)).square().sum() / (x_BD - x_BD.mean(0)).square().sum())

    assert explained_by_first("matryoshka", (4, 28)) > 1.5 * explained_by_first("batchtopk", (32,))


@pytest.mark.parametrize(
    ("arch", "widths", "more"),
    [("jumprelu", "128", set()), ("matryoshka", "16,48,64", {"l0_level_0", "l0_level_1", "l0_level_2"})],
)
def test_baselines_through_the_chain(
    arch: str, widths: str, more: set[str], tiny_acts: Path, tiny_hier: Path, tmp_path: Path
) -> None:
    """They have their target L0 on held-out rows, and a post-hoc tree but none of their own."""
    run = tmp_path / arch
    done = hiersae(
        "train", tiny_acts, "-o", run, "--arch", arch, "--widths", widths, "--k", "8", "--tokens", "100k",
        "--batch", "256",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = hiersae("eval", tiny_hier, "--baseline", run, "--acts", tiny_acts, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    figures = report["runs"][arch]
    assert figures["l0"]["value"] == pytest.approx(8, rel=0.05)
    assert {name for name in figures if name.startswith("l0_level")} == more
    assert sum(figures[name]["value"] for name in more) == pytest.approx(figures["l0"]["value"] if more else 0)
    assert figures["fvu"]["value"] < 0.3
    assert report["subjects"][arch]["tree"] == "post-hoc"
    assert not any("L0" in text or "latents" in text for text in report["mismatches"][arch])
    tree = json.loads(hiersae("export-tree", run, "--acts", tiny_acts, "-o", tmp_path / "t.json", "--json").stdout)
    assert tree["roots"] == 128 and tree["edges"] == 0
    assert json.loads((tmp_path / "t.json").read_text())["run"]["widths"] == [128]
