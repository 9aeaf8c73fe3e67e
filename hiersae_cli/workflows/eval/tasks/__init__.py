"""Downstream tasks: how a dictionary's latents relate to concepts that people can name. Each task is one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.evaluate import TASKS
from hiersae_cli.formats.numbers import finite_or_none
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.intervals import Bootstrap, Figure
from hiersae_cli.workflows.common.encoding import firings_of
from hiersae_cli.workflows.eval.passes import Encoded
from hiersae_cli.workflows.eval.tasks.base import DownstreamTask, LabelledRows, ProbedConcepts, TaskCodes, TaskInputs
from hiersae_cli.workflows.eval.tasks.concept_rows import label_rows


@dataclass(frozen=True)
class TaskResults:
    """The results of a dictionary, by the name of the task."""

    tasks: Sequence[DownstreamTask[Any, Any]]
    probed: ProbedConcepts
    results: Mapping[str, Any]

    def figures(self, bootstrap: Bootstrap) -> dict[str, Figure]:
        """All figures by their names in the report."""
        figures: dict[str, Figure] = {}
        for task in self.tasks:
            figures |= task.figures(self.results[task.name], self.probed, bootstrap)
        return figures

    def table(self, levels: Levels) -> list[dict[str, Any]]:
        """What the report says of each concept, in the concepts' order; None for what is not defined."""
        columns: dict[str, Sequence[Any]] = {}
        for task in sorted(self.tasks, key=lambda task: not task.columns_first):
            columns |= task.table(self.results[task.name], self.probed, levels)
        return [
            {name: _in_json(column[concept]) for name, column in columns.items()} for concept in range(len(self.probed))
        ]


@dataclass(frozen=True)
class PreparedTasks:
    """Tasks with what all dictionaries share: concepts with their probes, and what each task has prepared.

    Attributes:
        tasks: in the order in which they are measured and reported.
        prepared: by the name of the task.
    """

    tasks: Sequence[DownstreamTask[Any, Any]]
    probed: ProbedConcepts
    prepared: Mapping[str, Any]

    @torch.inference_mode()
    def measure(self, encoded: Encoded, batch: int, device: torch.device) -> TaskResults:
        """The results of a dictionary, which encodes ``batch`` rows at a time."""
        model = encoded.subject.model

        def codes_of(rows: LabelledRows) -> Any:
            return firings_of(model, torch.from_numpy(rows.x_ND).to(device), batch)

        fit, held_out = codes_of(self.probed.fit), codes_of(self.probed.held_out)
        codes = TaskCodes(model, encoded.trees.trees, self.probed, fit, held_out)
        results = {task.name: task.measure(codes, self.prepared[task.name]) for task in self.tasks}
        return TaskResults(self.tasks, self.probed, results)


def tasks_named(names: Sequence[str] = TASKS) -> list[DownstreamTask[Any, Any]]:
    """The tasks, those that run the host last."""
    tasks = [import_module(f"{__name__}.{name}").TASK for name in names]
    return sorted(tasks, key=lambda task: task.runs_host)


def prepare_tasks(inputs: TaskInputs) -> tuple[PreparedTasks, list[str]]:
    """Label rows, fit the dense probes and prepare the tasks; and what to warn of.

    Raises ``UsageError`` and ``FileError`` if the rows cannot be labelled or no concept has enough rows.
    """
    config = inputs.config
    rows = np.concatenate([inputs.fit_rows, inputs.held_out.rows])
    order = np.argsort(rows)
    concepts, warnings = label_rows(inputs.acts, rows[order], inputs.host, config)
    probed = ProbedConcepts.fitted(inputs, concepts.rows(np.argsort(order)))
    tasks = tasks_named(config.tasks)
    return PreparedTasks(tasks, probed, {task.name: task.prepare(inputs, probed) for task in tasks}), warnings


def _in_json(value: Any) -> Any:
    return finite_or_none(value) if isinstance(value, float) else value
