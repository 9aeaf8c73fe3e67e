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

# Of items drawn from an index. Shuffling parents changes no latent, so questions about single latents have no such
# condition.
CONDITIONS = {
    EXAMPLE: (HIERARCHY, FLAT),
    CHILD: (HIERARCHY, FLAT, SHUFFLED),
    EDGE: (HIERARCHY, FLAT, SHUFFLED),
    LABEL: (HIERARCHY, FLAT),
    MATCH: (HIERARCHY, FLAT),
}
EDGE_ANSWERS = ("yes", "no", "unsure")
LONGEST_LABEL = 200  # characters


@dataclass(frozen=True)
class Task:
    """A kind of question.

    Attributes:
        title: what it is called in tables.
        outcome: the figure that is computed.
        question: what a rater reads; ``{number}`` and ``{others}`` stand for how many options there are, and for one
            less.
        help: how to answer.
    """

    title: str
    outcome: str
    question: str
    help: str


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_OPTIONS = len(_NUMBERS) - 1  # a key for each

TASKS = {
    EXAMPLE: Task(
        "Example intruder",
        "accuracy",
        "Which of these {number} texts does not belong?",
        "In {others} of them the marks point to one thing that they share; in the other they are at random places.",
    ),
    CHILD: Task(
        "Child intruder",
        "accuracy",
        "Which of these {number} groups does not belong?",
        "Each group shows texts of one kind. All kinds but one are parts of something wider. Which one is not?",
    ),
    EDGE: Task(
        "Edge rating",
        "share of yes",
        "Is B a special case of A?",
        "Say yes if what the marks in B point to is a narrower kind of what the marks in A point to.",
    ),
    LABEL: Task(
        "Free label",
        "words",
        "What do the marks have in common?",
        "A few words, as specific as the texts allow. Another rater will use them to find the texts.",
    ),
    MATCH: Task(
        "Label matching",
        "accuracy",
        "Which group do these words describe?",
        "Somebody wrote them about one of the {number} groups, after reading other texts of it.",
    ),
    CHECK: Task("Attention check", "accuracy", "A check of attention", ""),
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


def wording(task: str, options: int) -> tuple[str, str]:
    """The question of a task, and how to answer it, if there are so many options."""
    words = {"number": _NUMBERS[options], "others": _NUMBERS[max(options - 1, 0)]}
    return TASKS[task].question.format(**words), TASKS[task].help.format(**words)


def chance(item: Item) -> float | None:
    """The share of right answers that guessing gets; None if there is no right answer."""
    return None if item.key is None else 1 / len(item.options)


def chances(study: StudyFiles) -> dict[str, float | None]:
    """What guessing gets, by task."""
    return {item.task: chance(item) for item in study.items.values()}


def comparisons(conditions: tuple[str, ...]) -> list[tuple[str, str]]:
    """The pairs of conditions that are compared: the first with each other one."""
    return [(conditions[0], other) for other in conditions[1:]]


def label_item(study: StudyFiles, match: Item) -> Item:
    """The item whose labels are matched in another: the one of the same set and condition."""
    return next(
        item
        for item in study.items.values()
        if item.task == LABEL and (item.set, item.condition) == (match.set, match.condition)
    )


def writes_labels(design: dict[str, Any], rater: int) -> bool:
    """Whether a rater is in the first half of those planned, who write the labels that the others match."""
    return rater < (int(design["raters"]) + 1) // 2


def session(study: StudyFiles, rater: int) -> list[Item]:
    """The items of a rater, in their order: the same at every call.

    Tasks come in blocks, labels first and matching last; conditions are mixed within each block, and checks are in
    between. With ``sets_per_rater`` every rater has that many whole matched sets of each task, and the numbers of
    raters of the sets differ by one at most. If raters write labels, the first half of the raters write and the
    second half match them, so nobody has to wait in the middle of a session, or matches a latent that they labelled.
    """
    design = study.design
    random = np.random.default_rng((design["seed"], 1, rater))
    by_task: dict[str, list[Item]] = {}
    for item in study.items.values():
        by_task.setdefault(item.task, []).append(item)
    if LABEL in by_task:
        by_task.pop(MATCH if writes_labels(design, rater) else LABEL, None)
    middle = [task for task in design["tasks"] if task in (EXAMPLE, CHILD, EDGE)]
    items: list[Item] = []
    for task in [LABEL, *random.permutation(middle).tolist(), MATCH]:
        sets = _sets(design, task, rater)
        block = [item for item in by_task.get(task, []) if item.set in sets]
        items += [block[place] for place in random.permutation(len(block)).tolist()]
    for item in by_task.get(CHECK, []):
        items.insert(int(random.integers(1, max(2, len(items)))), item)
    return items


def _sets(design: dict[str, Any], task: str, rater: int) -> set[int]:
    """The matched sets of a task in a rater's session."""
    total = int(design["sets"].get(LABEL if task == MATCH else task, 0))
    count = min(int(design["sets_per_rater"]) or total, total)
    if task == MATCH and not writes_labels(design, rater):
        rater -= (int(design["raters"]) + 1) // 2  # so that what is matched first has been labelled first
    order = np.random.default_rng((design["seed"], 2)).permutation(total)
    return {int(order[(rater * count + place) % total]) for place in range(count)} if total else set()
