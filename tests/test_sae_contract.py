"""What every architecture must do, whatever it computes inside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hiersae_cli.config.train import ARCHITECTURES, TrainConfig
from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae import HierarchicalSAE, build
from hiersae_cli.sae.base import StepContext
from hiersae_cli.sae.training import Trainer

WIDTH, BATCH = 24, 64


# Three levels, two passes, and a gate that closes during training.
CLOSING: dict[str, object] = {
    "arch": "hier",
    "widths": (4, 12, 32),
    "k": (1, 2, 2),
    "refine": True,
    "harden": True,
    "tree_weight": 0.5,
    "curriculum": "anneal=0.3,closed=0.4",
    "tree_every": 5,
}
# Every architecture, with every option that changes what it computes.
VARIANTS: dict[str, dict[str, object]] = {
    **{arch: {"arch": arch} for arch in ARCHITECTURES},
    **{f"{arch}-refined": {"arch": arch, "refine": True} for arch in ARCHITECTURES if arch != "jumprelu"},
    "hier-three-levels": {
        "arch": "hier",
        "widths": (4, 12, 32),
        "k": (1, 2, 2),
        "refine": True,
        "coherence_weight": 0.1,
        "relevel": True,
        "k_start": 2.0,
        "tree_every": 3,
    },
    "hier-rarely-open": {"arch": "hier", "curriculum": "anneal=0.2", "tree_every": 5, "open_every": 3},
    "hier-closed-refined": CLOSING,
    "hier-fixed-tree": {"arch": "hier", "harden": True, "curriculum": "closed=1"},
    "hier-row-adam": {**CLOSING, "optimizer": "row-adam"},
    "batchtopk-row-adam": {"arch": "batchtopk", "optimizer": "row-adam", "moments": "bfloat16"},
    "hier-hardened": {"arch": "hier", "harden": True, "curriculum": "anneal=0.5,closed=0.2", "tree_every": 5},
}


SIZES: dict[str, dict[str, object]] = {
    "hier": {"widths": (8, 40), "k": (2, 3)},
    "matryoshka": {"widths": (8, 40), "k": (5,)},
}
# In training these only approach the target L0; the others select exactly as many latents.
APPROXIMATE = {"jumprelu"}


def make_config(variant: str, **changes: object) -> TrainConfig:
    options = VARIANTS[variant]
    sizes = SIZES.get(str(options["arch"]), {"widths": (48,), "k": (5,)})
    changes = {**sizes, **options, **changes}
    return TrainConfig(**{"acts": [], "tokens": 50 * BATCH, "batch": BATCH, "lr": 6.5e-3, **changes})


def make_data(rows: int, seed: int = 0) -> torch.Tensor:
    """Sparse combinations of 12 directions, with an offset, which a dictionary can learn."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(99))
    weights = torch.rand(rows, 12, generator=generator) * (torch.rand(rows, 12, generator=generator) < 0.2)
    return weights @ directions + 0.01 * torch.randn(rows, WIDTH, generator=generator) + 0.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_gives_its_tree_as_a_copy(variant: str) -> None:
    model = build(make_config(variant), WIDTH)
    if model.learned_F is None:
        assert str(VARIANTS[variant]["arch"]) != "hier" and (model.tree_F == NO_PARENT).all()
        return
    assert isinstance(model, HierarchicalSAE)
    model.parent_F[-1] = 0
    tree_F = model.tree_F
    assert tree_F.tolist() == model.learned_F.tolist() == model.parent_F.tolist()
    tree_F[-1] = NO_PARENT
    assert model.parent_F[-1] == 0


def train(
    arch: str, steps: int = 50, scale: float = 1.0, relative_D: torch.Tensor | None = None, **changes: object
) -> Trainer:
    config = make_config(arch, **changes)
    data = make_data(50 * BATCH)
    model = build(config, WIDTH)
    model.initialise(data.mean(0) * scale * (1 if relative_D is None else relative_D), config.seed)
    trainer = Trainer(model.train(), config, scale, relative_D)
    for number in range(steps):
        trainer.step(data[number * BATCH : (number + 1) * BATCH])
    return trainer


@pytest.fixture(params=VARIANTS)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_forward_is_decode_of_encode_with_a_nonnegative_code(arch: str) -> None:
    model = train(arch).model.eval()
    x = make_data(200, seed=1)
    code = model.encode(x)
    assert code.shape == (200, model.latents)
    assert (code >= 0).all()
    assert torch.equal(model(x), model.decode(code))
    assert torch.allclose(model.decode(torch.zeros_like(code)), model.b_dec_D.expand_as(x))


def test_the_code_is_the_same_with_and_without_gradients(arch: str) -> None:
    model = train(arch, steps=10).model.eval()
    x = make_data(200, seed=1)
    with torch.no_grad():
        code = model.encode(x)
    assert code.any() and torch.equal(model.encode(x), code)


def test_the_code_of_a_row_does_not_depend_on_its_batch(arch: str) -> None:
    model = train(arch).model.eval()
    x = make_data(32, seed=1)
    row_by_row = torch.cat([model.encode(row[None]) for row in x])
    assert torch.allclose(model.encode(x), row_by_row, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_batch_has_the_target_l0(arch: str, dtype: str) -> None:
    trainer = train(arch, dtype=dtype)
    step = trainer.step(make_data(BATCH, seed=2))
    l0 = (step["active"] / BATCH).tolist()
    assert l0 == pytest.approx(trainer.config.k, rel=0.2 if arch in APPROXIMATE else 1e-6)


def test_calibrated_model_has_the_target_l0_on_new_rows(arch: str) -> None:
    trainer = train(arch)
    trainer.finish(make_data(20 * BATCH, seed=3).split(BATCH))
    code = trainer.model.eval().encode(make_data(4000, seed=4))
    for part, k in zip(trainer.model.level_slices(), trainer.config.k, strict=True):
        assert (code[:, part] > 0).sum(1).float().mean().item() == pytest.approx(k, rel=0.1)


def test_training_reconstructs_better_than_the_mean(arch: str) -> None:
    trainer = train(arch)
    x = make_data(2000, seed=5)
    error = (x - trainer.model.eval()(x)).square().sum()
    assert error / (x - x.mean(0)).square().sum() < 0.5


def test_decoder_rows_are_unit_vectors_after_every_step(arch: str) -> None:
    model = train(arch, steps=3).model
    assert torch.allclose(model.W_dec_FD.norm(dim=1), torch.ones(model.latents), atol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_a_scale_folds_into_the_saved_weights_exactly(arch: str, scale: float) -> None:
    trainer = train(arch, scale=scale)
    folded = build(trainer.config, WIDTH)
    folded.load_weights(trainer.folded())
    x = make_data(300, seed=6)
    inside = trainer.model.eval()
    assert torch.allclose(folded.eval().encode(x), inside.encode(x * scale) / scale, rtol=1e-5, atol=1e-6)
    assert torch.allclose(folded(x), inside(x * scale) / scale, rtol=1e-5, atol=1e-6)


def test_a_factor_for_each_coordinate_folds_into_the_saved_weights(arch: str) -> None:
    factor_D = torch.linspace(0.3, 3.0, WIDTH)
    trainer = train(arch, scale=2.0, relative_D=factor_D)
    folded = build(trainer.config, WIDTH)
    folded.load_weights(trainer.folded())
    inside = trainer.model.eval()
    x = make_data(256, seed=1)
    scaled = x * 2.0 * factor_D
    same = torch.isclose(folded.eval().encode(x), inside.encode(scaled) / 2.0, rtol=1e-4, atol=1e-5)
    assert same.float().mean() > 0.9999  # rounding may move a latent over its threshold
    rows = same.all(1)
    assert torch.allclose(folded(x)[rows], (inside(scaled) / 2.0 / factor_D)[rows], rtol=1e-4, atol=1e-5)


def test_gradients_agree_with_finite_differences(arch: str) -> None:
    """In float64, with the selection held fixed: it is piecewise constant, so small steps do not change it."""
    trainer = train(arch, steps=10)
    model = build(trainer.config, WIDTH).train()  # a copy, because the first one's optimizer may collect gradients
    model.load_state_dict(trainer.model.state_dict())
    model = model.double()
    model._threshold_rate = 0.0
    x = make_data(8, seed=7).double()
    loss = model.step(x, StepContext(0, 0.9)).loss
    # The gradients of thresholds are not those of the loss, which does not change with them: see test_flat.py.
    parameters = {name: value for name, value in model.named_parameters() if name != "log_threshold_F"}
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    step = 1e-6
    for name, parameter in parameters.items():
        place = tuple(int(i) for i in torch.unravel_index(gradients[name].abs().argmax(), parameter.shape))
        with torch.no_grad():
            parameter[place] += step
            above = model.step(x, StepContext(0, 0.9)).loss
            parameter[place] -= 2 * step
            below = model.step(x, StepContext(0, 0.9)).loss
            parameter[place] += step
        assert gradients[name][place].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-4)


def test_state_restores_the_next_step_to_the_bit(arch: str) -> None:
    first = train(arch, steps=20)
    second = Trainer(build(first.config, WIDTH).train(), first.config, first.scale)
    second.restore({name: value.clone() for name, value in first.state().items()})
    for batch in make_data(10 * BATCH, seed=8).split(BATCH):
        first.step(batch)
        second.step(batch)
    after = second.state()
    assert all(torch.equal(value, after[name]) for name, value in first.state().items())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("silent", None),
        ("silent", lambda value: value.float()),
        ("model.W_enc_FD", lambda value: value.T.contiguous()),
        ("model.W_enc_FD", lambda value: value.view(torch.int32)),
        ("adam.0.exp_avg", lambda value: value[:1]),
        ("adam.99.exp_avg", lambda value: value),
        ("step", lambda value: value + 10**6),
    ],
)
def test_state_of_another_training_is_refused(name: str, change: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    first = train("batchtopk", steps=2)
    tensors = first.state()
    if change:
        tensors[name] = change(tensors.get(name, torch.ones(1)))
    else:
        del tensors[name]
    with pytest.raises((LookupError, ValueError)):
        Trainer(build(first.config, WIDTH).train(), first.config, first.scale).restore(tensors)


def test_same_seed_same_weights_other_seed_other_weights(arch: str) -> None:
    first, same, other = (train(arch, steps=5, seed=seed).model.W_enc_FD for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_only_the_auxiliary_loss_moves_latents_that_never_fire(arch: str) -> None:
    def moved(aux_weight: float) -> torch.Tensor:
        config = make_config(arch, aux_weight=aux_weight, dead_after=2 * BATCH)
        data = make_data(50 * BATCH)
        model = build(config, WIDTH)
        model.initialise(data.mean(0), 0)
        with torch.no_grad():
            model.W_enc_FD[-5:] *= 1e-3  # too weak to be selected
            before = model.W_enc_FD[-5:].clone()
        trainer = Trainer(model.train(), config, 1.0)
        for batch in data.split(BATCH)[:8]:
            trainer.step(batch)
        return (model.W_enc_FD[-5:] != before).any(1)

    assert moved(aux_weight=0.1).all()
    assert not moved(aux_weight=0.0).any()
