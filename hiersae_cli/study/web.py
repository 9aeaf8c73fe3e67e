"""The study over HTTP: raters by private links, an administrator by another.

The browser is told an item's texts and its id and nothing else: not its condition, not its answer, not what it is of.
What a form carries is signed with the rater's token, so that one rater's form is worth nothing in another's hands.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from hiersae_cli.formats.study import Excerpt, Item, Links, StudyFiles
from hiersae_cli.metrics.agreement import krippendorff_alpha
from hiersae_cli.pages import text
from hiersae_cli.pages.render import POLICY, asset_text
from hiersae_cli.pages.server import LOOPBACK, Guard, read_form
from hiersae_cli.study.practice import PRACTICE, Practice
from hiersae_cli.study.protocol import CHECK, EDGE, EDGE_ANSWERS, LABEL, LONGEST_LABEL, MATCH, TASKS, allowed, session
from hiersae_cli.study.store import CONSENT, HUMAN, Answer, Store
from hiersae_cli.study.store import PRACTICE as PRACTISED
from hiersae_cli.version import __version__

_ASSETS = {"dashboard.css": "text/css", "icon.svg": "image/svg+xml", "theme.js": "text/javascript"}
_OURS = {"study.css": "text/css", "study.js": "text/javascript"}
_MESSAGES = {
    400: ("Not understood", "The request was not one of this study's forms."),
    403: ("Refused", "The form is not of this page. Open your link again."),
    404: ("No such page", "Check that the link is whole. Whoever sent it to you can send it again."),
    405: ("Not here", "This address answers no such request."),
    409: ("The study is closed", "Your answers up to here are kept. Thank you."),
    500: ("Something failed", "Your answers up to here are kept. Open your link again in a while."),
}


@dataclass(frozen=True)
class Shown:
    """What a page of an item needs: nothing that tells of its condition."""

    item: Item
    words: str
    label_of: int | None


class Study:
    """What the pages ask of a study.

    Args:
        files: the study.
        store: its answers.
        links: its secrets.
        exposed: whether others than this machine's people can reach it without TLS, of which the administrator is told.
    """

    def __init__(self, files: StudyFiles, store: Store, links: Links, exposed: bool = False):
        self.files, self.store, self.links, self.exposed = files, store, links, exposed
        self._rater_of = {token: number for number, token in enumerate(links.raters)}
        self._sessions: dict[int, list[Item]] = {}
        self.tasks = [task for task in PRACTICE if task in {item.task for item in files.items.values()}]

    def rater(self, token: str) -> int:
        """The number of whom a link belongs to; ``HTTPException`` 404 for no rater's."""
        number = self._rater_of.get(token)
        if number is None:
            raise HTTPException(404)
        return number

    def session(self, rater: int) -> list[Item]:
        """The items of a rater in their order."""
        if rater not in self._sessions:
            self._sessions[rater] = session(self.files, rater)
        return self._sessions[rater]

    def sign(self, token: str, *what: object) -> str:
        """What proves that a form was made for a rater, and of what."""
        said = "\n".join([token, *map(str, what)])
        return hmac.new(self.links.key, said.encode(), hashlib.sha256).hexdigest()

    def next(self, rater: int) -> tuple[Shown | None, int, int]:
        """The item to be shown, how many are answered, and how many cannot be shown yet."""
        done = {answer.item for answer in self.store.answers(kind=HUMAN, rater=rater)}
        waiting = 0
        for item in self.session(rater):
            if item.id in done:
                continue
            if item.task != MATCH:
                return Shown(item, "", None), len(done), waiting
            if label := self._label_for(item, rater):
                return Shown(item, label.value, label.rater), len(done), waiting
            waiting += 1
        return None, len(done), waiting

    def _label_for(self, item: Item, rater: int) -> Answer | None:
        """A label of the same latent by another rater; which one depends on the rater, so that all get their turn."""
        (source,) = (
            one
            for one in self.files.items.values()
            if one.task == LABEL and (one.set, one.condition) == (item.set, item.condition)
        )
        given = [one for one in self.store.answers(kind=HUMAN, item=source.id) if one.rater != rater]
        return min(given, key=lambda one: (abs(one.rater - rater), one.rater)) if given else None


def app(study: Study, *, host: str = LOOPBACK[0], public: str = "") -> ASGIApp:
    """The application. It answers to loopback's names, to ``host`` and to the name in the address ``public``."""
    pages = _Pages(study)

    def page(make: Callable[[Request], str]) -> Callable[[Request], Response]:
        return lambda request: HTMLResponse(make(request))

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name in _OURS:
            content = (files("hiersae_cli.study") / "assets" / name).read_text(encoding="utf-8")
            return Response(content, media_type=_OURS[name])
        if name not in _ASSETS:
            raise HTTPException(404)
        return Response(asset_text(name), media_type=_ASSETS[name])

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title, says = _MESSAGES.get(status, _MESSAGES[500])
        return HTMLResponse(pages.message(title, says), status)

    async def step(request: Request) -> Response:
        token, what = request.path_params["token"], request.path_params["step"]
        rater = study.rater(token)
        (signature,) = await read_form(request, "signature")
        _check(signature, study.sign(token, what))
        await run_in_threadpool(study.store.take_step, rater, what)
        return RedirectResponse(f"/r/{token}", 303)

    async def answer(request: Request) -> Response:
        token = request.path_params["token"]
        rater = study.rater(token)
        names = ("item", "value", "shown", "label_of", "signature")
        item_id, value, shown, label_of, signature = await read_form(request, *names)
        _check(signature, study.sign(token, item_id, shown, label_of))
        item = study.files.items[item_id]
        value = " ".join(value.encode("utf-8", "replace").decode().split()) if item.task == LABEL else value
        if not allowed(item, value):
            raise HTTPException(400)
        ms = max(0, round(time.time() * 1000) - int(shown))
        given = Answer(HUMAN, rater, "", item_id, value, ms, label_of=int(label_of) if label_of else None)
        await run_in_threadpool(_keep, study, given)
        return RedirectResponse(f"/r/{token}", 303)

    async def switch(request: Request) -> Response:
        token, what = request.path_params["token"], request.path_params["what"]
        _administrator(study, token)
        (signature,) = await read_form(request, "signature")
        _check(signature, study.sign(token, what))
        await run_in_threadpool(study.store.stop, what == "stop")
        return RedirectResponse(f"/admin/{token}", 303)

    def export(request: Request) -> Response:
        _administrator(study, request.path_params["token"])
        kind = request.path_params["kind"]
        rows = [vars(answer) for answer in study.store.answers()]
        if kind == "json":
            content, media = json.dumps(rows, indent=2, ensure_ascii=False), "application/json"
        else:
            content, media = answers_csv(study.store.answers()), "text/csv"
        headers = {"content-disposition": f'attachment; filename="answers.{kind}"'}
        return Response(content, media_type=media, headers=headers)

    def administer(request: Request) -> str:
        _administrator(study, request.path_params["token"])
        return pages.administer(request.path_params["token"])

    routes = [
        Route("/", page(lambda request: pages.message("A study", "Open it by the link that you were sent."))),
        Route("/r/{token}", page(lambda request: pages.rater(request.path_params["token"]))),
        Route(
            "/r/{token}/practice/{number:int}",
            page(lambda request: pages.practise(request.path_params["token"], request.path_params["number"])),
        ),
        Route("/r/{token}/answer", answer, methods=["POST"]),
        Route("/r/{token}/{step:str}", step, methods=["POST"]),
        Route("/admin/{token}", page(administer)),
        Route("/admin/{token}/answers.{kind}", export),
        Route("/admin/{token}/{what:str}", switch, methods=["POST"]),
        Route("/assets/{name}", file),
    ]
    answers = Starlette(routes=routes, exception_handlers={HTTPException: failed, Exception: failed})
    names = {*LOOPBACK, host}
    origins: tuple[str, ...] = ()
    if public:
        address = urlsplit(public)
        names, origins = names | {address.hostname or ""}, (f"{address.scheme}://{address.netloc}",)
    # Nothing is kept by the browser: going back shows what is next, never a form that was sent.
    return Guard(answers, names, POLICY.format(file=""), origins, "no-store")


def answers_csv(answers: list[Answer]) -> str:
    """Answers as a table; no cell that a spreadsheet would take for a formula."""
    from hiersae_cli.formats.text import cell

    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["kind", "rater", "name", "item", "value", "ms", "time", "label_of"])
    for one in answers:
        label_of = "" if one.label_of is None else one.label_of
        writer.writerow([one.kind, one.rater, cell(one.name), one.item, cell(one.value), one.ms, one.time, label_of])
    return output.getvalue()


def _keep(study: Study, answer: Answer) -> None:
    """Keep an answer of the rater's own session while the study is open; the first of several counts."""
    if study.store.stopped():
        raise HTTPException(409)
    if answer.item not in {item.id for item in study.session(answer.rater)}:
        raise HTTPException(403)
    if not {CONSENT, PRACTISED} <= study.store.steps(answer.rater):
        raise HTTPException(403)
    study.store.add(answer)


def _check(given: str, wanted: str) -> None:
    if not secrets.compare_digest(given.encode(), wanted.encode()):
        raise HTTPException(403)


def _administrator(study: Study, token: str) -> None:
    if not secrets.compare_digest(token.encode(), study.links.administrator.encode()):
        raise HTTPException(404)


class _Pages:
    """The pages as HTML."""

    def __init__(self, study: Study):
        self._study = study
        self._environment = Environment(
            loader=PackageLoader("hiersae_cli.study", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            version=__version__, excerpt=excerpt, longest=LONGEST_LABEL, edge_answers=EDGE_ANSWERS
        )

    def message(self, title: str, says: str) -> str:
        """A page that says something."""
        return self._render("message", title=title, says=says)

    def rater(self, token: str) -> str:
        """What a rater is to do next."""
        study = self._study
        rater = study.rater(token)
        if study.store.stopped():
            return self.message(*_MESSAGES[409])
        steps = study.store.steps(rater)
        total = len(study.session(rater))
        if CONSENT not in steps:
            tasks = [TASKS[task] for task in study.tasks]
            sign = study.sign(token, CONSENT)
            values = {"tasks": tasks, "total": total, "token": token, "signature": sign}
            return self._render("welcome", title="A study of what language models look for", **values)
        if PRACTISED not in steps:
            return self.practise(token, 0)
        shown, done, waiting = study.next(rater)
        if shown is None:
            says = "All your answers are kept. You may close this page."
            if waiting:
                says = (
                    f"{waiting} more questions use words that other raters write, and are not there yet. All your "
                    "answers are kept; please open this link again later."
                )
            return self.message("Thank you" if not waiting else "Almost done", says)
        now, label_of = round(time.time() * 1000), "" if shown.label_of is None else shown.label_of
        return self._item(
            shown.item,
            shown.words,
            action=f"/r/{token}/answer",
            fields={
                "item": shown.item.id,
                "shown": now,
                "label_of": label_of,
                "signature": study.sign(token, shown.item.id, now, label_of),
            },
            done=done,
            total=total,
            practice=None,
        )

    def practise(self, token: str, number: int) -> str:
        """An item to practise on; its answer is told by the page itself, and kept nowhere."""
        study = self._study
        study.rater(token)
        if not 0 <= number < len(study.tasks):
            raise HTTPException(404)
        last = number + 1 == len(study.tasks)
        one: Practice = PRACTICE[study.tasks[number]]
        step = {"signature": study.sign(token, PRACTISED)} if last else {}
        return self._item(
            one.item,
            one.words,
            action=f"/r/{token}/{PRACTISED}" if last else f"/r/{token}/practice/{number + 1}",
            fields=step,
            done=number,
            total=len(study.tasks),
            practice=one,
        )

    def _item(self, item: Item, words: str, **values: Any) -> str:
        task = TASKS[item.task]
        question, help = task.question, task.help
        if item.task == CHECK and item.key is not None:
            question = f"Please choose number {item.key + 1}"
            help = "This question checks that questions are read. Choose that number, whatever the texts say."
        names = list(EDGE_ANSWERS) if item.task == EDGE else []
        return self._render(
            "item",
            title=question,
            help=help,
            words=words,
            kind="words" if item.task == LABEL else "edge" if item.task == EDGE else "choose",
            shown=item.shown,
            options=item.options,
            names=names,
            **values,
        )

    def administer(self, token: str) -> str:
        """Progress, agreement over all conditions, stop and export."""
        study = self._study
        answers = [one for one in study.store.answers() if one.kind == HUMAN]
        rows = []
        for rater, link in enumerate(study.links.raters):
            own = [one for one in answers if one.rater == rater]
            checks = [one for one in own if study.files.items[one.item].task == CHECK]
            passed = sum(one.value == str(study.files.items[one.item].key) for one in checks)
            median = float(np.median([one.ms for one in own])) / 1000 if own else None
            rows.append(
                {
                    "rater": rater,
                    "link": f"/r/{link}",
                    "done": len(own),
                    "total": len(study.session(rater)),
                    "checks": f"{passed} of {len(checks)}",
                    "seconds": f"{median:.1f}" if median is not None else "–",
                }
            )
        by_task = []
        for task in dict.fromkeys(item.task for item in study.files.items.values()):
            items = [item for item in study.files.items.values() if item.task == task]
            given = [one for one in answers if study.files.items[one.item].task == task]
            alpha = krippendorff_alpha(values_of(items, given)[1]) if task not in (LABEL, CHECK) else float("nan")
            shown = f"{alpha:.3f}" if np.isfinite(alpha) else "–"
            by_task.append({"title": TASKS[task].title, "answers": len(given), "alpha": shown})
        stopped = study.store.stopped()
        what = "open" if stopped else "stop"
        return self._render(
            "admin",
            title="Progress",
            rows=rows,
            by_task=by_task,
            answers=len(answers),
            stopped=stopped,
            what=what,
            token=token,
            signature=study.sign(token, what),
            exposed=study.exposed,
            place=study.store.place,
        )

    def _render(self, template: str, **values: Any) -> str:
        return self._environment.get_template(f"{template}.html.jinja").render(**values)


def values_of(items: list[Item], answers: list[Answer]) -> tuple[list[tuple[str, int, str]], Any]:
    """Who answered, and the number of the value that each gave to each item: (R, I), -1 where none was given."""
    who = sorted({(one.kind, one.rater, one.name) for one in answers})
    value_RI = np.full((len(who), len(items)), -1)
    row = {one: number for number, one in enumerate(who)}
    column = {item.id: number for number, item in enumerate(items)}
    names = {name: number for number, name in enumerate(EDGE_ANSWERS)}
    for one in answers:
        if one.item in column:
            value = names[one.value] if one.value in names else int(one.value)
            value_RI[row[one.kind, one.rater, one.name], column[one.item]] = value
    return who, value_RI


def excerpt(one: Excerpt) -> Markup:
    """An excerpt with its marks, everything escaped."""
    parts = []
    for token, step in zip(one["tokens"], one["steps"], strict=True):
        quiet = text.running(token)
        parts.append(Markup('<mark class="h{}">{}</mark>').format(int(step), quiet) if step and token else quiet)
    return Markup("").join(parts)
