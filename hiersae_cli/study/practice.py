"""Items to practise on, and the legend of the marks: made up, the same for every study.

They look like the items of a study: texts begin and end in the middle, several tokens are marked in several strengths,
parts of words too, and some weak marks mean nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hiersae_cli.formats.study import Excerpt, Item
from hiersae_cli.study.protocol import CHILD, EDGE, EXAMPLE, LABEL, MATCH

_MARKED = re.compile(r"\[([^]]+?)(\d)\]")


def _excerpt(text: str) -> Excerpt:
    """An excerpt; in ``text``, ``[word9]`` is a token of step 9."""
    tokens, steps, end = [], [], 0
    for match in _MARKED.finditer(text):
        tokens += [text[end : match.start()], match[1]]
        steps += [0, int(match[2])]
        end = match.end()
    return {"tokens": [*tokens, text[end:]], "steps": [*steps, 0]}


def _group(*texts: str) -> list[Excerpt]:
    return [_excerpt(text) for text in texts]


def _item(
    task: str, shown: list[list[Excerpt]], options: list[list[Excerpt]], key: int | None, words: str = ""
) -> Item:
    return Item(f"practice-{task}", task, "", -1, [], 0.0, 0, shown, options, key, words)


@dataclass(frozen=True)
class Practice:
    """An item, the right value, and the explanation after it."""

    item: Item
    right: str
    why: str


# A text in which every sign of the legend occurs.
LEGEND = _excerpt(" of the year.\nIn the[ spring9] of 1911[ snow5] fell[ late2],[ 1] and the sp[arrow7]s")

PRACTICE = {
    EXAMPLE: Practice(
        _item(
            EXAMPLE,
            [],
            [
                _group(" by boat. We sailed along the[ Dan8][ube9] for two[ days1] before the storm broke.\n\nAt noon"),
                _group(" closed. The bridge[ over2] the[ Rhine9], which had[ been1] damaged by ice, was not re"),
                _group(", she said.\nShe put the[ kettle9] on and[ sat2] down by the window to wait for the post"),
                _group(" since 1870. Floods[ of2] the[ Nile8] were measured every year by the priests, who kept"),
                _group(" and their cattle crossed the[ Miss7][iss8][ippi9] on a wooden raft[ in1] the spring of 18"),
            ],
            2,
        ),
        "2",
        "The strong marks of four texts are on names of rivers; a kettle is none. Marks in a weak colour, such as “of” "
        "and “days”, often mean nothing: look at the strongest first. Marks may cover parts of words.",
    ),
    CHILD: Practice(
        _item(
            CHILD,
            [],
            [
                _group(
                    " with three[ app8][les9] on a plate.\nThen", "\nAn[ apple9] a day[ keeps2] the doctor away, as"
                ),
                _group(" from a bowl of[ ripe3][ pl7][ums9] and cream", " under the old[ plum9] tree[ in1] the yard"),
                _group(" before he[ signed4] the[ contract9],", " sued for[ breach5] of[ contract9].\n\nThe court"),
                _group(" the juice of two[ pe7][ars9] and a", " cut the[ pear8] in[ half1], and remove the"),
            ],
            2,
        ),
        "2",
        "Three groups are kinds of fruit, which is the wider thing; contracts are not.",
    ),
    EDGE: Practice(
        _item(
            EDGE,
            [
                _group(
                    " where the[ dog9] slept[ by1] the stove",
                    " saw a[ cat8] on the roof.\n\nIt",
                    " with two[ horses9] in the",
                ),
                _group(
                    " but her[ span7][iel9] barked at",
                    " an old[ terr8][ier9] named[ Max2],",
                    " and a[ pood8][le9] in the park",
                ),
            ],
            [],
            None,
        ),
        "yes",
        "A marks animals, B breeds of dogs, which are a narrower kind: B is a special case of A.",
    ),
    LABEL: Practice(
        _item(
            LABEL,
            [
                _group(
                    " see you on[ Monday9] at",
                    ",\nclosed on[ Sund8][ays9] and in[ winter1]",
                    " came every[ Friday9] night",
                )
            ],
            [],
            None,
        ),
        "",
        "A good answer is “days of the week”: a few words, no sentence, and about the strongest marks.",
    ),
    MATCH: Practice(
        _item(
            MATCH,
            [],
            [
                _group(" painted the[ red9] door", " in a[ blue8] coat[ and1] hat"),
                _group(" and[ seven9][ letters2] a", " for[ fort8][y9] days"),
                _group(" so he[ ran9] home.\n", " while they[ walked8] on"),
                _group(" born in[ Paris9],[ near3]", " from[ Lis8][bon9] to"),
            ],
            1,
            "numbers written as words",
        ),
        "1",
        "Seven and forty are numbers written as words.",
    ),
}
