"""Items drawn from an index: contexts, intruders and edges of three conditions, matched on firing rate.

Legend of shapes: n firings of a latent, F latents of a dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import Context
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.activations import HELD_OUT
from hiersae_cli.formats.study import Excerpt, Item
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.pages.text import step
from hiersae_cli.study.conditions import CHILDREN, Condition, conditions_of
from hiersae_cli.study.matching import FEWER, matched_sets
from hiersae_cli.study.protocol import CHECK, CHILD, EDGE, EXAMPLE, HIERARCHY, LABEL, MATCH, MOST_OPTIONS

_CHOICES, _EXAMPLES = 4, 5  # groups to match a label with, texts of which one is an intruder
_OF_CHILD, _OF_EDGE, _OF_LABEL = 3, 4, 6  # excerpts of each

Array = np.ndarray[Any, Any]
Draft = dict[str, Any]  # the fields of an item, but for its id


class Drawer:
    """Draws the items of a study.

    Args:
        index: of the dashboard, with a baseline.
        seed: of everything drawn.
        most_marks: latents that mark a larger share of the tokens of their texts are left out.

    Attributes:
        dense: how many latents are left out so, by dictionary.

    Raises ``UsageError`` if the index has no baseline.
    """

    def __init__(self, index: Index, seed: int, most_marks: float):
        self._seed, self._contexts = seed, index.contexts
        self._conditions = conditions_of(index, seed, most_marks)
        self.dense = {condition.name: condition.dense for condition in self._conditions.values()}
        self._held_out_R = np.asarray(index.file.columns["split"]) == HELD_OUT

    def available(self, tasks: Sequence[str], most: int) -> int:
        """How many matched sets, at most ``most``, can be drawn for every one of the tasks."""
        numbers = []
        for number, task in enumerate(tasks):
            chosen, _ = self._matched(task, 1, most, self._random(number))
            numbers.append(len(chosen[HIERARCHY]))
        return min(numbers)

    def draw(self, tasks: Sequence[str], sets: int, checks: int) -> tuple[dict[str, Item], dict[str, Any]]:
        """Items by id, in random order, and how well each task's conditions are matched.

        Raises ``UsageError`` if there are not as many matched sets.
        """
        drafts: list[Draft] = []
        matching: dict[str, Any] = {}
        makers = {EXAMPLE: self._example, CHILD: self._child, EDGE: self._edge, LABEL: self._label}
        for number, task in enumerate(tasks):
            random, make = self._random(number), makers[task]
            chosen, matching[task] = self._matched(task, sets, sets, random)
            for place in range(sets):
                # In every condition of a set the contexts come from the same tenth of the activations.
                decile = place % 10 + 1
                for name, latents in chosen.items():
                    for draft in make(self._conditions[name], int(latents[place]), decile, random):
                        drafts.append({**draft, "condition": name, "set": place})
        return finished(drafts, checks, self._seed), matching

    def _random(self, number: int) -> np.random.Generator:
        """The generator for the items of the task of this number."""
        return np.random.default_rng((self._seed, 10 + number))

    def _matched(
        self, task: str, least: int, most: int, random: np.random.Generator
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        learned_F = self._conditions[HIERARCHY].parent_F
        return matched_sets(task, self._conditions, learned_F, least, most, random)

    # --- items

    def _example(self, condition: Condition, latent: int, decile: int, random: np.random.Generator) -> list[Draft]:
        row_n, value_n = self._firings(condition, latent)
        tenths = np.array_split(np.argsort(-value_n, kind="stable"), 10)
        rows = self._far_apart(row_n[tenths[decile - 1]], _EXAMPLES - 1, random, row_n)
        contexts = self._contexts.with_activations(row_n, value_n, rows)
        intruder = self._intruder(condition, latent, contexts[int(random.integers(len(contexts)))], random)
        order, key = _shuffled(len(contexts), random)
        options = [[excerpt] for excerpt in self._excerpts([*contexts, intruder])]
        return [_draft(EXAMPLE, condition, [latent], decile, [], [options[place] for place in order], key)]

    def _child(self, condition: Condition, parent: int, decile: int, random: np.random.Generator) -> list[Draft]:
        children = condition.children(parent)
        intruder = _not_below(condition, children, parent, random)
        groups = [self._strongest(condition, latent, _OF_CHILD) for latent in [*children.tolist(), intruder]]
        order, key = _shuffled(CHILDREN, random)
        latents = [parent, *children.tolist(), intruder]
        draft = _draft(CHILD, condition, latents, 0, [], [groups[place] for place in order], key)
        return [{**draft, "rate": float(np.exp(np.log(condition.rate_F[children]).mean()))}]

    def _edge(self, condition: Condition, child: int, decile: int, random: np.random.Generator) -> list[Draft]:
        parent = int(condition.parent_F[child])
        shown = [self._spread_out(condition, parent, _OF_EDGE, random), self._strongest(condition, child, _OF_EDGE)]
        return [_draft(EDGE, condition, [child, parent], 0, shown, [], None)]

    def _label(self, condition: Condition, latent: int, decile: int, random: np.random.Generator) -> list[Draft]:
        """A latent to name; and, with other texts, the same latent to be found among three others by its name."""
        to_name, to_match = self._two_halves(condition, latent)
        rate_F, parent_F = condition.rate_F, condition.parent_F
        free = np.flatnonzero(condition.usable_F & (parent_F != latent))
        free = free[(free != latent) & (free != parent_F[latent])]
        near = free[np.argsort(np.abs(np.log(rate_F[free] / rate_F[latent])), kind="stable")[:12]]
        others = random.choice(near, _CHOICES - 1, replace=False).tolist()
        groups = [*(self._strongest(condition, other, _OF_CHILD) for other in others), to_match]
        order, key = _shuffled(_CHOICES - 1, random)
        return [
            _draft(LABEL, condition, [latent], 0, [to_name], [], None),
            _draft(MATCH, condition, [latent, *others], 0, [], [groups[place] for place in order], key),
        ]

    # --- contexts

    def _firings(self, condition: Condition, latent: int) -> tuple[Array, Array]:
        """Rows and activations, of held-out rows only: training rows may flatter the dictionary."""
        row_n, value_n = condition.lists.of(latent)
        held_out_n = self._held_out_R[row_n]
        return row_n[held_out_n], value_n[held_out_n]

    def _far_apart(self, row_n: Array, count: int, random: np.random.Generator, all_n: Array) -> Array:
        """Some of the rows, far from one another if possible; more of ``all_n`` if they are too few."""
        order = row_n[random.permutation(len(row_n))].tolist()
        apart: list[int] = []
        for row in order:
            if all(abs(row - other) > self._contexts.around for other in apart):
                apart.append(row)
        near = [row for row in order if row not in apart]
        more = [row for row in random.permutation(all_n).tolist() if row not in order]
        return np.array([*apart, *near, *more][:count])

    def _strongest(self, condition: Condition, latent: int, count: int) -> list[Excerpt]:
        row_n, value_n = self._firings(condition, latent)
        rows = self._contexts.strongest(row_n, value_n, count)
        return self._excerpts(self._contexts.with_activations(row_n, value_n, rows))

    def _spread_out(self, condition: Condition, latent: int, count: int, random: np.random.Generator) -> list[Excerpt]:
        """One context of each part of the upper half of the firings: a parent is wider than its strongest contexts."""
        row_n, value_n = self._firings(condition, latent)
        order = np.argsort(-value_n, kind="stable")[: max(count, len(value_n) // 2)]
        rows = np.array([int(random.choice(row_n[part])) for part in np.array_split(order, count)])
        return self._excerpts(self._contexts.with_activations(row_n, value_n, rows))

    def _two_halves(self, condition: Condition, latent: int) -> tuple[list[Excerpt], list[Excerpt]]:
        """The strongest contexts in turn: some to name the latent by, others to find it by its name."""
        row_n, value_n = self._firings(condition, latent)
        rows = self._contexts.strongest(row_n, value_n, _OF_LABEL + _OF_CHILD)
        excerpts = self._excerpts(self._contexts.with_activations(row_n, value_n, rows))
        to_match = excerpts[1::3][:_OF_CHILD]
        to_name = [excerpt for excerpt in excerpts if not any(excerpt is other for other in to_match)]
        return to_name, to_match

    def _intruder(self, condition: Condition, latent: int, pattern: Context, random: np.random.Generator) -> Context:
        """A context in which the latent does not fire, marked as ``pattern`` is: all five have marks."""
        row = random.choice(condition.silent_rows(latent), 1)
        (context,) = self._contexts.with_activations(np.zeros(0, int), np.zeros(0, np.float32), row)
        activations = [0.0] * len(context.tokens)
        for place, value in enumerate(pattern.activations):
            at = place - pattern.focus + context.focus
            if 0 <= at < len(activations):
                activations[at] = value
        return replace(context, activations=activations)

    def _excerpts(self, contexts: list[Context]) -> list[Excerpt]:
        """Tokens with steps of the ramp instead of activations; of subword tokens 32, as the protocol has it."""
        most = max((max(context.activations) for context in contexts), default=0.0)
        end = 2 * self._contexts.around
        return [
            {"tokens": context.tokens[:end], "steps": [step(value, most) for value in context.activations[:end]]}
            for context in contexts
        ]


def finished(drafts: list[Draft], checks: int, seed: int) -> dict[str, Item]:
    """The items of a study by id, in random order, with ``checks`` attention checks among them."""
    random = np.random.default_rng((seed, 9))
    models = [draft for draft in drafts if draft["task"] == EXAMPLE]
    models = models or [draft for draft in drafts if len(draft["options"]) > 1]
    if models or any(draft["task"] == EDGE for draft in drafts):
        drafts = drafts + [_check(models, drafts, random) for _ in range(checks)]
    ids = _ids(len(drafts), random)
    items = [Item(id=id, **draft) for id, draft in zip(ids, drafts, strict=True)]
    return {items[place].id: items[place] for place in random.permutation(len(items)).tolist()}


def share_marked(item: Item) -> float:
    """The share of an item's tokens that are marked."""
    steps = [step for group in [*item.shown, *item.options] for excerpt in group for step in excerpt["steps"]]
    return sum(map(bool, steps)) / max(len(steps), 1)


def _not_below(condition: Condition, children: Array, parent: int, random: np.random.Generator) -> int:
    """A latent of the children's levels and about their rate that is no descendant of the parent."""
    below = {parent}
    while more := set(np.flatnonzero(np.isin(condition.parent_F, list(below))).tolist()) - below:
        below |= more
    same_F = np.isin(condition.level_F, condition.level_F[children]) & condition.usable_F & (condition.parent_F != NONE)
    free = np.array([latent for latent in np.flatnonzero(same_F).tolist() if latent not in below], int)
    if not len(free):
        raise UsageError("no child of another parent can be the intruder", FEWER)
    distance_N = np.abs(np.log(condition.rate_F[free]) - np.log(condition.rate_F[children]).mean())
    return int(random.choice(free[np.argsort(distance_N, kind="stable")[:8]]))


def _check(models: list[Draft], drafts: list[Draft], random: np.random.Generator) -> Draft:
    """An attention check: looks like an item of the study, and says which option to choose."""
    if models:
        model = models[int(random.integers(len(models)))]
        options = model["options"]
    else:  # a study of edges only: the excerpts of the two groups are the options
        edges = [draft for draft in drafts if draft["task"] == EDGE]
        model = edges[int(random.integers(len(edges)))]
        options = [[excerpt] for group in model["shown"] for excerpt in group][:MOST_OPTIONS]
    fields = {"task": CHECK, "condition": "", "set": -1, "latents": [], "decile": 0, "shown": [], "words": ""}
    return {**model, **fields, "options": options, "key": int(random.integers(len(options)))}


def _draft(
    task: str,
    condition: Condition,
    latents: list[int],
    decile: int,
    shown: list[list[Excerpt]],
    options: list[list[Excerpt]],
    key: int | None,
) -> Draft:
    return {
        "task": task,
        "latents": [condition.id_of(latent) for latent in latents],
        "rate": float(condition.rate_F[latents[0]]),
        "decile": decile,
        "shown": shown,
        "options": options,
        "key": key,
    }


def _shuffled(last: int, random: np.random.Generator) -> tuple[list[int], int]:
    """An order of 0 .. ``last``, and the place of ``last`` in it."""
    order = random.permutation(last + 1).tolist()
    return order, order.index(last)


def _ids(number: int, random: np.random.Generator) -> list[str]:
    """Distinct names that say nothing of task, condition or order."""
    return [f"{id:06x}" for id in random.choice(16**6, number, replace=False).tolist()]
