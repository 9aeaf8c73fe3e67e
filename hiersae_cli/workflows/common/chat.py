"""Ask a language model behind an OpenAI-compatible service: one request, one answer."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime, timezone
from email.message import Message
from pathlib import Path
from typing import Any

from hiersae_cli.errors import HierSAEError, UsageError

_TRIES = 4
_BUSY = (429, 500, 502, 503, 504)
_LONGEST_WAIT = 30.0  # seconds
_LONGEST_EXCERPT = 200  # characters of a service's own message
_MOST_BYTES = 1 << 20  # of an answer


class ChatEndpoint:
    """A service that answers ``POST ADDRESS/chat/completions``.

    Args:
        address: such as ``http://127.0.0.1:8000/v1``.
        model: the name by which the service knows the model.
        key: sent as a bearer token, unless empty.
        timeout: seconds to wait for an answer.
        sleep: waits between tries.
    """

    def __init__(self, address: str, model: str, key: str, timeout: float, sleep: Callable[[float], None] = time.sleep):
        self._address, self._url = address, address.rstrip("/") + "/chat/completions"
        self._model, self._key, self._timeout, self._sleep = model, key, timeout, sleep
        # A redirect would carry the key and the contexts to a service that the user has not named.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def ask(self, system: str, user: str) -> str:
        """The model's answer; asks a few times if the service is busy.

        Raises ``HierSAEError`` if the service cannot be reached, refuses, or answers with something else.
        """
        body = {
            "model": self._model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json", "User-Agent": "hiersae"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        except ValueError as error:
            raise UsageError(f"--endpoint {self._url}: no address ({error})") from None
        for tries in range(1, _TRIES + 1):
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    return self._content(response.read(_MOST_BYTES))
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY or tries == _TRIES:
                    raise self._refusal(error) from None
                self._sleep(_wait(error.headers, tries))
            except (OSError, http.client.HTTPException) as error:  # OSError: URLError and timeouts, too
                reason = getattr(error, "reason", None) or error
                raise HierSAEError(
                    f"{self._url}: cannot be reached ({str(reason) or type(reason).__name__})",
                    "Check --endpoint, and that the service is running; --timeout says how long to wait.",
                ) from None
        raise AssertionError("unreachable")

    def record(self, path: Path, subject: dict[str, str], system: str, user: str, answer: str) -> None:
        """Add a line to a file: the subject, what was sent to whom, and the answer; never the key."""
        entry = {
            **subject,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "endpoint": self._address,
            "llm": self._model,
            "system": system,
            "user": user,
            "answer": answer,
        }
        with open(path, "a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _content(self, answer: bytes) -> str:
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise self._foreign(answer) from None
        if not isinstance(content, str):
            raise self._foreign(answer)
        return content

    def _foreign(self, answer: bytes) -> HierSAEError:
        excerpt = " ".join(answer[:_LONGEST_EXCERPT].decode("utf-8", "replace").split())
        return HierSAEError(
            f"{self._url}: its answer is not that of a chat completion: {excerpt!r}",
            "--endpoint is the part before /chat/completions, often ending in /v1.",
        )

    def _refusal(self, error: urllib.error.HTTPError) -> HierSAEError:
        hints = {
            401: "Name the variable with the key: --key-env VARIABLE.",
            403: "Name the variable with the key: --key-env VARIABLE.",
            404: "Check --endpoint (the part before /chat/completions) and --llm.",
            429: "Wait, then run the same command again: existing labels stay.",
        }
        redirected = "It points elsewhere: give the address that it points to." if 300 <= error.code < 400 else ""
        message = _message(error.read(_MOST_BYTES))
        return HierSAEError(
            f"{self._url}: {error.code} {error.reason}{f': {message}' if message else ''}",
            redirected or hints.get(error.code, "Check --endpoint and --llm."),
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _wait(headers: Message, tries: int) -> float:
    """Seconds before the next try: what the service asks for, or more each time."""
    try:
        return min(max(float(headers.get("Retry-After", "")), 0.0), _LONGEST_WAIT)
    except ValueError:
        return min(2.0**tries, _LONGEST_WAIT)


def _message(answer: bytes) -> str:
    """What a service says of an error, in one line."""
    try:
        message = json.loads(answer)
        message = message.get("error", message) if isinstance(message, dict) else message
        message = message.get("message", message) if isinstance(message, dict) else message
    except ValueError:
        message = answer.decode("utf-8", "replace")
    return " ".join(str(message).split())[:_LONGEST_EXCERPT]
