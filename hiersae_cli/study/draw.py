"""Items drawn from an index: contexts, intruders and edges of three conditions, matched on firing rate.

Legend of shapes: F latents of a dictionary, N candidates, K figures that candidates are matched on, n firings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import Context
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.activations import DROPPED, HELD_OUT, TRAIN
from hiersae_cli.formats.index import BASELINE, RUN, FiringLists
from hiersae_cli.formats.study import Excerpt, Item
from hiersae_cli.metrics.description import FiringRows, most_informative_parents
from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.recovery import shuffled_parents
from hiersae_cli.pages.text import step
from hiersae_cli.study.protocol import CHECK, CHILD, CONDITIONS, EDGE, EXAMPLE, FLAT, HIERARCHY, LABEL, MATCH, SHUFFLED

LEAST_FIRINGS = 40  # held-out ones that a latent needs to be shown
_SAMPLED, _LEAST_SILENT = 4000, 20  # held-out rows looked at for windows in which a latent is silent
_TREE_ROWS = 200_000  # training rows that the post-hoc tree of the baseline is fitted on
_CHILDREN, _CHOICES, _EXAMPLES = 3, 4, 5
_OF_CHILD, _OF_EDGE, _OF_LABEL = 3, 4, 6  # excerpts of each
_FURTHEST = float(np.log(2))  # matched items differ by no more than this in the logarithm of each rate

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Condition:
    """A dictionary under a tree: what a condition draws from.

    Attributes:
        name: of the dictionary in the index.
        lists: its firings.
        parent_F: the tree.
        level_F: of each latent, so that an intruder is of its neighbours' level.
        rate_F: share of held-out rows in which each fires.
        usable_F: whether it fires often enough to be shown.
    """

    name: str
    lists: FiringLists
    parent_F: Array
    level_F: Array
    rate_F: Array
    usable_F: Array

    def called(self, latent: int) -> str:
        """A latent's name in the items."""
        return f"{self.name}:{latent}"


class Drawer:
    """Draws the items of a study.

    Args:
        index: of the dashboard, with a baseline.
        seed: of everything drawn.

    Raises ``UsageError`` where the index has no baseline.
    """

    def __init__(self, index: Index, seed: int):
        if BASELINE not in index.file.lists:
            raise UsageError("the study needs a flat dictionary to compare with", "Give it: --baseline RUN.")
        self._seed, self._contexts = seed, index.contexts
        split_R = np.asarray(index.file.columns["split"])
        self._held_out_R = split_R == HELD_OUT
        self._rows = np.flatnonzero(self._held_out_R)
        sampled = np.random.default_rng((seed, 4)).permutation(self._rows)[:_SAMPLED]
        self._sample = np.sort(sampled)
        ours, theirs = index.file.lists[RUN], index.file.lists[BASELINE]
        parent_F = index.nodes.parent_F
        level_F = np.array(index.nodes.levels.level_F)
        shuffled_F = shuffled_parents(parent_F, index.nodes.levels, seed)
        flat_F = post_hoc_tree(theirs, np.flatnonzero(split_R == TRAIN), np.flatnonzero(split_R != DROPPED))
        self.sources = {
            HIERARCHY: self._source(RUN, ours, parent_F, level_F),
            FLAT: self._source(BASELINE, theirs, flat_F, np.zeros(theirs.latents, int)),
            SHUFFLED: self._source(RUN, ours, shuffled_F, level_F),
        }
        self._learned_F = parent_F

    def _source(self, name: str, lists: FiringLists, parent_F: Array, level_F: Array) -> Condition:
        held_out_F = np.array(
            [self._held_out_R[lists.rows_of(latent)].sum() for latent in range(lists.latents)], dtype=float
        )
        rate_F = held_out_F / max(len(self._rows), 1)
        return Condition(name, lists, parent_F, level_F, rate_F, (held_out_F >= LEAST_FIRINGS) & (rate_F < 0.5))

    def available(self, tasks: Sequence[str], most: int) -> int:
        """How many matched sets, at most ``most``, can be drawn for every one of the tasks."""
        numbers = []
        for number, task in enumerate(tasks):
            chosen, _ = self._matched(task, 1, most, self._random(number))
            numbers.append(len(chosen[HIERARCHY]))
        return min(numbers)

    def draw(self, tasks: Sequence[str], sets: int, checks: int) -> tuple[dict[str, Item], dict[str, Any]]:
        """Items by id, in random order, and how well each task's conditions are matched.

        Raises ``UsageError`` where there are not as many matched sets.
        """
        made: list[dict[str, Any]] = []
        matching: dict[str, Any] = {}
        makers = {EXAMPLE: self._example, CHILD: self._child, EDGE: self._edge, LABEL: self._label}
        for number, task in enumerate(tasks):
            draw, make = self._random(number), makers[task]
            chosen, matching[task] = self._matched(task, sets, sets, draw)
            for place in range(sets):
                # In every condition of a set the contexts are of the same tenth of the activations.
                for condition, pick in chosen.items():
                    for one in make(self.sources[condition], int(pick[place]), place % 10 + 1, draw):
                        made.append({**one, "condition": condition, "set": place})
        draw = np.random.default_rng((self._seed, 9))
        pool = [one for one in made if one["task"] == EXAMPLE] or [one for one in made if len(one["options"]) > 1]
        for number in range(checks if pool or EDGE in tasks else 0):
            model = pool[int(draw.integers(len(pool)))] if pool else None
            made.append(self._check(model, made, number, draw))
        ids = _ids(len(made), draw)
        items = [Item(id=id, **one) for id, one in zip(ids, made, strict=True)]
        return {items[place].id: items[place] for place in draw.permutation(len(items)).tolist()}, matching

    def _random(self, number: int) -> np.random.Generator:
        """What the items of the task of this number are drawn with."""
        return np.random.default_rng((self._seed, 10 + number))

    # --- candidates: the latents that an item may stand for, those of each condition

    def _single_candidates(self, source: Condition) -> Array:
        return np.flatnonzero(source.usable_F)

    def _example_candidates(self, source: Condition) -> Array:
        """Those that are silent in enough windows for there to be an intruder."""
        found = self._single_candidates(source).tolist()
        return np.array([one for one in found if len(self._silent(source, one)) >= _LEAST_SILENT], int)

    def _silent(self, source: Condition, latent: int) -> Array:
        """Of a sample of held-out rows those around which a latent does not fire."""
        fires, around = source.lists.rows_of(latent), self._contexts.around
        first, last = (np.searchsorted(fires, self._sample + end) for end in (-around, around + 1))
        return self._sample[first == last]

    def _edge_candidates(self, source: Condition) -> Array:
        child = np.flatnonzero(source.usable_F & (source.parent_F != NONE))
        return child[source.usable_F[source.parent_F[child]]]

    def _family_candidates(self, source: Condition) -> Array:
        child = self._edge_candidates(source)
        parent, count = np.unique(source.parent_F[child], return_counts=True)
        return parent[count >= _CHILDREN]

    def _figures(self, task: str, source: Condition, latent_N: Array) -> Array:
        """What candidates are matched on, (N, K): logarithms of firing rates."""
        if task == CHILD:
            return np.array([[np.log(source.rate_F[self._children(source, one)]).mean()] for one in latent_N.tolist()])
        columns = [source.rate_F[latent_N]]
        if task == EDGE:
            columns.append(source.rate_F[source.parent_F[latent_N]])
        return np.log(np.stack(columns, 1))

    def _children(self, source: Condition, parent: int) -> Array:
        """Three children of a parent, the same whenever it is asked."""
        child = np.flatnonzero(source.usable_F & (source.parent_F == parent))
        draw = np.random.default_rng((self._seed, 3, parent))
        return np.sort(draw.choice(child, _CHILDREN, replace=False))

    def _matched(
        self, task: str, least: int, most: int, draw: np.random.Generator
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Of each condition ``least`` to ``most`` candidates, those of a set alike in their rates, none taken twice.

        Hierarchy and shuffled parents are of one dictionary: what the one has taken, the other does not show again,
        and where parents were dealt back to their own children they are not taken as shuffled.
        """
        conditions = CONDITIONS[task]
        candidates = {
            EXAMPLE: self._example_candidates,
            CHILD: self._family_candidates,
            EDGE: self._edge_candidates,
            LABEL: self._single_candidates,
        }[task]
        found = {name: candidates(self.sources[name]) for name in conditions}
        if SHUFFLED in found and task == EDGE:
            shuffled_F = self.sources[SHUFFLED].parent_F
            found[SHUFFLED] = np.array([one for one in found[SHUFFLED] if shuffled_F[one] != self._learned_F[one]], int)
        figures = {name: self._figures(task, self.sources[name], one) for name, one in found.items() if len(one)}
        if len(figures) < len(conditions):
            raise UsageError(
                f"no candidates of {', '.join(set(conditions) - set(figures))} for the task {task}", _FEWER
            )
        taken: dict[str, set[int]] = {name: set() for name in conditions}
        chosen: dict[str, list[int]] = {name: [] for name in conditions}
        distances: list[float] = []
        first, *others = conditions
        for place in draw.permutation(len(found[first])).tolist():
            latent = int(found[first][place])
            if latent in taken[first]:
                continue
            here = {**taken, **({SHUFFLED: taken[SHUFFLED] | {latent}} if SHUFFLED in taken else {})}
            partners = self._partners(latent, figures[first][place], others, found, figures, here)
            if partners is None:
                continue
            for name, (other, distance) in {first: (latent, 0.0), **partners}.items():
                chosen[name].append(other)
                distances += [distance] if name != first else []
                for same in conditions:
                    # A family of shuffled children is another family, whoever its parent was.
                    if same == name or (task != CHILD and self.sources[same].name == self.sources[name].name):
                        taken[same].add(other)
            if len(chosen[first]) == most:
                break
        if len(chosen[first]) < least:
            raise UsageError(
                f"--sets {least}: only {len(chosen[first])} matched sets can be drawn for the task {task}", _FEWER
            )
        rates = {
            name: float(np.exp(figures[name][np.searchsorted(found[name], np.array(one))][:, 0]).mean())
            for name, one in chosen.items()
        }
        summary = {
            "candidates": {name: len(one) for name, one in found.items()},
            "mean_rate": rates,
            "mean_ratio": float(np.exp(np.mean(distances))),
            "largest_ratio": float(np.exp(np.max(distances))),
        }
        return {name: np.array(one) for name, one in chosen.items()}, summary

    @staticmethod
    def _partners(
        latent: int,
        figure_K: Array,
        others: list[str],
        found: Mapping[str, Array],
        figures: Mapping[str, Array],
        taken: Mapping[str, set[int]],
    ) -> dict[str, tuple[int, float]] | None:
        """The nearest free candidate of each other condition, and how far it is; None where one has none near."""
        partners = {}
        for name in others:
            free_N = np.array([one not in taken[name] for one in found[name].tolist()])
            distance_N = np.where(free_N, np.abs(figures[name] - figure_K).max(1), np.inf)
            nearest = int(distance_N.argmin())
            if distance_N[nearest] > _FURTHEST:
                return None
            partners[name] = (int(found[name][nearest]), float(distance_N[nearest]))
        return partners

    # --- items

    def _example(self, source: Condition, latent: int, decile: int, draw: np.random.Generator) -> list[dict[str, Any]]:
        row_n, value_n = self._firings(source, latent)
        parts = np.array_split(np.argsort(-value_n, kind="stable"), 10)
        row = self._spread(row_n[parts[decile - 1]], _EXAMPLES - 1, draw, row_n)
        contexts = self._contexts.with_activations(row_n, value_n, row)
        intruder = self._elsewhere(source, latent, contexts[int(draw.integers(len(contexts)))], draw)
        order, key = _shuffled(len(contexts), draw)
        options = [[one] for one in self._excerpts([*contexts, intruder])]
        return [_item(EXAMPLE, source, [latent], decile, [], [options[place] for place in order], key)]

    def _child(self, source: Condition, parent: int, decile: int, draw: np.random.Generator) -> list[dict[str, Any]]:
        children = self._children(source, parent)
        intruder = self._alike(source, children, parent, draw)
        groups = [self._strongest(source, latent, _OF_CHILD) for latent in [*children.tolist(), intruder]]
        order, key = _shuffled(_CHILDREN, draw)
        latents = [parent, *children.tolist(), intruder]
        found = _item(CHILD, source, latents, 0, [], [groups[place] for place in order], key)
        return [{**found, "rate": float(np.exp(np.log(source.rate_F[children]).mean()))}]

    def _edge(self, source: Condition, child: int, decile: int, draw: np.random.Generator) -> list[dict[str, Any]]:
        parent = int(source.parent_F[child])
        shown = [self._spread_out(source, parent, _OF_EDGE, draw), self._strongest(source, child, _OF_EDGE)]
        return [_item(EDGE, source, [child, parent], 0, shown, [], None)]

    def _label(self, source: Condition, latent: int, decile: int, draw: np.random.Generator) -> list[dict[str, Any]]:
        """A latent to name, and the same, by other texts, to be found among three others by its name."""
        seen, kept = self._two_halves(source, latent)
        free = np.flatnonzero(source.usable_F & (source.parent_F != latent))
        free = free[(free != latent) & (free != source.parent_F[latent])]
        near = free[np.argsort(np.abs(np.log(source.rate_F[free] / source.rate_F[latent])), kind="stable")[:12]]
        others = draw.choice(near, _CHOICES - 1, replace=False).tolist()
        groups = [*(self._strongest(source, other, _OF_CHILD) for other in others), kept]
        order, key = _shuffled(_CHOICES - 1, draw)
        return [
            _item(LABEL, source, [latent], 0, [seen], [], None),
            _item(MATCH, source, [latent, *others], 0, [], [groups[place] for place in order], key),
        ]

    def _check(
        self, model: dict[str, Any] | None, made: list[dict[str, Any]], number: int, draw: np.random.Generator
    ) -> dict[str, Any]:
        """Looks like an item of the study, and says which option to choose."""
        if model is None:  # edges alone: the two groups are the options
            model = {**made[int(draw.integers(len(made)))]}
            model["options"] = [[excerpt] for group in model["shown"] for excerpt in group]
        key = int(draw.integers(len(model["options"])))
        return {**model, "task": CHECK, "condition": "", "set": -1, "latents": [], "decile": 0, "shown": [], "key": key}

    # --- contexts

    def _firings(self, source: Condition, latent: int) -> tuple[Array, Array]:
        """Of held-out rows alone: what a dictionary was trained on may flatter it."""
        row_n, value_n = source.lists.of(latent)
        kept = self._held_out_R[row_n]
        return row_n[kept], value_n[kept]

    def _spread(self, row_n: Array, count: int, draw: np.random.Generator, all_n: Array) -> Array:
        """Some rows of a part of a latent's firings, far from one another if possible."""
        order = row_n[draw.permutation(len(row_n))].tolist()
        found: list[int] = []
        for row in order:
            if all(abs(row - other) > self._contexts.around for other in found):
                found.append(row)
        rest = [row for row in order if row not in found]
        more = [row for row in draw.permutation(all_n).tolist() if row not in order]
        return np.array([*found, *rest, *more][:count])

    def _strongest(self, source: Condition, latent: int, count: int) -> list[Excerpt]:
        row_n, value_n = self._firings(source, latent)
        chosen = self._contexts.strongest(row_n, value_n, count)
        return self._excerpts(self._contexts.with_activations(row_n, value_n, chosen))

    def _spread_out(self, source: Condition, latent: int, count: int, draw: np.random.Generator) -> list[Excerpt]:
        """One of each part of the upper half of the firings: a parent is wider than its strongest contexts."""
        row_n, value_n = self._firings(source, latent)
        order = np.argsort(-value_n, kind="stable")[: max(count, len(value_n) // 2)]
        row = np.array([int(draw.choice(row_n[part])) for part in np.array_split(order, count)])
        return self._excerpts(self._contexts.with_activations(row_n, value_n, row))

    def _two_halves(self, source: Condition, latent: int) -> tuple[list[Excerpt], list[Excerpt]]:
        """The strongest contexts in turn: some to label by, others to be found by the label."""
        row_n, value_n = self._firings(source, latent)
        row = self._contexts.strongest(row_n, value_n, _OF_LABEL + _OF_CHILD)
        excerpts = self._excerpts(self._contexts.with_activations(row_n, value_n, row))
        kept = excerpts[1::3][:_OF_CHILD]
        return [one for one in excerpts if not any(one is other for other in kept)], kept

    def _alike(self, source: Condition, children: Array, parent: int, draw: np.random.Generator) -> int:
        """A latent of the same level and about the same rate that does not hang below the parent."""
        below = {parent}
        while more := set(np.flatnonzero(np.isin(source.parent_F, list(below))).tolist()) - below:
            below |= more
        same = np.isin(source.level_F, source.level_F[children]) & source.usable_F & (source.parent_F != NONE)
        free = np.array([one for one in np.flatnonzero(same).tolist() if one not in below], int)
        if not len(free):
            raise UsageError("no latent hangs below another parent, so there is no intruder", _FEWER)
        far_N = np.abs(np.log(source.rate_F[free]) - np.log(source.rate_F[children]).mean())
        return int(draw.choice(free[np.argsort(far_N, kind="stable")[:8]]))

    def _elsewhere(self, source: Condition, latent: int, pattern: Context, draw: np.random.Generator) -> Context:
        """A context in which the latent does not fire, with the marks of one in which it does: all five are marked."""
        row = draw.choice(self._silent(source, latent), 1)
        (found,) = self._contexts.with_activations(np.zeros(0, int), np.zeros(0, np.float32), row)
        activations = [0.0] * len(found.tokens)
        for place, value in enumerate(pattern.activations):
            at = place - pattern.focus + found.focus
            if 0 <= at < len(activations):
                activations[at] = value
        return Context(**{**vars(found), "activations": activations})

    def _excerpts(self, contexts: list[Context]) -> list[Excerpt]:
        """Tokens with steps of the ramp in place of activations; of subword tokens 32, as the protocol has it."""
        most = max((max(one.activations) for one in contexts), default=0.0)
        end = 2 * self._contexts.around
        return [
            {"tokens": one.tokens[:end], "steps": [step(value, most) for value in one.activations[:end]]}
            for one in contexts
        ]


_FEWER = "Ask for fewer --sets, leave the task out with --tasks, or index more rows (hiersae dashboard --tokens)."


def post_hoc_tree(lists: FiringLists, train: Array, usable: Array) -> Array:
    """The most informative parents of a flat dictionary, fitted on training rows as ``hiersae eval`` does."""
    rows = train if len(train) else usable
    rows = rows[:: max(1, -(-len(rows) // _TREE_ROWS))]
    place_m, latent_m = lists.at(rows)
    kept = FiringRows(lists.latents)
    kept.add(Firings(len(rows), lists.latents, place_m * lists.latents + latent_m, np.ones(len(place_m), np.float32)))
    return most_informative_parents(kept.pairs())


def _item(
    task: str,
    source: Condition,
    latents: list[int],
    decile: int,
    shown: list[list[Excerpt]],
    options: list[list[Excerpt]],
    key: int | None,
) -> dict[str, Any]:
    return {
        "task": task,
        "latents": [source.called(latent) for latent in latents],
        "rate": float(source.rate_F[latents[0]]),
        "decile": decile,
        "shown": shown,
        "options": options,
        "key": key,
    }


def _shuffled(last: int, draw: np.random.Generator) -> tuple[list[int], int]:
    """An order of 0 .. ``last``, and where ``last`` stands in it."""
    order = draw.permutation(last + 1).tolist()
    return order, order.index(last)


def _ids(number: int, draw: np.random.Generator) -> list[str]:
    """Distinct names that tell nothing of task, condition or order."""
    found = draw.choice(16**6, number, replace=False).tolist()
    return [f"{one:06x}" for one in found]
