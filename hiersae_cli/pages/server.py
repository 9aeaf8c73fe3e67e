"""The dashboard over HTTP, for the users of this machine.

Attacks by a foreign page in the same browser are refused: by the host name of a request (DNS rebinding), by the origin
that a request names (reading data with a script element, changing labels), and by a token in every form.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hiersae_cli.browse.index import Index
from hiersae_cli.errors import HierSAEError, UsageError
from hiersae_cli.pages.render import ASSETS, Page, Pages

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_FORM = 10_000  # bytes
_FORM_SECONDS = 30.0  # until all of a form has come
_SHUTDOWN_SECONDS = 3  # for requests that are open when the server is stopped


def serve(index: Index, *, host: str, port: int, author: str, ready: Callable[[str], None]) -> None:
    """Answer until interrupted. ``ready`` is called with the address once it can be opened; port 0 means a free port.

    Raises ``UsageError`` if the address is not available, or if no browser would use it.
    """
    answer(app(index, host=host, author=author), host, port, ready)


def answer(application: ASGIApp, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve an application as ``serve`` does."""
    if host in ("", "0.0.0.0", "::"):
        raise UsageError(
            f"--host-address {host or repr(host)}: this means every address of this machine",
            "Name the address that others use; the server answers to no other name.",
        )
    try:
        listening = _listen(host, port)
    except OSError as error:
        raise UsageError(
            f"--port {port}: cannot listen on it at {host} ({error.strerror or error})",
            "Another program may use it: choose another --port, or 0 for a free one.",
        ) from None
    config = uvicorn.Config(
        application,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    name = f"[{host}]" if ":" in host else host
    ready(f"http://{name}:{listening.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listening])


def app(index: Index, *, host: str = LOOPBACK[0], author: str = "") -> ASGIApp:
    """The application. It answers only to the names of the loopback interface and to ``host``."""
    pages = Pages(index, served=True, author=author, token=secrets.token_urlsafe())
    pages.prepare()

    def page(make: Callable[[Request], Page]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            try:
                return _html(pages, make(request))
            except KeyError:
                raise HTTPException(404) from None
            except HierSAEError as error:
                return _html(pages, pages.message(error.message, error.hint, 422))

        return endpoint

    def fragment(make: Callable[[Request], Page]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            try:
                return HTMLResponse(make(request).body)
            except KeyError:
                raise HTTPException(404) from None

        return endpoint

    def picture(request: Request) -> Response:
        try:
            return Response(pages.picture(request.path_params["id"]), media_type="image/svg+xml")
        except KeyError:
            raise HTTPException(404) from None

    def card(request: Request) -> Response:
        try:
            return Response(pages.card_data(request.path_params["file"]), media_type="text/javascript")
        except KeyError:
            raise HTTPException(404) from None

    def file(request: Request) -> Response:
        name = request.path_params["name"]
        content = pages.lasting(name)
        if not content:
            raise HTTPException(404)
        current = request.url.query == pages.version(name)
        headers = {"cache-control": "private, max-age=31536000, immutable"} if current else None
        return Response(content, media_type=ASSETS.get(name, "text/javascript"), headers=headers)

    def labels(request: Request) -> Response:
        return Response(pages.label_data(), media_type="text/javascript")

    async def label(request: Request) -> Response:
        return await _label(request, pages)

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title, explanation = _MESSAGES.get(status, _MESSAGES[500])
        return _html(pages, pages.message(title, explanation, status))

    routes = [
        Route("/", page(lambda request: pages.overview())),
        Route("/feature/{id}", page(lambda request: pages.feature(request.path_params["id"]))),
        Route(
            "/feature/{id}/children/{part:int}",
            fragment(lambda request: pages.children_part(request.path_params["id"], request.path_params["part"])),
        ),
        Route("/document/{number:int}", page(lambda request: _document(pages, request))),
        Route("/compare/{id}", page(lambda request: pages.compare(request.path_params["id"]))),
        Route("/baseline", page(lambda request: pages.fates())),
        Route("/baseline/are/{verdict}", page(lambda request: pages.fates(request.path_params["verdict"]))),
        Route("/baseline/{latent:int}", page(lambda request: pages.baseline(request.path_params["latent"]))),
        Route("/list/{name}", page(lambda request: pages.listing(request.path_params["name"]))),
        Route(
            "/list/{name}/{page:int}",
            page(lambda request: pages.listing(request.path_params["name"], request.path_params["page"])),
        ),
        Route("/report", page(lambda request: pages.report())),
        Route(
            "/search",
            page(lambda request: pages.search(*(request.query_params.get(name, "") for name in ["q", "by"]))),
        ),
        Route("/text", page(lambda request: pages.text(_typed(request)))),
        Route("/picture/{id}.svg", picture),
        Route("/label/{id}", label, methods=["POST"]),
        Route("/assets/labels.js", labels),
        Route("/assets/cards-{file:int}.js", card),
        Route("/assets/{name}", file),
    ]
    answers = Starlette(routes=routes, exception_handlers={HTTPException: failed, Exception: failed})
    return Guard(answers, {*LOOPBACK, host}, pages.policy)


_MESSAGES = {
    400: ("Not understood", "The request was not one of this dashboard's forms."),
    403: ("Refused", "The form is from another server, or the server has been restarted. Reload the page."),
    404: ("No such page", "There is no feature, list or picture with that name. Look for it in the tree, or search."),
    408: ("Too slow", "The form did not come in time. Send it again."),
    405: ("Not here", "This address does not answer this kind of request."),
    500: ("Something failed", "The terminal that serves the dashboard says more. The other pages still work."),
}


class Guard:
    """Refuses requests with another host name or from another page, and sets the headers of every answer.

    Args:
        names: the host names that it answers to, without ports.
        policy: the content-security policy.
        origins: further addresses that forms may come from, such as that of a proxy with TLS.
        cache: the Cache-Control header.
    """

    def __init__(
        self, inner: ASGIApp, names: set[str], policy: str, origins: tuple[str, ...] = (), cache: str = "no-cache"
    ):
        self.inner, self.names, self.origins = inner, names, origins
        self.headers = {
            "content-security-policy": f"{policy}; frame-ancestors 'none'",
            "cross-origin-opener-policy": "same-origin",
            # Keeps a foreign page from reading tree.js through its own script element.
            "cross-origin-resource-policy": "same-origin",
            # Not "no-referrer": browsers would then hide where a form comes from.
            "referrer-policy": "same-origin",
            "x-content-type-options": "nosniff",
            "cache-control": cache,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope)
        answer: ASGIApp = Response(refusal, 403, media_type="text/plain") if refusal else self.inner
        await answer(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, scope: Scope) -> str:
        host = headers.get("host", "")
        if _without_port(host) not in self.names:
            return f"This server does not answer to the name {host!r}. Open it as it was printed in the terminal.\n"
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin not in (f"http://{host}", *self.origins):
            return "Refused: the request comes from another page.\n"
        link = headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not link:
            return "Refused: the request comes from another page.\n"
        return ""


async def read_form(request: Request, *names: str) -> list[str]:
    """The fields of a sent form; raises ``HTTPException`` 400 if it is another form or too long, 408 if too slow."""
    try:
        body = await asyncio.wait_for(_body(request), _FORM_SECONDS)
    except asyncio.TimeoutError:
        raise HTTPException(408) from None
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=10)
        return [form[name][0].strip() for name in names]
    except (KeyError, ValueError):
        raise HTTPException(400) from None


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise HTTPException(400)
    return body


async def _label(request: Request, pages: Pages) -> Response:
    text, author, token = await read_form(request, "text", "author", "token")
    if not secrets.compare_digest(token.encode(), pages.token.encode()):
        raise HTTPException(403)
    id = request.path_params["id"]
    try:
        await run_in_threadpool(pages.index.set_label, id, text, author)
    except KeyError:
        raise HTTPException(404) from None
    except HierSAEError as error:
        return _html(pages, pages.message(error.message, error.hint, 422))
    return RedirectResponse(pages.link("feature", id), 303)


def _document(pages: Pages, request: Request) -> Page:
    at = request.query_params.get("at", "")
    place = int(at) if at.isascii() and at.isdigit() else -1
    return pages.document_part(request.path_params["number"], request.query_params.get("of", ""), place)


def _typed(request: Request) -> str:
    """The text of the form, with line ends as typed: browsers send CR LF."""
    return request.query_params.get("text", "").replace("\r\n", "\n")


def _html(pages: Pages, page: Page) -> HTMLResponse:
    return HTMLResponse(pages.document(page), page.status)


def _without_port(host: str) -> str:
    """``::1`` for ``[::1]:8000``."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    return name.strip("[]").lower()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)  # many raters may come at once
    except OSError:
        listening.close()
        raise
    return listening
