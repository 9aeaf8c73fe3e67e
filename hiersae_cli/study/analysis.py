"""The analysis of a study's answers, by the rules that were registered.

Legend of shapes: R raters, I items, S matched sets.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.formats.numbers import finite_or_none
from hiersae_cli.formats.study import DESIGN_FILE, HINT, Item, StudyFiles
from hiersae_cli.formats.text import counted
from hiersae_cli.metrics.agreement import alpha_resampled, crossed_mean, krippendorff_alpha
from hiersae_cli.metrics.intervals import Share, holm
from hiersae_cli.reading import reading
from hiersae_cli.study.protocol import (
    CHECK,
    EDGE_ANSWERS,
    LABEL,
    TASKS,
    Rules,
    chance,
    comparisons,
    correct,
    session,
)
from hiersae_cli.study.store import HUMAN, MODEL, SIMULATED, Answer
from hiersae_cli.study.with_people import agreement_with_people

Array = np.ndarray[Any, Any]
Who = tuple[str, int, str]


@dataclass(frozen=True)
class Settings:
    """How the figures are computed; a setting other than the design's is a departure."""

    confidence: float
    resamples: int
    seed: int
    keep_all: bool = False


def analyse(study: StudyFiles, answers: Sequence[Answer], settings: Settings) -> dict[str, Any]:
    """All figures as plain values: of people (or of simulated raters), and of language models by themselves."""
    rules = registered_rules(study)
    people = [answer for answer in answers if answer.kind in (HUMAN, SIMULATED)]
    by_models = [answer for answer in answers if answer.kind == MODEL]
    scored = [answer for answer in by_models if _scored(study, answer)]
    excluded = exclusions(study, people, rules)
    counts = included(study, people, settings)
    analysed = [answer for answer, whether in zip(people, counts, strict=True) if whether and _scored(study, answer)]
    return {
        "simulated": any(answer.kind == SIMULATED for answer in people),
        "raters": len({_who(answer) for answer in people}),
        "answers": len(people),
        "excluded": [{"rater": who[1], "why": why} for who, why in sorted(excluded.items())],
        "answers_too_fast": sum(answer.ms < rules.fastest_ms for answer in people if _who(answer) not in excluded),
        "answers_analysed": len(analysed),
        **figures(study, analysed, settings),
        "models": {
            name: figures(study, of_model, settings)
            | {
                "with_people": agreement_with_people(
                    study, analysed, of_model, settings.confidence, settings.resamples, settings.seed
                )
            }
            for name in sorted({answer.name for answer in by_models})
            for of_model in [[answer for answer in scored if answer.name == name]]
        },
    }


def included(study: StudyFiles, answers: Sequence[Answer], settings: Settings) -> list[bool]:
    """Whether each answer counts by the rules; language models are never excluded."""
    rules = registered_rules(study)
    excluded = exclusions(study, [answer for answer in answers if answer.kind != MODEL], rules)
    return [
        settings.keep_all or answer.kind == MODEL or (_who(answer) not in excluded and answer.ms >= rules.fastest_ms)
        for answer in answers
    ]


def registered_rules(study: StudyFiles) -> Rules:
    """The rules of a study's design; raises ``FileError`` for other names than those of ``Rules``."""
    with reading(study.path / DESIGN_FILE, HINT):
        return Rules(**study.design["rules"])


def exclusions(study: StudyFiles, answers: Sequence[Answer], rules: Rules) -> dict[Who, str]:
    """Who is left out, and why."""
    reasons = {}
    for who in sorted({_who(answer) for answer in answers}):
        by_rater = [answer for answer in answers if _who(answer) == who]
        checks = [answer for answer in by_rater if study.items[answer.item].task == CHECK]
        passed = sum(answer.value == str(study.items[answer.item].key) for answer in checks)
        median = float(np.median([answer.ms for answer in by_rater])) / 1000
        share = len(by_rater) / len(session(study, who[1]))
        if checks and passed / len(checks) < rules.least_checks:
            reasons[who] = f"passed {passed} of {len(checks)} attention checks"
        elif median < rules.least_seconds:
            reasons[who] = f"median time of an answer {median:.1f} s"
        elif share < rules.least_answered:
            reasons[who] = f"answered {share:.0%} of the session"
    return reasons


def figures(study: StudyFiles, answers: Sequence[Answer], settings: Settings) -> dict[str, Any]:
    """Shares, differences, equations, agreement and times of some answers."""
    shares, differences, agreement, equations = [], [], [], []
    for task in _tasks(study):
        items = [item for item in study.items.values() if item.task == task]
        of_task = [answer for answer in answers if study.items[answer.item].task == task]
        if not of_task:
            continue
        table = AnswerTable(items, of_task)
        conditions = study.conditions(task)
        for condition in conditions:
            shares.append(_share(table, task, condition, settings))
            agreement.append(_agreement(table, task, condition, settings))
        for first, other in comparisons(conditions):
            differences.append(_difference(table, task, first, other, settings))
        equations += _equations(table, task, conditions, settings)
    corrected = holm([difference["p"] for difference in differences])
    for difference, p in zip(differences, corrected, strict=True):
        difference["p_holm"] = p
    return {
        "shares": shares,
        "differences": differences,
        "equations": equations,
        "agreement": agreement,
        "seconds": _seconds(study, answers),
    }


class AnswerTable:
    """The answers to a task as tables of raters by items.

    Attributes:
        items: I.
        who: the raters, R.
        value_RI: the number of each answer's value; -1 if there is no answer.
        outcome_RI: 1 for an answer that counts, 0 for one that does not; NaN if there is none.
    """

    def __init__(self, items: list[Item], answers: Sequence[Answer]):
        self.items = items
        self.who = sorted({_who(answer) for answer in answers})
        self.value_RI = np.full((len(self.who), len(items)), -1)
        self.outcome_RI = np.full((len(self.who), len(items)), np.nan)
        row = {who: place for place, who in enumerate(self.who)}
        column = {item.id: place for place, item in enumerate(items)}
        for answer in answers:
            place = row[_who(answer)], column[answer.item]
            outcome = correct(items[column[answer.item]], answer.value)
            self.value_RI[place] = value_number(answer.value)
            self.outcome_RI[place] = np.nan if outcome is None else outcome
        self.condition_I = np.array([item.condition for item in items])
        self.set_I = np.array([item.set for item in items])

    def by_set(self, condition: str) -> Array:
        """The outcomes of a condition, (R, S)."""
        outcome_RS = np.full((len(self.who), int(self.set_I.max()) + 1), np.nan)
        items = np.flatnonzero(self.condition_I == condition)
        outcome_RS[:, self.set_I[items]] = self.outcome_RI[:, items]
        return outcome_RS


def value_number(value: str) -> int:
    """A value as a number, for agreement."""
    return EDGE_ANSWERS.index(value) if value in EDGE_ANSWERS else int(value)


def _share(table: AnswerTable, task: str, condition: str, settings: Settings) -> dict[str, Any]:
    y_RS = table.by_set(condition)
    n, right = int(np.isfinite(y_RS).sum()), int(np.nansum(y_RS))
    share = Share(right, n).estimate(settings.confidence) if n else None
    clustered = crossed_mean(y_RS, settings.confidence, settings.resamples, settings.seed)
    return {
        "task": task,
        "condition": condition,
        "outcome": TASKS[task].outcome,
        "chance": chance(table.items[0]),
        "n": n,
        "value": share.value if share else None,
        "low": share.low if share else None,
        "high": share.high if share else None,
        "clustered_low": finite_or_none(max(clustered.low, 0.0)),
        "clustered_high": finite_or_none(min(clustered.high, 1.0)),
    }


def _difference(table: AnswerTable, task: str, first: str, other: str, settings: Settings) -> dict[str, Any]:
    cells_RS = table.by_set(first) - table.by_set(other)
    mean = crossed_mean(cells_RS, settings.confidence, settings.resamples, settings.seed)
    return {
        "task": task,
        "first": first,
        "other": other,
        "value": finite_or_none(mean.value),
        "low": finite_or_none(mean.low),
        "high": finite_or_none(mean.high),
        "p": finite_or_none(mean.p),
        "pairs": mean.n,
        "raters": int(np.isfinite(cells_RS).any(1).sum()),
        "sets": int(np.isfinite(cells_RS).any(0).sum()),
    }


def _agreement(table: AnswerTable, task: str, condition: str, settings: Settings) -> dict[str, Any]:
    value_RU = table.value_RI[:, table.condition_I == condition]
    resampled = alpha_resampled(value_RU, settings.resamples, settings.seed)
    resampled = resampled[np.isfinite(resampled)]
    alpha = krippendorff_alpha(value_RU)
    tail = (1 - settings.confidence) / 2
    ends = (
        np.quantile(resampled, (tail, 1 - tail)).tolist() if len(resampled) and math.isfinite(alpha) else [None, None]
    )
    return {
        "task": task,
        "condition": condition,
        "alpha": finite_or_none(alpha),
        "low": ends[0],
        "high": ends[1],
        "items": int(((value_RU >= 0).sum(0) >= 2).sum()),
    }


def _equations(table: AnswerTable, task: str, conditions: Sequence[str], settings: Settings) -> list[dict[str, Any]]:
    """Odds ratios of the hierarchy to each other condition, by generalised estimating equations.

    Clustered once by matched set and once by rater: each accounts for one of the two. Left out if a condition has
    only one outcome, so that no finite odds ratio fits. Source: Liang and Zeger (1986), Biometrika 73.
    """
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    row, column = np.nonzero(np.isfinite(table.outcome_RI))
    y_n, condition_n = table.outcome_RI[row, column], table.condition_I[column]
    reference, *others = conditions
    shares = [y_n[condition_n == name].mean() if (condition_n == name).any() else 0.0 for name in conditions]
    if any(share in (0.0, 1.0) for share in shares):
        return []
    design = np.stack([np.ones(len(y_n)), *((condition_n == name).astype(float) for name in others)], 1)
    ratios = []
    for clusters, group_n in (("matched sets", table.set_I[column]), ("raters", row)):
        if len(np.unique(group_n)) < 3:
            continue
        order = np.argsort(group_n, kind="stable")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = GEE(
                y_n[order], design[order], groups=group_n[order], family=Binomial(), cov_struct=Exchangeable()
            ).fit()
        ends = model.conf_int(1 - settings.confidence)
        for place, name in enumerate(others, 1):
            # The coefficient is of the other condition against the hierarchy; the ratio goes the other way.
            ratios.append(
                {
                    "task": task,
                    "first": reference,
                    "other": name,
                    "clusters": clusters,
                    "odds_ratio": finite_or_none(math.exp(-model.params[place])),
                    "low": finite_or_none(math.exp(-ends[place][1])),
                    "high": finite_or_none(math.exp(-ends[place][0])),
                    "p": finite_or_none(float(model.pvalues[place])),
                }
            )
    return ratios


def _seconds(study: StudyFiles, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Median and quartiles of the times of answers."""
    ms: dict[tuple[str, str], list[int]] = {}
    for answer in answers:
        item = study.items[answer.item]
        ms.setdefault((item.task, item.condition), []).append(answer.ms)
    rows = []
    for task in (*_tasks(study), LABEL):
        for condition in study.conditions(task):
            if times := ms.get((task, condition)):
                low, median, high = (np.quantile(times, (0.25, 0.5, 0.75)) / 1000).tolist()
                figures = {"median": median, "low": low, "high": high, "n": len(times)}
                rows.append({"task": task, "condition": condition, **figures})
    return rows


def departures(
    study: StudyFiles,
    answers: Sequence[Answer],
    settings: Settings,
    registered: str,
    design_sha256: str,
    stopped: bool,
    simulated: bool,
) -> list[str]:
    """How the analysis differs from the registered one, as sentences."""
    design, sentences = study.design, []
    if not registered:
        sentences.append("the pre-registration is missing")
    elif f"`{design_sha256}`" not in registered or f"`{study.sha256}`" not in registered:
        sentences.append("the pre-registration belongs to another design or to other items")
    if settings.confidence != design["confidence"]:
        sentences.append(f"the level is {settings.confidence} instead of the registered {design['confidence']}")
    if settings.resamples != design["resamples"]:
        sentences.append(f"{settings.resamples} resamples instead of the registered {design['resamples']}")
    if settings.keep_all:
        sentences.append("nobody is left out, against the registered rules")
    answered = Counter(answer.rater for answer in answers if answer.kind != MODEL)
    if len(answered) != design["raters"]:
        sentences.append(f"{counted(len(answered), 'rater')} answered instead of the registered {design['raters']}")
    unfinished = sum(count < len(session(study, rater)) for rater, count in answered.items())
    if unfinished and not stopped and not simulated:
        sentences.append(
            f"{counted(unfinished, 'session')} {'is' if unfinished == 1 else 'are'} unfinished, and the study was not "
            "stopped: this is a look at the data"
        )
    return sentences


def _tasks(study: StudyFiles) -> list[str]:
    """The tasks that have an outcome, in the order of the protocol."""
    tasks = {item.task for item in study.items.values()}
    return [task for task in TASKS if task in tasks and task not in (LABEL, CHECK)]


def _scored(study: StudyFiles, answer: Answer) -> bool:
    """Whether an answer is to an item, not to an attention check."""
    return study.items[answer.item].task != CHECK


def _who(answer: Answer) -> Who:
    return answer.kind, answer.rater, answer.name
