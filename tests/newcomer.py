"""Questions that a newcomer has, each answered from the first page of a dashboard in at most three clicks.

    python -m tests.newcomer ADDRESS [WORD]

``ADDRESS`` is that of a served dashboard, or the ``index.html`` of a folder. ``WORD`` is a text that a feature fires
at. The answers are printed, one line each. ``test_newcomer.py`` asks the same of a small made-up index.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docs.pictures import opened_page

MOST_CLICKS = 3
SENTENCE = "The king of France and the queen met in Paris."


class Newcomer:
    """Someone who begins at the first page, and whose clicks are counted. Sending a form counts as one."""

    def __init__(self, page: Any, address: str, word: str):
        self.page, self.address, self.word = page, address, word
        self.clicks = 0

    def begin(self) -> None:
        self.page.goto("about:blank")
        self.page.goto(self.address)
        self.page.wait_for_selector("html[data-ready] #map")
        self.clicks = 0

    def click(self, selector: str, shows: str = "") -> None:
        """Click the first of these, and wait for what it shows."""
        self.clicks += 1
        self.page.locator(selector).first.click()
        self._wait(shows)

    def type(self, selector: str, text: str, shows: str) -> None:
        self.clicks += 1
        self.page.fill(selector, text)
        self.page.keyboard.press("Enter")
        self._wait(shows)

    def send(self, field: str, text: str, button: str, shows: str) -> None:
        """Fill in a field and send its form."""
        self.page.fill(field, text)
        self.click(button, shows)

    def hover(self, selector: str, shows: str) -> None:
        """Point at the first of these."""
        self.page.locator(selector).first.hover()
        self._wait(shows)

    def read(self, selector: str) -> str:
        """The text of the first of these, on one line."""
        text: str = self.page.locator(selector).first.inner_text()
        return " ".join(text.split())

    def all(self, selector: str) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def open_family(self) -> None:
        """Open the first parent of the list of parents that has children."""
        self.click(".groups li:first-child a", ".listing .node")
        self.click(".listing tbody tr:has(td:nth-last-child(2):not(:text-is('0'))) .node", "article.feature")

    def open_most_frequent(self) -> None:
        """Open the first parent of the list below the map."""
        self.click(".roots .node", "article.feature")

    def _wait(self, shows: str) -> None:
        if shows:
            self.page.wait_for_selector(shows)
        self.page.wait_for_selector("html[data-ready]")


def children(newcomer: Newcomer) -> list[str]:
    """Which children has a family?"""
    newcomer.open_family()
    return newcomer.all("#division .who > .node")


def belief(newcomer: Newcomer) -> str:
    """Why should I believe that they belong together?"""
    newcomer.open_family()
    return newcomer.read(".belief")


def edge(newcomer: Newcomer) -> str:
    """How often does a child fire inside its parent, and how much more often than by chance?"""
    newcomer.open_family()
    newcomer.click("#division .who > .node", ".evidence")
    return newcomer.read(".evidence dl")


def alone(newcomer: Newcomer) -> list[str]:
    """Where does the parent fire without any of its children?"""
    newcomer.open_family()
    return newcomer.all("section[aria-labelledby=alone] .pair > div:last-child :is(.line, .empty)")


def apart(newcomer: Newcomer) -> list[str]:
    """Where does a child fire without its parent?"""
    newcomer.click(".groups a:has-text('hildren')", ".listing .node")
    newcomer.click(".listing tr:has(td.wide .node) td:first-child .node", "article.feature")
    return newcomer.all("section[aria-labelledby=evidence] .pair > div:last-child :is(.line, .empty)")


def document(newcomer: Newcomer) -> str:
    """In which document is the context where a parent fires most, and what stands around it?"""
    newcomer.open_most_frequent()
    newcomer.click("section[aria-labelledby=top] .line")
    newcomer.click("section[aria-labelledby=top] .line .source a", "#document .at")
    return newcomer.read("main h1") + ": " + newcomer.read("#document .at")


def detectors(newcomer: Newcomer) -> list[str]:
    """Which features fire at this word?"""
    newcomer.type(".find input", newcomer.word, "#found .node")
    return newcomer.all("#found .node")[:5]


def sentence(newcomer: Newcomer) -> list[str]:
    """Where in my own sentence does a family fire? In a folder: in its example."""
    newcomer.click(".bar nav a[data-view=text]", "#tokens button")
    if newcomer.page.locator("#typed").count():
        newcomer.send("#typed", SENTENCE, ".ask button", "#tokens button")
    newcomer.click("[data-show]")
    return newcomer.all("#tokens span[class^=h]")


def path(newcomer: Newcomer) -> list[str]:
    """Which parents and children fire at this token?"""
    newcomer.click(".bar nav a[data-view=text]", "#tokens button")
    newcomer.click("#tokens button:nth-of-type(3)")
    return newcomer.all(".paths .node")[:6]


def flat(newcomer: Newcomer) -> list[str]:
    """Which latents of the flat dictionary are like this parent?"""
    newcomer.open_most_frequent()
    newcomer.click(".facts a", ".match h2")
    return newcomer.all(".match h2")


def comparison(newcomer: Newcomer) -> list[str]:
    """In what is the tree better or worse than the flat dictionary?"""
    newcomer.click(".bar nav a[data-view=report]", "[aria-labelledby=in-short]")
    return newcomer.all("[aria-labelledby=in-short] tbody tr:is(.better, .worse) > *")


def definition(newcomer: Newcomer) -> str:
    """What does a figure mean?"""
    newcomer.hover(".figures .term", ".figures .definition")
    return newcomer.read(".figures .definition:visible")


def dead(newcomer: Newcomer) -> str:
    """How many features never fire?"""
    newcomer.click(".groups a:has-text('Dead')", ".lede")
    return newcomer.read(".lede")


QUESTIONS: tuple[Callable[[Newcomer], Any], ...] = (
    children,
    belief,
    edge,
    alone,
    apart,
    document,
    detectors,
    sentence,
    path,
    flat,
    comparison,
    definition,
    dead,
)


def ask(newcomer: Newcomer, question: Callable[[Newcomer], Any]) -> Any:
    """The answer to a question; an error if there is none, or if it takes more clicks than ``MOST_CLICKS``."""
    newcomer.begin()
    answer = question(newcomer)
    assert answer, f"{question.__doc__} No answer."
    assert newcomer.clicks <= MOST_CLICKS, f"{question.__doc__} {newcomer.clicks} clicks."
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("address", help="address of a served dashboard, or index.html of a folder")
    parser.add_argument("word", nargs="?", default=" the", help="text that a feature fires at")
    options = parser.parse_args()
    address = options.address
    if not re.match("https?:|file:", address):
        address = Path(address).absolute().as_uri()
    with opened_page(1280, 900) as (page, messages):
        newcomer = Newcomer(page, address, options.word)
        for question in QUESTIONS:
            start = time.monotonic()
            answer = ask(newcomer, question)
            text = "; ".join(answer) if isinstance(answer, list) else answer
            seconds = time.monotonic() - start
            print(f"{question.__doc__} {newcomer.clicks} clicks, {seconds:.1f} s\n    {text[:160]}", flush=True)
    for message in messages:
        print(f"console: {message}", file=sys.stderr)
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
