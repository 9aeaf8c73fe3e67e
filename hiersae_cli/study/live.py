"""A study that raters answer: whose turn it is, what they are asked next, and which answers count.

Links and forms that are not right raise Starlette's ``HTTPException``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass

from starlette.exceptions import HTTPException

from hiersae_cli.formats.study import Item, Links, StudyFiles
from hiersae_cli.study.practice import PRACTICE
from hiersae_cli.study.protocol import MATCH, label_item, session
from hiersae_cli.study.store import CONSENT, HUMAN, Answer, Store
from hiersae_cli.study.store import PRACTICE as PRACTISED

STEP, ANSWER, SWITCH = "step", "answer", "switch"  # kinds of forms


@dataclass(frozen=True)
class Question:
    """An item as it is asked: with the words to be matched, and the number of the rater who wrote them."""

    item: Item
    words: str = ""
    label_of: int | None = None


class Study:
    """What the pages ask of a study.

    Args:
        files: the study.
        store: its answers.
        links: its secrets.
        exposed: whether people on other machines can reach it without TLS; the administrator is told.
    """

    def __init__(self, files: StudyFiles, store: Store, links: Links, exposed: bool = False):
        self.files, self.store, self.links, self.exposed = files, store, links, exposed
        self._rater_of = {token: number for number, token in enumerate(links.raters)}
        self._sessions: dict[int, list[Item]] = {}
        self.tasks = [task for task in PRACTICE if task in {item.task for item in files.items.values()}]

    def rater(self, token: str) -> int:
        """The number of the rater with this link; 404 if no rater has it."""
        number = self._rater_of.get(token)
        if number is None:
            raise HTTPException(404)
        return number

    def require_administrator(self, token: str) -> None:
        """404 unless this is the administrator's link."""
        if not secrets.compare_digest(token.encode(), self.links.administrator.encode()):
            raise HTTPException(404)

    def sign(self, kind: str, token: str, *content: object) -> str:
        """Proof that a form of this kind with this content was made for the link with this token."""
        text = json.dumps([kind, token, *map(str, content)])
        return hmac.new(self.links.key, text.encode(), hashlib.sha256).hexdigest()

    def require_signature(self, signature: str, kind: str, token: str, *content: object) -> None:
        """403 unless the form was signed for this link."""
        if not secrets.compare_digest(signature.encode(), self.sign(kind, token, *content).encode()):
            raise HTTPException(403)

    def session(self, rater: int) -> list[Item]:
        """The items of a rater in their order."""
        if rater not in self._sessions:
            self._sessions[rater] = session(self.files, rater)
        return self._sessions[rater]

    def next(self, rater: int) -> tuple[Question | None, int, int]:
        """The next question, how many items are answered, and how many still wait for a label by another rater."""
        answered = {answer.item for answer in self.store.answers(kind=HUMAN, rater=rater)}
        waiting = 0
        for item in self.session(rater):
            if item.id in answered:
                continue
            if item.task != MATCH:
                return Question(item), len(answered), waiting
            if label := self._label_for(item, rater):
                return Question(item, label.value, label.rater), len(answered), waiting
            waiting += 1
        return None, len(answered), waiting

    def keep(self, answer: Answer) -> None:
        """Keep an answer to an item of the rater's own session; the first of several counts.

        409 if the study is closed; 403 for another item, or before consent and practice.
        """
        if self.store.stopped():
            raise HTTPException(409)
        if answer.item not in {item.id for item in self.session(answer.rater)}:
            raise HTTPException(403)
        if not {CONSENT, PRACTISED} <= self.store.steps(answer.rater):
            raise HTTPException(403)
        self.store.add(answer)

    def _label_for(self, item: Item, rater: int) -> Answer | None:
        """A label of the same latent by another rater; which one depends on the rater, so that every label is used."""
        labels = self.store.answers(kind=HUMAN, item=label_item(self.files, item).id)
        by_others = [label for label in labels if label.rater != rater]
        return min(by_others, key=lambda label: (abs(label.rater - rater), label.rater), default=None)
