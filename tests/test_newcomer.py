"""What a newcomer asks of the dashboard takes at most three clicks, served and from a folder."""

from __future__ import annotations

import pytest

from tests.newcomer import QUESTIONS, Newcomer, ask
from tests.test_pages_browser import browser, either, folder, index, pytestmark  # noqa: F401

ANSWERS = {
    "children": "b0",
    "belief": "80 % of the children’s firings lie inside the parent",
    "comparison": "better",
    "dead": "1. They fire in none of the indexed rows.",
    "detectors": "a1",
    "edge": "Lift",
    "flat": "Flat latent 3",
    "path": "a1",
}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_a_newcomer_finds_the_answer_in_three_clicks(either, question):  # noqa: F811
    answer = ask(Newcomer(either.page, either.address + "/", " king"), question)
    assert ANSWERS.get(question.__name__, "") in " ".join(answer if isinstance(answer, list) else [answer])
