"""The pages of a study as HTML: consent, practice, items, and the administrator's table."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException

from hiersae_cli.formats.study import Excerpt, Item
from hiersae_cli.metrics.agreement import krippendorff_alpha
from hiersae_cli.pages import text
from hiersae_cli.study.analysis import AnswerTable
from hiersae_cli.study.live import ANSWER, STEP, SWITCH, Study
from hiersae_cli.study.practice import PRACTICE
from hiersae_cli.study.protocol import CHECK, EDGE, EDGE_ANSWERS, LABEL, LONGEST_LABEL, TASKS
from hiersae_cli.study.store import CONSENT, HUMAN, Answer
from hiersae_cli.study.store import PRACTICE as PRACTISED
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
            version=__version__, prefix=prefix, excerpt=excerpt, longest=LONGEST_LABEL, edge_answers=EDGE_ANSWERS
        )

    def message(self, title: str, says: str) -> str:
        """A page with a title and a text."""
        return self._render("message", title=title, says=says)

    def rater(self, token: str) -> str:
        """The page of a rater's link: consent, practice, the next question, or the end."""
        study = self._study
        rater = study.rater(token)
        if study.store.stopped():
            return self.message(*MESSAGES[409])
        steps = study.store.steps(rater)
        total = len(study.session(rater))
        if CONSENT not in steps:
            return self._render(
                "welcome",
                title="A study of what language models look for",
                tasks=[TASKS[task] for task in study.tasks],
                total=total,
                token=token,
                signature=study.sign(STEP, token, CONSENT),
            )
        if PRACTISED not in steps:
            return self.practice(token, 0)
        question, answered, waiting = study.next(rater)
        if question is None:
            return self._end(waiting)
        now, label_of = round(time.time() * 1000), "" if question.label_of is None else question.label_of
        return self._item(
            question.item,
            question.words,
            action=f"{self.prefix}/r/{token}/answer",
            fields={
                "item": question.item.id,
                "shown": now,
                "label_of": label_of,
                "signature": study.sign(ANSWER, token, question.item.id, now, label_of),
            },
            done=answered,
            total=total,
            practice=None,
        )

    def practice(self, token: str, number: int) -> str:
        """An item to practise on; the page itself says the answer, and nothing is kept. 404 for no such number."""
        study = self._study
        study.rater(token)
        if not 0 <= number < len(study.tasks):
            raise HTTPException(404)
        last = number + 1 == len(study.tasks)
        practice = PRACTICE[study.tasks[number]]
        return self._item(
            practice.item,
            practice.words,
            action=f"{self.prefix}/r/{token}/" + (PRACTISED if last else f"practice/{number + 1}"),
            fields={"signature": study.sign(STEP, token, PRACTISED)} if last else {},
            done=number,
            total=len(study.tasks),
            practice=practice,
        )

    def administration(self, token: str) -> str:
        """Progress, agreement over all conditions, stop and export."""
        study = self._study
        answers = study.store.answers(kind=HUMAN)
        stopped = study.store.stopped()
        switch = "open" if stopped else "stop"
        return self._render(
            "admin",
            title="Progress",
            raters=[self._progress(rater, link, answers) for rater, link in enumerate(study.links.raters)],
            tasks=self._agreement(answers),
            answers=len(answers),
            stopped=stopped,
            switch=switch,
            token=token,
            signature=study.sign(SWITCH, token, switch),
            exposed=study.exposed,
            place=study.store.place,
        )

    def _end(self, waiting: int) -> str:
        if not waiting:
            return self.message("Thank you", "All your answers are kept. You may close this page.")
        return self.message(
            "Almost done",
            f"{waiting} more questions use words that other raters write, and are not there yet. All your answers are "
            "kept; please open this link again later.",
        )

    def _item(self, item: Item, words: str, **values: Any) -> str:
        task = TASKS[item.task]
        question, help = task.question, task.help
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
        return {
            "rater": rater,
            "link": f"{self.prefix}/r/{link}",
            "done": len(by_rater),
            "total": len(self._study.session(rater)),
            "checks": f"{passed} of {len(checks)}",
            "seconds": seconds,
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
    """An excerpt with its marks, everything escaped."""
    parts = []
    for token, step in zip(content["tokens"], content["steps"], strict=True):
        escaped = text.running(token)
        parts.append(Markup('<mark class="h{}">{}</mark>').format(int(step), escaped) if step and token else escaped)
    return Markup("").join(parts)
