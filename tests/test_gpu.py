"""What needs a GPU (``pytest -m gpu``): the same numbers as on a CPU, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hiersae_cli import load_run
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.sae import build
from hiersae_cli.sae.training import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
OPTIONS: dict[str, dict[str, Any]] = {
    "hier": {"arch": "hier", "widths": (16, 112), "k": (4, 4)},
    "row-adam": {"arch": "hier", "widths": (16, 112), "k": (4, 4), "optimizer": "row-adam", "harden": True},
    "batchtopk": {"arch": "batchtopk", "widths": (128,), "k": (8,)},
    "topk": {"arch": "topk", "widths": (128,), "k": (8,)},
    "jumprelu": {"arch": "jumprelu", "widths": (128,), "k": (8,)},
}


def losses(device: str, **options: Any) -> list[float]:
    """The loss of each of 12 steps on fixed data."""
    config = TrainConfig(acts=[], tokens=12 * 64, batch=64, lr=3e-3, tree_every=2, **options)
    data = torch.randn(12 * 64, 32, generator=torch.Generator().manual_seed(5)).abs()
    model = build(config, 32)
    model.initialise(data.mean(0), 0)
    trainer = Trainer(model.to(device).train(), config, 2.0)
    return [float(trainer.step(batch.to(device))["loss"]) for batch in data.split(64)]


@pytest.mark.parametrize("name", OPTIONS)
def test_training_steps_are_those_of_a_cpu(name: str) -> None:
    assert losses("cuda", **OPTIONS[name]) == pytest.approx(losses("cpu", **OPTIONS[name]), rel=1e-3)


@pytest.mark.parametrize("run", ["tiny_hier", "tiny_hard", "tiny_flat"])
def test_codes_are_those_of_a_cpu(run: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(run)
    x_BD = torch.randn(256, 32, generator=torch.Generator().manual_seed(1))
    ours, theirs = load_run(folder).model, load_run(folder, device="cuda").model
    with torch.inference_mode():
        expected, code = ours.encode(x_BD), theirs.encode(x_BD.cuda()).cpu()
    same = (expected > 0) == (code > 0)  # a value at its threshold may fall on either side
    assert same.float().mean() > 0.999 and torch.allclose(expected[same], code[same], atol=1e-4)
