"""Some recipes of docs/contributing.md, followed: what a new architecture, verb, tree format or task needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from hiersae_cli import load_run
from hiersae_cli.cli.flags import register
from hiersae_cli.cli.verbs import LOOK, Verb
from hiersae_cli.config import evaluate as evaluate_config
from hiersae_cli.config.architectures import ARCHITECTURES, Architecture
from hiersae_cli.config.base import Config, argument, option
from hiersae_cli.config.convert import ConvertConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.tree import Node, Tree
from hiersae_cli.metrics import catalogue
from hiersae_cli.metrics.intervals import Bootstrap, Figure
from hiersae_cli.render import tree_writers
from hiersae_cli.sae.base import SparseAutoencoder, Step, StepContext
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode
from hiersae_cli.workflows import convert
from hiersae_cli.workflows.eval import evaluate
from hiersae_cli.workflows.eval.tasks.base import DownstreamTask, ProbedConcepts, TaskCodes, TaskInputs
from hiersae_cli.workflows.train import run as train


class EveryPositive(SparseAutoencoder):
    """Every positive pre-activation is active."""

    def codes(self, x_BD: torch.Tensor) -> list[SparseCode]:
        reading = self._read(x_BD - self.b_dec_D, slice(0, self.latents))
        pattern = Pattern.above(reading.dense_BC, torch.zeros(self.latents))
        return [SparseCode(pattern, reading.at(pattern))]

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        codes = self.codes(x_BD)
        error = (x_BD - self.reconstruct(codes)).square().sum()
        return Step(error / x_BD.numel(), codes, error.detach(), {})


def test_an_architecture_is_a_class_and_a_line(
    tiny_acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "positive", Architecture(f"{__name__}:EveryPositive"))
    acts, run = str(tiny_acts), str(tmp_path / "run")
    sizes: dict[str, Any] = {"widths": (8,), "k": (2,), "tokens": 256, "batch": 32}
    train.run(TrainConfig(acts=[acts], arch="positive", out=run, **sizes))
    assert isinstance(load_run(run).model, EveryPositive)
    report, _ = evaluate(EvalConfig(runs=[run], acts=[acts], resamples=100, controls=False), Console.silent())
    assert report["runs"]["run"]["l0"]["value"] > 0
    for tool in ("sae-lens", "sparsify"):
        with pytest.raises(UsageError, match="positive"):
            convert.run(ConvertConfig(source=run, to=tool, out=str(tmp_path / tool)))


@dataclass(kw_only=True)
class GreetConfig(Config):
    name: str = argument(help="Whom to greet.", metavar="NAME")
    loudly: bool = option(False, help="With an exclamation mark.")


def greet(config: GreetConfig, console: Console) -> tuple[dict[str, Any], str]:
    text = f"hello {config.name}{'!' if config.loudly else ''}"
    return {"text": text}, text


def test_a_verb_is_a_configuration_a_workflow_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("hiersae_cli.workflows.greet")
    module.run = greet  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    app = typer.Typer()
    register(app, "greet", Verb("greet", GreetConfig, "greet:run", "Greet somebody. Politely.", LOOK))
    done = CliRunner().invoke(app, ["you", "--loudly"])
    assert done.exit_code == 0 and done.stdout == "hello you!\n"
    assert "Whom to greet." in CliRunner().invoke(app, ["--help"]).stdout


def test_a_tree_format_is_a_function_and_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tree_writers.WRITERS, "ids", lambda tree: "\n".join(node.id for node in tree.nodes))
    tree_writers.export(tmp_path / "tree.ids", Tree({}, [Node("a0", None, 0, 0), Node("b0", "a0", 1, 0)]), "ids")
    assert (tmp_path / "tree.ids").read_text() == "a0\nb0"


class SilentRows(DownstreamTask[None, float]):
    """The share of held-out rows in which no latent fires."""

    name, metrics = "silence", ("silent_rows",)

    def prepare(self, inputs: TaskInputs, probed: ProbedConcepts) -> None: ...

    def measure(self, codes: TaskCodes, prepared: None) -> float:
        return 1 - len(np.unique(codes.held_out.row_n)) / codes.held_out.rows

    def figures(self, result: float, probed: ProbedConcepts, bootstrap: Bootstrap) -> dict[str, Figure]:
        return {"silent_rows": bootstrap.mean_over_units(np.array([result]))}


def test_a_downstream_task_is_a_module_and_a_name(
    tiny_acts: Path, tiny_host: Path, tiny_flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("hiersae_cli.workflows.eval.tasks.silence")
    module.TASK = SilentRows()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(evaluate_config, "TASKS", (*evaluate_config.TASKS, "silence"))
    silent = replace(catalogue.BY_NAME["dead"], name="silent_rows", section=catalogue.PROBES)
    monkeypatch.setitem(catalogue.BY_NAME, "silent_rows", silent)
    config = EvalConfig(
        runs=[str(tiny_flat)],
        acts=[str(tiny_acts)],
        model=str(tiny_host),
        tasks=evaluate_config.parse_tasks("silence"),
        resamples=100,
        controls=False,
    )
    report, _ = evaluate(config, Console.silent())
    assert 0 <= report["runs"][tiny_flat.name]["silent_rows"]["value"] < 1
    assert report["tasks"]["concepts"]
