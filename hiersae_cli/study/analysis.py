"""The analysis of a study's answers, by the rules that were registered.

Legend of shapes: R raters, I items, S matched sets.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.formats.study import Item, StudyFiles
from hiersae_cli.metrics.agreement import alpha_resampled, crossed_mean, krippendorff_alpha
from hiersae_cli.metrics.intervals import Share, holm
from hiersae_cli.study.protocol import (
    CHECK,
    COMPARISONS,
    CONDITIONS,
    EDGE_ANSWERS,
    LABEL,
    TASKS,
    Rules,
    correct,
    session,
)
from hiersae_cli.study.store import HUMAN, MODEL, SIMULATED, Answer

Array = np.ndarray[Any, Any]
Who = tuple[str, int, str]


@dataclass(frozen=True)
class Settings:
    """How it is computed; anything but what the design says is a departure."""

    confidence: float
    resamples: int
    seed: int
    keep_all: bool = False


def analyse(study: StudyFiles, answers: Sequence[Answer], settings: Settings) -> dict[str, Any]:
    """All figures as plain values: of people (or of simulated raters), and of language models by themselves."""
    rules = Rules(**study.design["rules"])
    people = [one for one in answers if one.kind in (HUMAN, SIMULATED)]
    models = [one for one in answers if one.kind == MODEL]
    excluded = exclusions(study, people, rules)
    kept = people
    if not settings.keep_all:
        kept = [one for one in people if _who(one) not in excluded and one.ms >= rules.fastest_ms]
    analysed = [one for one in kept if study.items[one.item].task != CHECK]
    return {
        "raters": len({_who(one) for one in people}),
        "answers": len(people),
        "excluded": [{"rater": who[1], "why": why} for who, why in sorted(excluded.items())],
        "answers_too_fast": sum(one.ms < rules.fastest_ms for one in people if _who(one) not in excluded),
        "answers_analysed": len(analysed),
        **figures(study, analysed, settings),
        "models": {
            name: figures(study, [one for one in models if one.name == name and _scored(study, one)], settings)
            for name in sorted({one.name for one in models})
        },
    }


def exclusions(study: StudyFiles, answers: Sequence[Answer], rules: Rules) -> dict[Who, str]:
    """Who is left out, and why."""
    found = {}
    for who in sorted({_who(one) for one in answers}):
        own = [one for one in answers if _who(one) == who]
        checks = [one.value == str(study.items[one.item].key) for one in own if study.items[one.item].task == CHECK]
        median, share = float(np.median([one.ms for one in own])) / 1000, len(own) / len(session(study, who[1]))
        if checks and np.mean(checks) < rules.least_checks:
            found[who] = f"passed {sum(checks)} of {len(checks)} attention checks"
        elif median < rules.least_seconds:
            found[who] = f"median time of an answer {median:.1f} s"
        elif share < rules.least_answered:
            found[who] = f"answered {share:.0%} of the session"
    return found


def figures(study: StudyFiles, answers: Sequence[Answer], settings: Settings) -> dict[str, Any]:
    """Shares, differences, models, agreement and times of some answers."""
    shares, differences, agreement, models = [], [], [], []
    for task in _tasks(study):
        items = [item for item in study.items.values() if item.task == task]
        given = [one for one in answers if study.items[one.item].task == task]
        if not given:
            continue
        table = AnswerTable(items, given)
        for condition in CONDITIONS[task]:
            shares.append(_share(table, task, condition, settings))
            agreement.append(_agreement(table, task, condition, settings))
        for first, other in COMPARISONS:
            if other in CONDITIONS[task]:
                differences.append(_difference(table, task, first, other, settings))
        models += _equations(table, task, settings)
    corrected = holm([one["p"] for one in differences])
    for one, p in zip(differences, corrected, strict=True):
        one["p_holm"] = p
    return {
        "shares": shares,
        "differences": differences,
        "equations": models,
        "agreement": agreement,
        "seconds": _seconds(study, answers),
    }


class AnswerTable:
    """The answers to a task: numbers of values and outcomes, (R, I)."""

    def __init__(self, items: list[Item], answers: Sequence[Answer]):
        self.items = items
        self.who = sorted({_who(one) for one in answers})
        self.value_RI = np.full((len(self.who), len(items)), -1)
        self.outcome_RI = np.full((len(self.who), len(items)), np.nan)
        row = {who: place for place, who in enumerate(self.who)}
        column = {item.id: place for place, item in enumerate(items)}
        for one in answers:
            item = items[column[one.item]]
            place = row[_who(one)], column[one.item]
            outcome = correct(item, one.value)
            self.value_RI[place] = value_number(one.value)
            self.outcome_RI[place] = np.nan if outcome is None else outcome
        self.condition_I = np.array([item.condition for item in items])
        self.set_I = np.array([item.set for item in items])

    def by_set(self, condition: str) -> Array:
        """The outcomes of a condition, (R, S)."""
        found = np.full((len(self.who), int(self.set_I.max()) + 1), np.nan)
        chosen = np.flatnonzero(self.condition_I == condition)
        found[:, self.set_I[chosen]] = self.outcome_RI[:, chosen]
        return found


def value_number(value: str) -> int:
    """A value as a number, for agreement."""
    return EDGE_ANSWERS.index(value) if value in EDGE_ANSWERS else int(value)


def _share(table: AnswerTable, task: str, condition: str, settings: Settings) -> dict[str, Any]:
    y_RS = table.by_set(condition)
    n, right = int(np.isfinite(y_RS).sum()), int(np.nansum(y_RS))
    share = Share(right, n).estimate(settings.confidence) if n else None
    both = crossed_mean(y_RS, settings.confidence, settings.resamples, settings.seed)
    return {
        "task": task,
        "condition": condition,
        "outcome": TASKS[task].outcome,
        "chance": TASKS[task].chance,
        "n": n,
        "value": share.value if share else None,
        "low": share.low if share else None,
        "high": share.high if share else None,
        "clustered_low": _plain(max(both.low, 0.0)),
        "clustered_high": _plain(min(both.high, 1.0)),
    }


def _difference(table: AnswerTable, task: str, first: str, other: str, settings: Settings) -> dict[str, Any]:
    cells_RS = table.by_set(first) - table.by_set(other)
    found = crossed_mean(cells_RS, settings.confidence, settings.resamples, settings.seed)
    return {
        "task": task,
        "first": first,
        "other": other,
        "value": _plain(found.value),
        "low": _plain(found.low),
        "high": _plain(found.high),
        "p": _plain(found.p),
        "pairs": found.n,
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
        "alpha": _plain(alpha),
        "low": ends[0],
        "high": ends[1],
        "items": int(((value_RU >= 0).sum(0) >= 2).sum()),
    }


def _equations(table: AnswerTable, task: str, settings: Settings) -> list[dict[str, Any]]:
    """Odds ratios of the hierarchy to each other condition, by generalised estimating equations.

    Clustered once by matched set and once by rater: each takes account of one of the two. Left out where a
    condition has only one outcome, so that no finite odds ratio fits. Source: Liang and Zeger (1986), Biometrika 73.
    """
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    row, column = np.nonzero(np.isfinite(table.outcome_RI))
    y_n, condition_n = table.outcome_RI[row, column], table.condition_I[column]
    reference, *others = CONDITIONS[task]
    shares = [y_n[condition_n == name].mean() if (condition_n == name).any() else 0.0 for name in CONDITIONS[task]]
    if any(share in (0.0, 1.0) for share in shares):
        return []
    design = np.stack([np.ones(len(y_n)), *((condition_n == name).astype(float) for name in others)], 1)
    found = []
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
            # The coefficient is of the other condition against the hierarchy; shown the other way round.
            found.append(
                {
                    "task": task,
                    "first": reference,
                    "other": name,
                    "clusters": clusters,
                    "odds_ratio": _plain(math.exp(-model.params[place])),
                    "low": _plain(math.exp(-ends[place][1])),
                    "high": _plain(math.exp(-ends[place][0])),
                    "p": _plain(float(model.pvalues[place])),
                }
            )
    return found


def _seconds(study: StudyFiles, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    found = []
    for task in (*_tasks(study), LABEL):
        for condition in CONDITIONS[task]:
            ms = [
                one.ms
                for one in answers
                if (study.items[one.item].task, study.items[one.item].condition) == (task, condition)
            ]
            if ms:
                quarter, median, three = (np.quantile(ms, (0.25, 0.5, 0.75)) / 1000).tolist()
                found.append(
                    {
                        "task": task,
                        "condition": condition,
                        "median": median,
                        "low": quarter,
                        "high": three,
                        "n": len(ms),
                    }
                )
    return found


def departures(
    study: StudyFiles,
    answers: Sequence[Answer],
    settings: Settings,
    registered: str,
    design_sha256: str,
    stopped: bool,
    simulated: bool,
) -> list[str]:
    """In what the analysis is not the registered one, in words."""
    design, found = study.design, []
    if not registered:
        found.append("the pre-registration is missing")
    elif f"`{design_sha256}`" not in registered or f"`{study.sha256}`" not in registered:
        found.append("the pre-registration is of another design or of other items than those analysed")
    if settings.confidence != design["confidence"]:
        found.append(f"the level is {settings.confidence}; registered was {design['confidence']}")
    if settings.resamples != design["resamples"]:
        found.append(f"{settings.resamples} resamples; registered were {design['resamples']}")
    if settings.keep_all:
        found.append("nobody is left out, against the registered rules")
    people = [one for one in answers if one.kind != MODEL]
    done: Mapping[int, int] = {
        rater: sum(one.rater == rater for one in people) for rater in {one.rater for one in people}
    }
    if len(done) != design["raters"]:
        found.append(f"{len(done)} raters answered; registered were {design['raters']}")
    open_ = sum(count < len(session(study, rater)) for rater, count in done.items())
    if open_ and not stopped and not simulated:
        found.append(f"{open_} sessions are unfinished, and the study was not stopped: this is a look at the data")
    return found


def _tasks(study: StudyFiles) -> list[str]:
    """The tasks that have an outcome, in the order of the protocol."""
    there = {item.task for item in study.items.values()}
    return [task for task in CONDITIONS if task in there and task != LABEL]


def _scored(study: StudyFiles, answer: Answer) -> bool:
    return study.items[answer.item].task != CHECK


def _who(answer: Answer) -> Who:
    return answer.kind, answer.rater, answer.name


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
