"""What is written before the first answer: how many raters and items a study needs, and the pre-registration."""

from __future__ import annotations

from typing import Any

from hiersae_cli.formats.study import fingerprint
from hiersae_cli.study.protocol import COMPARISONS, CONDITIONS, EDGE, FLAT, HIERARCHY, LABEL, MATCH, TASKS
from hiersae_cli.study.simulation import Raters, effect_of, planned_power, sets_for

_RATERS = (5, 10, 20, 40)
ASSUMED = Raters()


def plan(
    tasks: tuple[str, ...], sets: int, raters: int, effect: float, confidence: float, power: float
) -> dict[str, Any]:
    """The power of the planned study for each task, and how many sets various numbers of raters need for ``power``.

    Raters are assumed to answer the baseline as ``ASSUMED`` does; an edge cannot be guessed right.
    """
    plans: dict[str, Any] = {}
    for task in tasks:
        scored = MATCH if task == LABEL else task
        chance = TASKS[scored].chance or 0.0
        try:
            model = effect_of(ASSUMED, FLAT, HIERARCHY, chance, effect)
        except ValueError as error:
            plans[scored] = {"power": None, "why": str(error), "sets_needed": {}}
            continue
        # In a set of labels, every second rater matches.
        count = max(1, raters // 2) if scored == MATCH else raters
        reached = planned_power(model, (HIERARCHY, FLAT), chance, (count, sets), effect, confidence)
        needed = {
            str(number): sets_for(
                model,
                (HIERARCHY, FLAT),
                chance,
                max(1, number // 2) if scored == MATCH else number,
                effect,
                confidence,
                power,
            )
            for number in sorted({*_RATERS, raters})
        }
        plans[scored] = {"power": round(reached, 3), "sets_needed": needed}
    return plans


def text(design: dict[str, Any], inputs: dict[str, str], items_sha256: str) -> str:
    """The pre-registration as Markdown, to be deposited where nobody can change it."""
    rules = design["rules"]
    scored = [MATCH if task == LABEL else task for task in design["tasks"]]
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
        for first, other in COMPARISONS:
            if other in CONDITIONS[task]:
                lines.append(
                    f"- {TASKS[task].title}: {TASKS[task].outcome} differs between {first} and {other} (two-sided)."
                )
    lines += [
        "",
        "## Materials",
        "",
        f"{design['sets_text']}. Texts are from held-out rows. Every set has one item in each condition, of "
        "latents whose firing rates differ by a factor of 2 at most; no latent stands for two items of a task in one "
        "condition.",
        "",
        "| Task | Conditions | Question | Guessing gets |",
        "| --- | --- | --- | --- |",
    ]
    for task in scored:
        chance = TASKS[task].chance
        guessing = "–" if chance is None else f"{chance:.0%}"
        lines.append(f"| {TASKS[task].title} | {', '.join(CONDITIONS[task])} | {TASKS[task].question} | {guessing} |")
    lines += [
        "",
        "## Raters",
        "",
        f"{design['raters']} raters, {design['sets_per_rater'] or 'all'} sets of each task each, {design['checks']} "
        "attention checks. Conditions are mixed within a task, and no rater knows them.",
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
        power = "–" if figures["power"] is None else f"{figures['power']:.0%}"
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
