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
from hiersae_cli.study.duration import BREAK_EVERY
from hiersae_cli.study.practice import PRACTICE
from hiersae_cli.study.protocol import LABEL, MATCH, label_item, session, writes_labels
from hiersae_cli.study.store import CONSENT, HUMAN, JOINED, Answer, Store
from hiersae_cli.study.store import PRACTICE as PRACTISED

STEP, ANSWER, SWITCH, JOIN = "step", "answer", "switch", "join"  # kinds of forms
STOP, OPEN, SECOND_HALF = "stop", "open", "second-half"  # what an administrator does


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
        completion_code: what raters show to be paid; "" gives each rater another one.
        return_url: the page that raters go back to at the end; "{code}" stands for the code.
    """

    def __init__(
        self,
        files: StudyFiles,
        store: Store,
        links: Links,
        exposed: bool = False,
        completion_code: str = "",
        return_url: str = "",
    ):
        self.files, self.store, self.links, self.exposed = files, store, links, exposed
        self._code, self._return_url = completion_code, return_url
        self._rater_of = {token: number for number, token in enumerate(links.raters)}
        self._sessions: dict[int, list[Item]] = {}
        self._labels: dict[tuple[int, str], Answer] = {}  # by rater and item; a label that was chosen stays

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

    @property
    def common_token(self) -> str:
        """The token of the common link, which gives a private link to everybody who opens it."""
        return self.sign("common", "")[:32]

    def require_common(self, token: str) -> None:
        """404 unless this is the common link; 409 if the study is closed."""
        if not secrets.compare_digest(token.encode(), self.common_token.encode()):
            raise HTTPException(404)
        if self.store.stopped():
            raise HTTPException(409)

    def join(self) -> str:
        """The token of a private link that nobody has used, from now on in use; "" if none is free now."""
        begun = self.store.begun()
        for rater, token in enumerate(self.links.raters):
            if rater not in begun and not self.waits(rater) and self.store.take_step(rater, JOINED):
                return token
        return ""

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

    def tasks(self, rater: int) -> list[str]:
        """The tasks of a rater, each to be practised."""
        tasks = {item.task for item in self.session(rater)}
        return [task for task in PRACTICE if task in tasks]

    def practised(self, rater: int) -> int:
        """How many of the tasks a rater has practised."""
        steps, number = self.store.steps(rater), len(self.tasks(rater))
        if PRACTISED in steps:
            return number
        return next(place for place in range(number + 1) if practice_step(place, number) not in steps)

    def next(self, rater: int) -> tuple[Question | None, int, int]:
        """The next question, how many are answered, and how many there are.

        A label that nobody wrote is not asked about.
        """
        answered = {answer.item for answer in self.store.answers(kind=HUMAN, rater=rater)}
        questions = [question for item in self.session(rater) if (question := self._question(item, rater))]
        following = next((question for question in questions if question.item.id not in answered), None)
        return following, len(answered), len(questions)

    def break_due(self, rater: int) -> int:
        """After how many answers a rater should rest now; 0 if not yet, or if little is left."""
        question, answered, total = self.next(rater)
        due = question is not None and answered > 0 and answered % BREAK_EVERY == 0 and total - answered > 5
        return answered if due and break_step(answered) not in self.store.steps(rater) else 0

    def waits(self, rater: int) -> bool:
        """Whether a rater cannot begin yet, since others have not written all the labels that it matches."""
        if CONSENT in self.store.steps(rater) or self.store.second_half():
            return False
        return any(self._question(item, rater) is None for item in self.session(rater))

    def labels_missing(self) -> int:
        """How many items to label no rater has labelled; 0 if the second half of the raters was let in."""
        labelled = {answer.item for answer in self.store.answers(kind=HUMAN)}
        planned = range(int(self.files.design["raters"]))
        items = {
            item.id
            for rater in planned
            if writes_labels(self.files.design, rater)
            for item in self.session(rater)
            if item.task == LABEL
        }
        return 0 if self.store.second_half() else len(items - labelled)

    def code(self, token: str) -> str:
        """What a rater shows to be paid."""
        return self._code or self.sign("completion", token)[:8].upper()

    def return_url(self, token: str) -> str:
        """The page that a rater goes back to at the end; "" if there is none."""
        return self._return_url.replace("{code}", self.code(token))

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

    def _question(self, item: Item, rater: int) -> Question | None:
        """An item with the words to be matched; None if nobody has written them."""
        if item.task != MATCH:
            return Question(item)
        if item.words:
            return Question(item, item.words)
        label = self._label_for(item, rater)
        return Question(item, label.value, label.rater) if label else None

    def _label_for(self, item: Item, rater: int) -> Answer | None:
        """A label of the same latent by another rater; which one depends on the rater, so that every label is used."""
        if (rater, item.id) not in self._labels:
            labels = self.store.answers(kind=HUMAN, item=label_item(self.files, item).id)
            by_others = [label for label in labels if label.rater != rater]
            if by_others:
                self._labels[rater, item.id] = by_others[rater % len(by_others)]
        return self._labels.get((rater, item.id))


def practice_step(place: int, tasks: int) -> str:
    """The name of the step that ends the practice of a task, by its place among the rater's tasks."""
    return PRACTISED if place + 1 == tasks else f"practice-{place}"


def break_step(answered: int) -> str:
    """The name of the step that ends a break."""
    return f"break-{answered}"
