"""Answers of simulated raters to the items of a study.

Legend of shapes: R raters, S matched sets, C conditions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hiersae_cli.formats.study import Item, StudyFiles
from hiersae_cli.study.protocol import CHECK, CHILD, EDGE, EXAMPLE, LABEL, MATCH, chances, session, writes_labels
from hiersae_cli.study.simulation import Raters, probabilities, truth
from hiersae_cli.study.store import SIMULATED, Answer

_SCORED = (EXAMPLE, CHILD, EDGE, MATCH)
_SECONDS = 12.0  # median time of an answer


def rehearse(
    study: StudyFiles, raters: Raters, number: int, careless: int, seed: int
) -> tuple[list[Answer], dict[str, dict[str, float]]]:
    """The answers of ``number`` raters to their sessions; and the planted share of right ones, by task and condition.

    The last ``careless`` raters guess every answer, in a second each.
    """
    tasks = [task for task in _SCORED if any(item.task == task for item in study.items.values())]
    sets = max((item.set for item in study.items.values()), default=0) + 1
    right_of: dict[str, Any] = {}  # probability of a right answer, by task
    guessing = {task: share or 0.0 for task, share in chances(study).items()}
    for place, task in enumerate(tasks):
        right_of[task] = probabilities(raters, study.conditions(task), guessing[task], (number, sets), (seed, place))
    labellers = [rater for rater in range(number) if writes_labels(study.design, rater)]
    random = np.random.default_rng((seed, 99))
    answers = []
    for rater in range(number):
        guesses = rater >= number - careless
        for item in session(study, rater):
            if item.task == LABEL:
                right = 1.0
            elif item.task == CHECK:
                right = 1 - raters.lapse
            else:
                right = right_of[item.task][rater, item.set, study.conditions(item.task).index(item.condition)]
            value = _value(item, right, guesses, random)
            ms = int(1000 * (1.0 if guesses else _SECONDS) * np.exp(random.normal(0, 0.4)))
            writer = labellers[rater % len(labellers)] if item.task == MATCH and not item.words else None
            answers.append(Answer(SIMULATED, rater, "", item.id, value, ms, label_of=writer))
    planted = {
        task: {name: round(truth(raters, name, guessing[task]), 4) for name in study.conditions(task)} for task in tasks
    }
    return answers, planted


def _value(item: Item, right: float, guesses: bool, random: np.random.Generator) -> str:
    if item.task == LABEL:
        return "simulated"
    if item.task == EDGE:
        if guesses:
            return str(random.choice(("yes", "no", "unsure")))
        return "yes" if random.random() < right else str(random.choice(("no", "no", "unsure")))
    options = range(len(item.options))
    if guesses:
        return str(int(random.integers(len(options))))
    if random.random() < right:
        return str(item.key)
    return str(int(random.choice([option for option in options if option != item.key])))
