"""RowAdam is Adam: up to rounding for rows with a gradient in every step, late for others."""

from __future__ import annotations

import shutil

import pytest
import torch

from hiersae_cli.sae.base import StepContext
from hiersae_cli.sae.kernels import native
from hiersae_cli.sae.kernels.row_adam import RowAdam
from hiersae_cli.sae.kernels.sparse import RowGradients
from tests.test_sae_contract import BATCH, make_data, train

LR = 0.01
NEEDS_CPP = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


def both(
    touched: list[list[int]],
    rows: int = 6,
    width: int = 5,
    dtype: torch.dtype = torch.float32,
    unit: bool = False,
    implementation: str = "",
) -> tuple[torch.nn.Parameter, torch.nn.Parameter, RowAdam, torch.optim.Adam]:
    """A matrix that Adam and RowAdam move with the same gradients, those of the rows touched in each step."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(rows, width, generator=generator)
    plain, lazy = (torch.nn.Parameter(start.clone()) for _ in range(2))
    collection = RowGradients()
    adam, row_adam = (
        torch.optim.Adam([plain], lr=LR),
        RowAdam([lazy], [collection], [unit], dtype, implementation=implementation),
    )
    for step in touched:
        row_r = torch.tensor(step, dtype=torch.long)
        value_rD = torch.randn(len(step), width, generator=generator) + 0.5
        plain.grad = torch.zeros_like(plain).index_copy_(0, row_r, value_rD)
        adam.step()
        half = len(step) // 2  # in two parts, as from two levels
        collection.add(row_r[:half], value_rD[:half].clone())
        collection.add(row_r[half:], value_rD[half:].clone())
        row_adam.gather()
        row_adam.step(LR)
    return plain, lazy, row_adam, adam


def test_rows_with_a_gradient_in_every_step_move_as_with_adam() -> None:
    plain, lazy, row_adam, adam = both([list(range(6))] * 50)
    assert torch.allclose(plain, lazy, rtol=1e-6, atol=1e-6)
    assert torch.allclose(adam.state[plain]["exp_avg"], row_adam.slots[0]["mean"], rtol=1e-5, atol=1e-7)
    assert torch.allclose(adam.state[plain]["exp_avg_sq"], row_adam.slots[0]["square"], rtol=1e-5, atol=1e-9)


def test_rows_with_gaps_have_adam_s_moments_and_get_its_moves_late() -> None:
    steps = [[0, 1], [0], [0, 2], [0], [0], [0, 1, 3]] * 40
    plain, lazy, row_adam, adam = both(steps)
    assert torch.allclose(plain[0], lazy[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(plain[2], lazy[2], rtol=1e-5, atol=1e-6), "moves are missing"
    assert torch.equal(lazy[4:], plain[4:]), "a row that never had a gradient stays"
    row_adam.catch_up(LR)
    for name, slot in (("mean", "exp_avg"), ("square", "exp_avg_sq")):
        assert torch.allclose(row_adam.slots[0][name], adam.state[plain][slot], rtol=1e-3, atol=1e-7)
    start = both([])[0]
    moved = (plain - start).abs().max()
    assert (plain - lazy).abs().max() < 0.05 * moved, "bias corrections of the first steps differ"


@pytest.mark.parametrize(
    ("implementation", "dtype"),
    [
        pytest.param("native", torch.float32, marks=pytest.mark.skipif(not native.available(), reason="no C compiler")),
        pytest.param("compiled", torch.float32, marks=NEEDS_CPP),
        pytest.param("compiled", torch.bfloat16, marks=NEEDS_CPP),
    ],
)
@pytest.mark.parametrize("width", [5, 37])
def test_every_implementation_makes_the_same_moves(implementation: str, dtype: torch.dtype, width: int) -> None:
    steps = [[0, 1, 2], [0, 3], [0, 2, 4]] * 5
    (_, expected, reference, _), (_, moved, tested, _) = (
        both(steps, width=width, dtype=dtype, unit=True, implementation=name) for name in ("reference", implementation)
    )
    assert torch.allclose(expected, moved, rtol=1e-4, atol=1e-5)
    for name in ("mean", "square"):
        assert torch.allclose(reference.slots[0][name], tested.slots[0][name], rtol=0.02, atol=1e-5)


def test_gradients_of_the_same_row_are_added() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    collection = RowGradients()
    adam = RowAdam([parameter], [collection], [False])
    collection.add(torch.tensor([0, 2]), torch.ones(2, 2))
    collection.add(torch.tensor([2]), torch.ones(1, 2))
    assert adam.gather() == 2 + 8
    adam.step(LR)
    assert adam.slots[0]["mean"].flatten().tolist() == pytest.approx([0.1, 0.1, 0.0, 0.0, 0.2, 0.2])


def test_unit_rows_stay_unit_rows_and_gradients_along_them_are_removed() -> None:
    parameter = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    collection = RowGradients()
    adam = RowAdam([parameter], [collection], [True])
    collection.add(torch.tensor([0]), torch.tensor([[3.0, 4.0]]))
    assert adam.gather() == 16
    adam.step(LR)
    assert parameter[0].norm().item() == pytest.approx(1.0)
    assert parameter[0, 1] < 0 and parameter[1].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("implementation", ["reference", ""])
def test_bfloat16_moments_are_right_on_average(implementation: str) -> None:
    """Without random rounding the mean square would not change by a thousandth of itself."""
    steps = [list(range(200))] * 300
    *_, exact, _ = both(steps, rows=200, width=16)
    *_, rounded, _ = both(steps, rows=200, width=16, dtype=torch.bfloat16, implementation=implementation)
    expected, actual = exact.slots[0]["square"], rounded.slots[0]["square"].float()
    assert actual.mean().item() == pytest.approx(expected.mean().item(), rel=0.01)
    assert (actual / expected - 1).abs().mean() < 0.06


def test_a_step_changes_only_the_rows_that_it_touches() -> None:
    trainer = train("hier", steps=20, optimizer="row-adam", aux_weight=0.0)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    codes = trainer.model.step(trainer._scaled(make_data(BATCH, seed=9)[:2]), StepContext(20, 20 / 50)).codes
    fired = torch.cat([code.pattern.latent_n for code in codes]).unique()
    others = torch.ones(trainer.model.latents, dtype=torch.bool).index_fill_(0, fired, False)
    trainer.step(make_data(BATCH, seed=9)[:2])
    for name in ("W_enc_FD", "W_dec_FD"):
        after = trainer.model.state_dict()[name]
        assert torch.equal(after[others], before[name][others])
        assert (after[fired] != before[name][fired]).any(1).all()
    assert trainer.model.W_enc_FD.grad is None


def test_training_with_row_adam_reconstructs_as_well() -> None:
    x = make_data(2000, seed=5)
    errors = [
        float((x - train("hier", optimizer=optimizer).model.eval()(x).detach()).square().sum())
        for optimizer in ("adam", "row-adam")
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
