"""The commands as functions in Python: parameters from the configurations, results that are opened, callbacks."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import hiersae
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.train import TrainConfig
from tests.helpers import PATIENCE

SIZES: dict[str, Any] = {
    "widths": [16, 48],
    "k": (4, 4),
    "tokens": "16k",
    "batch": 256,
    "log_every": 5,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def trained(tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 62 steps, without a callback."""
    out = tmp_path_factory.mktemp("api") / "hier"
    run = hiersae.train(acts=tiny_acts, out=out, **SIZES)
    assert run.name == "hier" and run.steps_done == run.config.steps == 62
    return out


def test_names_load_on_first_use() -> None:
    program = (
        "import sys, hiersae, inspect\n"
        "inspect.signature(hiersae.train)\n"
        "assert set(hiersae.__all__) <= set(dir(hiersae))\n"
        "heavy = {'torch', 'numpy', 'pandas', 'networkx', 'transformers', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert all(hasattr(hiersae, name) for name in hiersae.__all__)


def test_parameters_are_the_fields_of_the_configuration() -> None:
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    parameters = inspect.signature(hiersae.train).parameters
    assert set(parameters) == {*fields, "on_step", "quiet"}
    assert next(iter(parameters)) == "acts" and parameters["lr"].default == fields["lr"].default
    for field in fields.values():
        assert f"        {field.name}: {field.metadata['help'][:20]}" in (hiersae.train.__doc__ or "")
    evaluation = set(inspect.signature(hiersae.evaluate).parameters)
    assert evaluation == {field.name for field in dataclasses.fields(EvalConfig)} - {"explain", "full"} | {"quiet"}


def test_errors_are_those_of_the_command(tiny_acts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TypeError, match="widhts"):
        hiersae.train(acts=tiny_acts, out=out, widhts=(1, 2))
    with pytest.raises(hiersae.HierSAEError, match="is not a number"):
        hiersae.train(acts=tiny_acts, out=out, tokens="many")
    with pytest.raises(hiersae.HierSAEError, match=r"tree-every: is for --arch hier, not topk"):
        hiersae.train(acts=tiny_acts, out=out, arch="topk", widths=64, k=4, tree_every=5)
    with pytest.raises(hiersae.HierSAEError, match="Say what to train on"):
        hiersae.train(out=out)
    assert not out.exists()


@pytest.mark.parametrize("last_step", [23, 62])
def test_a_callback_that_raises_leaves_a_checkpoint_to_resume_from(
    last_step: int, trained: Path, tiny_acts: Path, tmp_path: Path
) -> None:
    steps: list[int] = []

    def stop(step: int, figures: dict[str, Any]) -> None:
        steps.append(step)
        assert figures.get("step", 0) == step // 5 * 5 or step == 62
        if step == last_step:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        hiersae.train(acts=tiny_acts, out=tmp_path / "hier", on_step=stop, **SIZES)
    assert steps == list(range(1, last_step + 1))
    assert hiersae.load_run(tmp_path / "hier").steps_done == last_step
    again: list[int] = []
    run = hiersae.train(acts=tiny_acts, out=tmp_path / "hier", on_step=lambda step, _: again.append(step), **SIZES)
    assert again == list(range(last_step + 1, 63)) and run.steps_done == 62
    expected = hiersae.load_run(trained).model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in run.model.state_dict().items())


def test_the_chain_in_python(tiny_text: Path, tiny_host: Path, trained: Path, tmp_path: Path) -> None:
    acts = hiersae.cache(
        [tiny_text],
        model=tiny_host,
        layer="1",
        out=tmp_path / "acts.h5",
        document_tokens=512,
        held_out=0.2,
        device="cpu",
    )
    assert acts.rows == 20_000 and acts.text(5).token == tiny_text.read_text()[5]
    report = hiersae.evaluate(trained, acts=acts.path, controls=False, resamples=100, out=tmp_path / "report.json")
    assert report.groups == ["hier"] and 0 < report.figure("hier", "fvu")["value"] < 1
    saved = hiersae.load_report(tmp_path / "report.json")
    assert saved.data == report.data
    tree = hiersae.export_tree(trained, acts=acts.path, model=tiny_host, out=tmp_path / "tree.json")
    assert len(tree) == 64 and tree["a0"].evidence
    path = hiersae.export_tree(trained, acts=acts.path, out=tmp_path / "tree.csv")
    assert path == str(tmp_path / "tree.csv")
    with hiersae.encode(trained, acts.path, out=tmp_path / "codes.h5", tokens=100) as codes:
        assert codes.rows == 100 and "100 rows of 64 latents" in repr(codes)
    acts.close()
