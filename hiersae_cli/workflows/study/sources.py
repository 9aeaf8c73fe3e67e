"""Where the items of a study come from: runs and their index, or a file of another tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.study import MOST_SETS, StudyNewConfig
from hiersae_cli.console import Console
from hiersae_cli.formats.study import Item
from hiersae_cli.formats.text import counted
from hiersae_cli.hashing import sha256_file
from hiersae_cli.study.draw import Drawer, finished, share_marked
from hiersae_cli.study.from_file import read_items
from hiersae_cli.study.protocol import CHECK, CONDITIONS, LABEL, MATCH, TASKS


@dataclass(frozen=True)
class Materials:
    """The items of a study by id, and what its design says of them.

    Attributes:
        conditions: of each task of the items, first the one that the others are compared with.
        sets: the number of matched sets of each task.
        materials: how the items were made, as the pre-registration says it.
        inputs: fingerprints of what was read.
        matching: how well the conditions of a task are matched.
    """

    items: dict[str, Item]
    conditions: dict[str, list[str]]
    sets: dict[str, int]
    materials: str
    inputs: dict[str, str]
    matching: dict[str, Any] = field(default_factory=dict)


def from_runs(config: StudyNewConfig, console: Console) -> Materials:
    """Items drawn from the index of a run and its baseline; raises as ``open_dashboard`` and ``Drawer`` do."""
    from hiersae_cli.workflows.dashboard.run import open_dashboard

    dashboard = DashboardConfig(
        run=config.run,
        acts=config.acts,
        baseline=config.baseline,
        model=config.model,
        index=config.index,
        tokens=config.tokens,
        batch=config.batch,
        device=config.device,
    )
    index, _ = open_dashboard(dashboard, console)
    if not config.model:
        console.warn("without --model tokens are numbers, which nobody can read")
    console.say("study: the post-hoc tree of the baseline, and items of every condition")
    drawer = Drawer(index, config.seed, config.most_marks)
    for name, dense in drawer.dense.items():
        if dense:
            console.say(
                f"study: {counted(dense, 'latent')} of the {name} left out, whose marks are on more than "
                f"{config.most_marks:.0%} of the tokens"
            )
    sets = config.sets or drawer.available(config.tasks, MOST_SETS)
    if sets < (config.sets or MOST_SETS):
        console.say(f"study: {sets} matched sets of each task, as no more can be drawn from this index")
    items, matching = drawer.draw(config.tasks, sets, config.checks)
    made_of = index.file.header["made_of"]
    inputs = {
        config.run: made_of["run"],
        config.baseline: made_of["baseline"],
        **dict(zip(config.acts, made_of["acts"], strict=True)),
    }
    tasks = _tasks(items.values())
    materials = (
        f"{sets} matched sets of each task. Texts are from held-out rows. Every set has one item in each condition, of "
        "latents whose firing rates differ by a factor of 2 at most; no latent stands for two items of a task in one "
        f"condition. Latents that mark more than {config.most_marks:.0%} of the tokens of their texts are left out."
    )
    return Materials(
        items,
        {task: list(CONDITIONS[task]) for task in tasks},
        {task: sets for task in config.tasks},
        materials,
        inputs,
        matching,
    )


def from_file(config: StudyNewConfig, console: Console) -> Materials:
    """Items of another tool; raises ``FileError`` if they cannot be asked or compared."""
    drafts, names = read_items(config.items, config.seed)
    items = finished(drafts, config.checks, config.seed)
    tasks = _tasks(items.values())
    conditions = {
        task: [name for name in names if any((draft["task"], draft["condition"]) == (task, name) for draft in drafts)]
        for task in tasks
    }
    sets = {
        LABEL if task == MATCH else task: 1 + max(draft["set"] for draft in drafts if draft["task"] == task)
        for task in tasks
    }
    numbers = ", ".join(f"{count} of {TASKS[task].title}" for task, count in sets.items())
    materials = (
        f"Matched sets of items made by another tool, one item in each condition: {numbers}. The options of each item "
        "were put in random order. How items were chosen and matched must be registered with them."
    )
    console.say(f"study: {len(items):,} items of {config.items}")
    return Materials(items, conditions, sets, materials, {config.items: sha256_file(config.items)})


def warn_of_dense(items: Iterable[Item], most: float, console: Console) -> None:
    """Say how many items are hard to answer since too many of their tokens are marked."""
    asked = [item for item in items if item.task != CHECK]
    dense = Counter(TASKS[item.task].title for item in asked if share_marked(item) > most)
    if dense:
        which = ", ".join(f"{count} of {title}" for title, count in sorted(dense.items()))
        console.warn(
            f"{dense.total()} of {counted(len(asked), 'item')} mark more than {most:.0%} of their tokens, so that "
            f"nobody may see what the marks have in common: {which}"
        )


def _tasks(items: Iterable[Item]) -> list[str]:
    """The tasks of the items, in the order of the protocol."""
    present = {item.task for item in items}
    return [task for task in TASKS if task in present and task != CHECK]
