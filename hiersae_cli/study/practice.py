"""Items to practise on: made up, the same for every study, with the right answer and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.formats.study import Excerpt, Item
from hiersae_cli.study.protocol import CHILD, EDGE, EXAMPLE, LABEL, MATCH


def _excerpt(text: str) -> Excerpt:
    """An excerpt; in ``text``, marked words are between asterisks."""
    parts = text.split("*")
    return {"tokens": parts, "steps": [6 * (place % 2) for place in range(len(parts))]}


def _group(*texts: str) -> list[Excerpt]:
    return [_excerpt(text) for text in texts]


def _item(task: str, shown: list[list[Excerpt]], options: list[list[Excerpt]], key: int | None) -> Item:
    return Item(f"practice-{task}", task, "", -1, [], 0.0, 0, shown, options, key)


@dataclass(frozen=True)
class Practice:
    """An item, the right value, the explanation after it, and the words to be matched."""

    item: Item
    right: str
    why: str
    words: str = ""


PRACTICE = {
    EXAMPLE: Practice(
        _item(
            EXAMPLE,
            [],
            [
                _group("We sailed along the *Danube* for two days before the storm."),
                _group("The bridge over the *Rhine* was closed at noon."),
                _group("She put the *kettle* on and sat down by the window."),
                _group("Floods of the *Nile* were measured every year."),
                _group("They crossed the *Mississippi* on a wooden raft."),
            ],
            2,
        ),
        "2",
        "Four marks are at names of rivers; a kettle is none.",
    ),
    CHILD: Practice(
        _item(
            CHILD,
            [],
            [
                _group("three *apples* on a plate", "an *apple* a day"),
                _group("a bowl of ripe *plums*", "the *plum* tree"),
                _group("he signed the *contract*", "a breach of *contract*"),
                _group("juice of two *pears*", "a *pear* cut in half"),
            ],
            2,
        ),
        "2",
        "Three groups are kinds of fruit; contracts are not.",
    ),
    EDGE: Practice(
        _item(
            EDGE,
            [
                _group("the *dog* slept", "a *cat* on the roof", "two *horses* in the field"),
                _group("her *spaniel* barked", "an old *terrier*", "a *poodle* in the park"),
            ],
            [],
            None,
        ),
        "yes",
        "A marks animals, B breeds of dogs: B is a special case of A.",
    ),
    LABEL: Practice(
        _item(LABEL, [_group("see you on *Monday*", "closed on *Sundays*", "every *Friday* night")], [], None),
        "",
        "A good answer is “days of the week”: a few words, no sentence.",
    ),
    MATCH: Practice(
        _item(
            MATCH,
            [],
            [
                _group("the *red* door", "a *blue* coat"),
                _group("*seven* letters", "*forty* days"),
                _group("he *ran* home", "they *walked* on"),
                _group("in *Paris*", "near *Lisbon*"),
            ],
            1,
        ),
        "1",
        "Seven and forty are numbers.",
        "numbers written as words",
    ),
}
