"""The study over HTTP: raters by private links, an administrator by another.

The browser receives an item's texts and its id, and nothing else: not its condition, its answer or its latents.
What a form carries is signed with the rater's token, so that one rater's form is worth nothing in another's hands.
"""

from __future__ import annotations

import json
import re
import time
from importlib.resources import files
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hiersae_cli.pages.render import POLICY
from hiersae_cli.pages.server import LOOPBACK, Guard, read_form
from hiersae_cli.pages.text import asset_text
from hiersae_cli.study.answers import to_watch
from hiersae_cli.study.html import MESSAGES, StudyPages
from hiersae_cli.study.live import ANSWER, JOIN, OPEN, SECOND_HALF, STEP, STOP, SWITCH, Study
from hiersae_cli.study.protocol import LABEL, allowed
from hiersae_cli.study.store import CONSENT, HUMAN, PRACTICE, Answer

_DASHBOARD_ASSETS = {"dashboard.css": "text/css", "icon.svg": "image/svg+xml"}
_STEP = re.compile(rf"{CONSENT}|{PRACTICE}|(practice|break)-\d{{1,6}}")
_STUDY_ASSETS = {"study.css": "text/css", "study.js": "text/javascript"}


def app(study: Study, *, host: str = LOOPBACK[0], public: str = "") -> ASGIApp:
    """The application. It answers to loopback's names, to ``host`` and to the name in the address ``public``."""
    address = urlsplit(public)
    prefix = address.path.rstrip("/")
    server = StudyServer(study, prefix)
    routes = [
        Route("/", server.welcome),
        Route("/join/{token}", server.common),
        Route("/join/{token}", server.join, methods=["POST"]),
        Route("/r/{token}", server.rater),
        Route("/r/{token}/practice/{number:int}", server.practice),
        Route("/r/{token}/break/{number:int}", server.rest),
        Route("/r/{token}/item/{item}", server.item),
        Route("/r/{token}/item/{item}", server.answer, methods=["POST"]),
        Route("/r/{token}/declined", server.declined),
        Route("/r/{token}/{step:str}", server.step, methods=["POST"]),
        Route("/admin/{token}", server.administration),
        Route("/admin/{token}/answers.{kind}", server.export),
        Route("/admin/{token}/{switch:str}", server.switch, methods=["POST"]),
        Route("/assets/{name}", asset),
    ]
    answers = Starlette(routes=routes, exception_handlers={HTTPException: server.failed, Exception: server.failed})
    names = {*LOOPBACK, host}
    origins: tuple[str, ...] = ()
    if address.hostname:
        names, origins = names | {address.hostname}, (f"{address.scheme}://{address.netloc}",)
    # The browser keeps nothing: going back asks the server, which says that the question is answered.
    return Guard(_below(prefix, answers), names, POLICY.format(file=""), origins, "no-store")


def _below(prefix: str, application: ASGIApp) -> ASGIApp:
    """The application below a path, which a proxy may pass on or remove."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": prefix}  # Starlette removes it from paths that begin with it
        await application(scope, receive, send)

    return answer


class StudyServer:
    """What each address answers; ``prefix`` is the path of the public address."""

    def __init__(self, study: Study, prefix: str = ""):
        self._study, self._prefix, self._pages = study, prefix, StudyPages(study, prefix)

    def welcome(self, request: Request) -> Response:
        """The page without a link."""
        return HTMLResponse(self._pages.message("A study", "Open it by the link that you were sent."))

    def common(self, request: Request) -> Response:
        """The common link."""
        return HTMLResponse(self._pages.join(request.path_params["token"]))

    async def join(self, request: Request) -> Response:
        """A free private link for somebody who came by the common one."""
        token = request.path_params["token"]
        self._study.require_common(token)
        (signature,) = await read_form(request, "signature")
        self._study.require_signature(signature, JOIN, token)
        own = await run_in_threadpool(self._study.join)
        if own:
            return RedirectResponse(f"{self._prefix}/r/{own}", 303)
        return HTMLResponse(
            self._pages.message("No place is free", "Nothing was stored. Please return your place."), 409
        )

    def rater(self, request: Request) -> Response:
        """A rater's link, which leads to where the rater is."""
        token = request.path_params["token"]
        if place := self._pages.place(token):
            return RedirectResponse(f"{self._prefix}/r/{token}/{place}", 303)
        return HTMLResponse(self._pages.rater(token))

    def item(self, request: Request) -> Response:
        """A question, at an address of its own."""
        token = request.path_params["token"]
        return self._or_link(token, self._pages.item(token, request.path_params["item"]))

    def practice(self, request: Request) -> Response:
        """An item to practise on."""
        token = request.path_params["token"]
        return self._or_link(token, self._pages.practice(token, request.path_params["number"]))

    def rest(self, request: Request) -> Response:
        """A break."""
        token = request.path_params["token"]
        return self._or_link(token, self._pages.rest(token, request.path_params["number"]))

    def declined(self, request: Request) -> Response:
        """The page of somebody who does not agree."""
        return HTMLResponse(self._pages.declined(request.path_params["token"]))

    def _or_link(self, token: str, page: str | None) -> Response:
        """The page; the rater's link if it is not the rater's turn to see it."""
        return HTMLResponse(page) if page else RedirectResponse(f"{self._prefix}/r/{token}", 303)

    async def step(self, request: Request) -> Response:
        """Consent, the end of a practice item, or of a break."""
        token, step = request.path_params["token"], request.path_params["step"]
        rater = self._study.rater(token)
        if not _STEP.fullmatch(step):
            raise HTTPException(404)
        (signature,) = await read_form(request, "signature")
        self._study.require_signature(signature, STEP, token, step)
        await run_in_threadpool(self._study.store.take_step, rater, step)
        return RedirectResponse(f"{self._prefix}/r/{token}", 303)

    async def answer(self, request: Request) -> Response:
        """An answer to an item."""
        token = request.path_params["token"]
        rater = self._study.rater(token)
        item_id = request.path_params["item"]
        value, shown_at, label_of, signature = await read_form(request, "value", "shown", "label_of", "signature")
        self._study.require_signature(signature, ANSWER, token, item_id, shown_at, label_of)
        item = self._study.files.items[item_id]
        value = " ".join(value.encode("utf-8", "replace").decode().split()) if item.task == LABEL else value
        if not allowed(item, value):
            raise HTTPException(400)
        ms = max(0, round(time.time() * 1000) - int(shown_at))
        answer = Answer(HUMAN, rater, "", item_id, value, ms, label_of=int(label_of) if label_of else None)
        await run_in_threadpool(self._study.keep, answer)
        return RedirectResponse(f"{self._prefix}/r/{token}", 303)

    def administration(self, request: Request) -> Response:
        """The administrator's page."""
        token = request.path_params["token"]
        self._study.require_administrator(token)
        return HTMLResponse(self._pages.administration(token))

    def export(self, request: Request) -> Response:
        """All answers as a file."""
        self._study.require_administrator(request.path_params["token"])
        kind, answers = request.path_params["kind"], self._study.store.answers()
        if kind not in ("csv", "json"):
            raise HTTPException(404)
        if kind == "json":
            content = json.dumps([vars(answer) for answer in answers], indent=2, ensure_ascii=False)
            media_type = "application/json"
        else:
            blind = not self._study.store.stopped()
            content, media_type = to_watch(self._study.files, answers, blind), "text/csv"
        headers = {"content-disposition": f'attachment; filename="answers.{kind}"'}
        return Response(content, media_type=media_type, headers=headers)

    async def switch(self, request: Request) -> Response:
        """Stop the study, open it again, or let the second half of the raters begin."""
        token, switch = request.path_params["token"], request.path_params["switch"]
        self._study.require_administrator(token)
        if switch not in (STOP, OPEN, SECOND_HALF):
            raise HTTPException(404)
        (signature,) = await read_form(request, "signature")
        self._study.require_signature(signature, SWITCH, token, switch)
        if switch == SECOND_HALF:
            await run_in_threadpool(self._study.store.begin_second_half)
        else:
            await run_in_threadpool(self._study.store.stop, switch == STOP)
        return RedirectResponse(f"{self._prefix}/admin/{token}", 303)

    def failed(self, request: Request, error: Exception) -> Response:
        """A page that says what is wrong."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        return HTMLResponse(self._pages.message(*MESSAGES.get(status, MESSAGES[500])), status)


def asset(request: Request) -> Response:
    """A style sheet, script or icon."""
    name = request.path_params["name"]
    if name in _STUDY_ASSETS:
        content = (files("hiersae_cli.study") / "assets" / name).read_text(encoding="utf-8")
        return Response(content, media_type=_STUDY_ASSETS[name])
    if name not in _DASHBOARD_ASSETS:
        raise HTTPException(404)
    return Response(asset_text(name), media_type=_DASHBOARD_ASSETS[name])
