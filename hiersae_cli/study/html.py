"""The pages of a study as HTML: consent, practice, items, and the administrator's table."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hiersae_cli.formats.study import Excerpt, Item
from hiersae_cli.metrics.agreement import krippendorff_alpha
from hiersae_cli.pages import text
from hiersae_cli.study.analysis import AnswerTable, exclusions, registered_rules
from hiersae_cli.study.consent import as_html
from hiersae_cli.study.duration import BREAK_EVERY, minutes
from hiersae_cli.study.live import ANSWER, JOIN, OPEN, SECOND_HALF, STEP, STOP, SWITCH, Study, break_step, practice_step
from hiersae_cli.study.practice import LEGEND, PRACTICE
from hiersae_cli.study.protocol import (
    CHECK,
    EDGE,
    EDGE_ANSWERS,
    LABEL,
    LONGEST_LABEL,
    TASKS,
    wording,
    writes_labels,
)
from hiersae_cli.study.store import CONSENT, HUMAN, Answer
from hiersae_cli.version import __version__

# Titles and texts of pages without a form, by status.
MESSAGES = {
    400: ("Not understood", "The request was not one of this study's forms."),
    403: ("Refused", "The form is not of this page. Open your link again."),
    404: ("No such page", "Check that the link is whole. Whoever sent it to you can send it again."),
    405: ("Not here", "This address answers no such request."),
    409: ("The study is closed", "Your answers so far are kept. Thank you."),
    408: ("Too slow", "The form did not come in time. Open your link again."),
    500: ("Something failed", "Your answers so far are kept. Open your link again in a while."),
}
FULL = ("No place is free", "Nothing was stored. If you came from a platform for studies, return your place there.")


class StudyPages:
    """Each page as a text."""

    def __init__(self, study: Study, prefix: str = ""):
        self._study, self.prefix = study, prefix
        self._environment = Environment(
            loader=PackageLoader("hiersae_cli.study", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            version=__version__,
            prefix=prefix,
            excerpt=excerpt,
            longest=LONGEST_LABEL,
            edge_answers=EDGE_ANSWERS,
            legend=LEGEND,
        )

    def message(self, title: str, says: str, link: str = "") -> str:
        """A page with a title and a text, and perhaps a link to go on."""
        return self._render("message", title=title, says=says, link=link)

    def join(self, token: str) -> str:
        """The page of the common link. A button gives the private link, so that no robot that looks at it gets one."""
        self._study.require_common(token)
        signature = self._study.sign(JOIN, token)
        return self._render("join", title="A study of what language models look for", token=token, signature=signature)

    def place(self, token: str) -> str:
        """Where a rater is: the address of a page below their link; "" for the link itself.

        Every page with a form has an address of its own, so that no browser fills in what was chosen on another.
        """
        study = self._study
        rater = study.rater(token)
        if study.store.stopped() or CONSENT not in study.store.steps(rater):
            return ""
        practised = study.practised(rater)
        if practised < len(study.tasks(rater)):
            return f"practice/{practised}"
        if answered := study.break_due(rater):
            return f"break/{answered}"
        question, _, _ = study.next(rater)
        return f"item/{question.item.id}" if question else ""

    def rater(self, token: str) -> str:
        """The page of a rater's link: consent or the end; 409 if the study is closed."""
        study = self._study
        rater = study.rater(token)
        if study.store.stopped():
            return self.message(*MESSAGES[409])
        if CONSENT in study.store.steps(rater):
            return self._render("end", title="Thank you", code=study.code(token), return_url=study.return_url(token))
        if study.waits(rater):
            return self.message(
                "Not yet",
                "Your part of the study begins when others have finished theirs. You have not missed anything: you "
                "will be told when it begins.",
            )
        session = study.session(rater)
        items = {item.task: item for item in session}
        length, total = minutes(session), len(session)
        return self._render(
            "welcome",
            title="A study of what language models look for",
            tasks=[wording(task, len(items[task].options)) for task in study.tasks(rater)],
            consent=as_html(study.files.consent, length, total) if study.files.consent else "",
            total=total,
            minutes=length,
            breaks=BREAK_EVERY if total > BREAK_EVERY + 5 else 0,
            token=token,
            signature=study.sign(STEP, token, CONSENT),
        )

    def declined(self, token: str) -> str:
        """The page of a rater who does not take part."""
        self._study.rater(token)
        return self.message(
            "You do not take part",
            "Nothing was stored. You may close this page. If you came from a platform for studies, return your place "
            "there. If you change your mind, open your link again.",
        )

    def item(self, token: str, item_id: str) -> str | None:
        """The question of an item, or that it is answered; None if it is not the rater's turn to see it."""
        study = self._study
        rater = study.rater(token)
        if study.store.stopped():
            return self.message(*MESSAGES[409])
        if self.place(token) != f"item/{item_id}":
            if not study.store.answers(kind=HUMAN, rater=rater, item=item_id):
                return None
            link = f"{self.prefix}/r/{token}"
            return self.message("Already answered", "Your answer to this question is kept as it is.", link)
        question, answered, total = study.next(rater)
        assert question
        now, label_of = round(time.time() * 1000), "" if question.label_of is None else question.label_of
        return self._item(
            question.item,
            question.words,
            action=f"{self.prefix}/r/{token}/item/{item_id}",
            fields={
                "shown": now,
                "label_of": label_of,
                "signature": study.sign(ANSWER, token, item_id, now, label_of),
            },
            done=answered,
            total=total,
            practice=None,
        )

    def practice(self, token: str, number: int) -> str | None:
        """An item to practise on; the page itself says the answer, and nothing is kept but that it was seen.

        None if the rater is not so far.
        """
        study = self._study
        rater = study.rater(token)
        tasks = study.tasks(rater)
        if CONSENT not in study.store.steps(rater) or number >= len(tasks) or number > study.practised(rater):
            return None
        practice = PRACTICE[tasks[number]]
        step = practice_step(number, len(tasks))
        return self._item(
            practice.item,
            practice.item.words,
            action=f"{self.prefix}/r/{token}/{step}",
            fields={"signature": study.sign(STEP, token, step)},
            done=number,
            total=len(tasks),
            practice=practice,
        )

    def rest(self, token: str, answered: int) -> str | None:
        """The page of a break; None if none is due."""
        study = self._study
        rater = study.rater(token)
        if self.place(token) != f"break/{answered}":
            return None
        _, done, total = study.next(rater)
        step = break_step(answered)
        return self._render(
            "rest",
            title="Time for a break",
            done=done,
            total=total,
            token=token,
            step=step,
            signature=study.sign(STEP, token, step),
        )

    def administration(self, token: str) -> str:
        """Progress, agreement over all conditions, stop and export."""
        study = self._study
        answers = study.store.answers(kind=HUMAN)
        stopped = study.store.stopped()
        switch = OPEN if stopped else STOP
        waiting = study.labels_missing()
        return self._render(
            "admin",
            title="Progress",
            raters=[self._progress(rater, link, answers) for rater, link in enumerate(study.links.raters)],
            halves=any(item.task == LABEL for item in study.files.items.values()),
            tasks=self._agreement(answers),
            answers=len(answers),
            stopped=stopped,
            switch=switch,
            token=token,
            signature=study.sign(SWITCH, token, switch),
            waiting=waiting,
            second_half=SECOND_HALF,
            second_signature=study.sign(SWITCH, token, SECOND_HALF),
            exposed=study.exposed,
            common=f"{self.prefix}/join/{study.common_token}",
            place=study.store.place,
        )

    def _item(self, item: Item, words: str, **values: Any) -> str:
        question, help = wording(item.task, len(item.options))
        if item.task == CHECK and item.key is not None:
            question = f"Please choose number {item.key + 1}"
            help = "This question checks that questions are read. Choose that number, whatever the texts say."
        return self._render(
            "item",
            title=question,
            help=help,
            words=words,
            kind="words" if item.task == LABEL else "edge" if item.task == EDGE else "choose",
            shown=item.shown,
            options=item.options,
            names=list(EDGE_ANSWERS) if item.task == EDGE else [],
            **values,
        )

    def _progress(self, rater: int, link: str, answers: list[Answer]) -> dict[str, Any]:
        """A rater's row of the administrator's table."""
        items = self._study.files.items
        by_rater = [answer for answer in answers if answer.rater == rater]
        checks = [answer for answer in by_rater if items[answer.item].task == CHECK]
        passed = sum(answer.value == str(items[answer.item].key) for answer in checks)
        seconds = f"{float(np.median([answer.ms for answer in by_rater])) / 1000:.1f}" if by_rater else "–"
        excluded = exclusions(self._study.files, by_rater, registered_rules(self._study.files))
        doubts = [why for why in excluded.values() if not why.startswith("answered")]  # who is still answering
        return {
            "rater": rater,
            "link": f"{self.prefix}/r/{link}",
            "done": len(by_rater),
            "total": len(self._study.session(rater)),
            "checks": f"{passed} of {len(checks)}",
            "seconds": seconds,
            "last": max((answer.time for answer in by_rater), default="")[:16].replace("T", " "),
            "code": self._study.code(link),
            "writes": writes_labels(self._study.files.design, rater),
            "doubt": " and ".join(doubts),
        }

    def _agreement(self, answers: list[Answer]) -> list[dict[str, Any]]:
        """A row for each task: its answers, and their agreement over all conditions."""
        rows = []
        by_id = self._study.files.items
        for task in dict.fromkeys(item.task for item in by_id.values()):
            items = [item for item in by_id.values() if item.task == task]
            of_task = [answer for answer in answers if by_id[answer.item].task == task]
            comparable = task not in (LABEL, CHECK)
            alpha = krippendorff_alpha(AnswerTable(items, of_task).value_RI) if comparable else float("nan")
            alpha_text = f"{alpha:.3f}" if np.isfinite(alpha) else "–"
            rows.append({"title": TASKS[task].title, "answers": len(of_task), "alpha": alpha_text})
        return rows

    def _render(self, template: str, **values: Any) -> str:
        return self._environment.get_template(f"{template}.html.jinja").render(**values)


def excerpt(content: Excerpt) -> Markup:
    """An excerpt with its marks, everything escaped.

    The space before a marked word is not marked, since at the end of a line it would be an empty box. A token of
    spaces only has a sign for each.
    """
    parts = []
    for token, step in zip(content["tokens"], content["steps"], strict=True):
        if not step or not token:
            parts.append(text.running(token))
            continue
        word = token.lstrip(" ")
        spaces = token[: len(token) - len(word)]
        marked = text.running(word) if word else Markup("<i>{}</i>").format("␣" * len(spaces))
        parts += [
            Markup.escape(spaces if word else ""),
            Markup('<mark class="h{}">{}</mark>').format(int(step), marked),
        ]
    return Markup("").join(parts)
