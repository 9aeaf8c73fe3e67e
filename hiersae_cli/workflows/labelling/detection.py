"""Scores of labels by detection: a model says for each held-out context whether the label applies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hiersae_cli.browse.label_contexts import FIRING, OTHER, SIBLING, Tested
from hiersae_cli.formats.labels import Score
from hiersae_cli.metrics.intervals import Share
from hiersae_cli.workflows.common.chat import Chat
from hiersae_cli.workflows.labelling.prompts import ANSWERS, JUDGE, judging_prompt

LEAST = 3  # contexts with a firing; with fewer there is no score
_CONFIDENCE = 0.95


def detect(chat: Chat, description: str, tested: list[Tested], keep: Callable[[str, str], None]) -> Score:
    """Ask about every context; ``keep`` gets each prompt and answer. Answers that are neither are counted apart.

    The method is that of detection scoring (Paulo et al., 2024, Automatically interpreting millions of features in
    large language models), with contexts of siblings among those in which the latent is silent.
    """
    asked, right = Counter[str](), Counter[str]()
    unusable = 0
    for context in tested:
        prompt = judging_prompt(description, context.tokens)
        choice, answer = chat.choose(JUDGE, prompt, ANSWERS)
        keep(prompt, answer)
        if choice is None:
            unusable += 1
            continue
        asked[context.kind] += 1
        right[context.kind] += (choice == "yes") == (context.kind == FIRING)
    silent = asked[SIBLING] + asked[OTHER]
    estimate = None
    if asked[FIRING] and silent:
        firing = Share(right[FIRING], asked[FIRING])
        estimate = firing.mean_with(Share(right[SIBLING] + right[OTHER], silent), _CONFIDENCE)
    return Score(
        scorer=chat.name,
        balanced_accuracy=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        firing=asked[FIRING],
        firing_right=right[FIRING],
        siblings=asked[SIBLING],
        siblings_right=right[SIBLING],
        others=asked[OTHER],
        others_right=right[OTHER],
        unusable=unusable,
    )
