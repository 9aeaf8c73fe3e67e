"""What is written before the first answer: how many raters and items a study needs, and the pre-registration."""

from __future__ import annotations

from typing import Any

from hiersae_cli.formats.study import fingerprint
from hiersae_cli.study.protocol import EDGE, LABEL, MATCH, TASKS, comparisons, wording
from hiersae_cli.study.simulation import Raters, effect_of, planned_power, sets_for

_RATERS = (5, 10, 20, 40)
ASSUMED = Raters()


def plan(design: dict[str, Any], chances: dict[str, float | None]) -> dict[str, Any]:
    """The power of the planned study for each task, and how many sets various numbers of raters need for it.

    Raters are assumed to answer in the second condition as ``ASSUMED`` do; an edge cannot be guessed right.

    Args:
        design: as in ``study.json``, without the plan.
        chances: what guessing gets, by task.
    """
    plans: dict[str, Any] = {}
    raters, effect, confidence, per_rater = (
        design[key] for key in ("raters", "effect", "confidence", "sets_per_rater")
    )
    for task in _scored(design):
        pairs = comparisons(tuple(design["conditions"][task]))
        if not pairs:
            plans[task] = {"power": None, "why": "there is only one condition", "sets_needed": {}}
            continue
        first, other = pairs[0]
        chance = chances.get(task) or 0.0
        try:
            model = effect_of(ASSUMED, other, first, chance, effect)
        except ValueError as error:
            plans[task] = {"power": None, "why": str(error), "sets_needed": {}}
            continue

        def answering(number: int, task: str = task) -> int:
            """How many of the raters answer the task: labels that raters write are matched by half of them."""
            return max(1, number // 2) if task == MATCH and LABEL in chances else number

        shape = answering(raters), design["sets"][LABEL if task == MATCH else task]
        reached = planned_power(model, (first, other), chance, shape, effect, confidence, per_rater)
        needed = {
            str(number): sets_for(
                model, (first, other), chance, answering(number), effect, confidence, design["power"], per_rater
            )
            for number in sorted({*_RATERS, raters})
        }
        plans[task] = {"power": round(reached, 3), "sets_needed": needed}
    return plans


def power_text(power: float, confidence: float) -> str:
    """A power as a percentage; no test at a level finds less than the level, so less says that it is too small."""
    level = 1 - confidence
    return f"below {100 * level:.3g}%" if power < level else f"{power:.0%}"


def _scored(design: dict[str, Any]) -> list[str]:
    """The tasks that have an outcome."""
    return [MATCH if task == LABEL else task for task in design["tasks"]]


def text(design: dict[str, Any], inputs: dict[str, str], items_sha256: str, chances: dict[str, float | None]) -> str:
    """The pre-registration as Markdown, to be deposited where nobody can change it."""
    rules = design["rules"]
    scored = _scored(design)
    lines = [
        "# Pre-registration",
        "",
        "Written by `hiersae study new` before the first answer. "
        "Deposit it (OSF, AsPredicted, a signed commit) before raters begin.",
        "",
        f"- Design: `{fingerprint(design)}`",
        f"- Items: `{items_sha256}`",
        *(f"- `{name}`: `{value}`" for name, value in inputs.items()),
        "",
        "## Hypotheses",
        "",
    ]
    for task in scored:
        for first, other in comparisons(tuple(design["conditions"][task])):
            lines.append(
                f"- {TASKS[task].title}: {TASKS[task].outcome} differs between {first} and {other} (two-sided)."
            )
    lines += [
        "",
        "## Materials",
        "",
        design["materials"],
        "",
        "| Task | Conditions | Question | Guessing gets |",
        "| --- | --- | --- | --- |",
    ]
    for task in scored:
        chance = chances.get(task)
        guessing = "–" if chance is None else f"{chance:.0%}"
        question, _ = wording(task, round(1 / chance) if chance else 0)
        conditions = ", ".join(design["conditions"][task])
        lines.append(f"| {TASKS[task].title} | {conditions} | {question} | {guessing} |")
    lines += [
        "",
        "## Raters",
        "",
        f"{design['raters']} raters, {design['sets_per_rater'] or 'all'} sets of each task each, {design['checks']} "
        f"attention checks; about {design['minutes']:.0f} minutes. Conditions are mixed within a task, and no rater "
        "knows them." + (" Raters of the first half write labels, which the others match." if LABEL in chances else ""),
        *([f"They agree to `consent.md`: `{design['consent_sha256']}`."] if design["consent_sha256"] else []),
        "",
        f"Power to find a difference of {design['effect']:.2f} at the level {1 - design['confidence']:.2g}, if raters "
        f"are as assumed (logits: skill {ASSUMED.skill}, deviations of raters {ASSUMED.rater_sd}, "
        f"sets {ASSUMED.set_sd}, items {ASSUMED.item_sd}, of raters' tastes {ASSUMED.taste_sd}; "
        f"lapses {ASSUMED.lapse:.0%}):",
        "",
        "| Task | Power | Matched sets for a power of " + f"{design['power']:.0%}" + " |",
        "| --- | --- | --- |",
    ]
    for task, figures in design["planned"].items():
        needed = ", ".join(
            f"{count or 'more than 4096'} with {raters} raters" for raters, count in figures["sets_needed"].items()
        )
        power = "–" if figures["power"] is None else power_text(figures["power"], design["confidence"])
        lines.append(f"| {TASKS[task].title} | {power} | {needed or figures.get('why', '')} |")
    lines += [
        "",
        "## Exclusions",
        "",
        f"- Raters who pass fewer than {rules['least_checks']:.0%} of the attention checks that they were shown.",
        f"- Raters whose median time of an answer is below {rules['least_seconds']:g} s.",
        f"- Raters who answer less than {rules['least_answered']:.0%} of their session.",
        f"- Single answers that came in less than {rules['fastest_ms']} ms.",
        "",
        "Answers of language models are reported by themselves and never enter these analyses.",
        "",
        "## Analysis",
        "",
        f"`hiersae study analyze`, level {design['confidence']:.0%}, {design['resamples']:,} resamples, "
        f"seed {design['seed']}.",
        "",
        f"- {TASKS[EDGE].title}: the outcome is the share of “yes”; “unsure” counts as not affirmed.",
        "- Each condition: the share, with Wilson's interval.",
        "- Each comparison: the mean over raters and matched sets of the paired difference, by a cluster bootstrap "
        "over both; p-values are corrected by Holm's method over all comparisons.",
        "- In addition, generalised estimating equations (logit, exchangeable), clustered by matched set and by rater.",
        "- Krippendorff's α of nominal values for each task and condition, with a bootstrap interval over items.",
        "- Collection ends when all sessions are answered or the administrator stops it; nobody looks at "
        "conditions before.",
        "",
    ]
    return "\n".join(lines)
