"""What raters are asked, and by which rules: everything that is decided before the first answer.

Source of the tasks: ``docs/study.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.formats.study import Item, StudyFiles

EXAMPLE, CHILD, EDGE, LABEL, MATCH, CHECK = "example", "child", "edge", "label", "match", "check"
HIERARCHY, FLAT, SHUFFLED = "hierarchy", "flat", "shuffled"

# Shuffling parents changes no latent, so questions about single latents have no such condition.
CONDITIONS = {
    EXAMPLE: (HIERARCHY, FLAT),
    CHILD: (HIERARCHY, FLAT, SHUFFLED),
    EDGE: (HIERARCHY, FLAT, SHUFFLED),
    LABEL: (HIERARCHY, FLAT),
    MATCH: (HIERARCHY, FLAT),
}
COMPARISONS = ((HIERARCHY, FLAT), (HIERARCHY, SHUFFLED))
EDGE_ANSWERS = ("yes", "no", "unsure")
LONGEST_LABEL = 200  # characters


@dataclass(frozen=True)
class Task:
    """A kind of question.

    Attributes:
        title: what it is called in tables.
        outcome: the figure that is computed.
        chance: the share that guessing gets; None if there is no right answer.
        question: what a rater reads.
        help: how to answer.
    """

    title: str
    outcome: str
    chance: float | None
    question: str
    help: str


TASKS = {
    EXAMPLE: Task(
        "Example intruder",
        "accuracy",
        0.2,
        "Which of these five texts does not belong?",
        "In four of them the marks point to one thing that they share; in the fifth they are at random places.",
    ),
    CHILD: Task(
        "Child intruder",
        "accuracy",
        0.25,
        "Which of these four groups does not belong?",
        "Each group shows texts of one kind. Three kinds are parts of something wider; the fourth is not.",
    ),
    EDGE: Task(
        "Edge rating",
        "share of yes",
        None,
        "Is B a special case of A?",
        "Say yes if what the marks in B point to is a narrower kind of what the marks in A point to.",
    ),
    LABEL: Task(
        "Free label",
        "words",
        None,
        "What do the marks have in common?",
        "A few words, as specific as the texts allow. Another rater will use them to find the texts.",
    ),
    MATCH: Task(
        "Label matching",
        "accuracy",
        0.25,
        "Which group do these words describe?",
        "Another rater wrote them about one of the four groups, after reading other texts of it.",
    ),
    CHECK: Task("Attention check", "accuracy", None, "A check of attention", ""),
}


@dataclass(frozen=True)
class Rules:
    """Which raters and answers are left out of the analysis, decided beforehand.

    Attributes:
        least_checks: share of the attention checks that a rater must pass.
        least_seconds: a rater's median time of an answer must not be shorter.
        least_answered: share of the session that a rater must have answered.
        fastest_ms: a faster answer is left out.
    """

    least_checks: float = 0.75
    least_seconds: float = 2.0
    least_answered: float = 0.5
    fastest_ms: int = 500


def correct(item: Item, value: str) -> bool | None:
    """Whether an answer is right; None if the item has no right answer. Of an edge, whether it is affirmed."""
    if item.task == EDGE:
        return value == "yes"
    return None if item.key is None else value == str(item.key)


def allowed(item: Item, value: str) -> bool:
    """Whether a value is a possible answer to the item."""
    if item.task == LABEL:
        return 0 < len(value) <= LONGEST_LABEL and value.isprintable()
    if item.task == EDGE:
        return value in EDGE_ANSWERS
    return value in map(str, range(len(item.options)))


def label_item(study: StudyFiles, match: Item) -> Item:
    """The item whose labels are matched in another: the one of the same set and condition."""
    return next(
        item
        for item in study.items.values()
        if item.task == LABEL and (item.set, item.condition) == (match.set, match.condition)
    )


def session(study: StudyFiles, rater: int) -> list[Item]:
    """The items of a rater, in their order: the same at every call.

    Tasks come in blocks, labels first and matching last; conditions are mixed within each block, and checks are in
    between. With ``sets_per_rater`` every rater has that many whole matched sets of each task, and the numbers of
    raters of the sets differ by one at most. No rater matches a latent that they labelled: in each set, raters of even
    and of odd number take turns.
    """
    design = study.design
    random = np.random.default_rng((design["seed"], 1, rater))
    by_task: dict[str, list[Item]] = {}
    for item in study.items.values():
        by_task.setdefault(item.task, []).append(item)
    middle = [task for task in design["tasks"] if task in (EXAMPLE, CHILD, EDGE)]
    blocks = [LABEL, *random.permutation(middle).tolist(), MATCH] if middle else [LABEL, MATCH]
    items: list[Item] = []
    for task in blocks:
        block = [item for item in by_task.get(task, []) if item.set in _sets(design, task, rater)]
        items += [block[place] for place in random.permutation(len(block)).tolist()]
    first_match = next((place for place, item in enumerate(items) if item.task == MATCH), len(items))
    for item in by_task.get(CHECK, []):
        items.insert(int(random.integers(1, max(2, first_match))), item)
    return items


def _sets(design: dict[str, Any], task: str, rater: int) -> set[int]:
    """The matched sets of a task in a rater's session."""
    name = LABEL if task == MATCH else task
    total = int(design["sets"].get(name, 0))
    count = min(int(design["sets_per_rater"]) or total, total)
    order = np.random.default_rng((design["seed"], 2)).permutation(total)
    sets = {int(order[(rater * count + place) % total]) for place in range(count)} if total else set()
    if task in (LABEL, MATCH):
        sets = {number for number in sets if ((rater + number) % 2 == 0) == (task == LABEL)}
    return sets
