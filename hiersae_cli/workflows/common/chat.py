"""Ask a language model: one request, one answer. It is behind an OpenAI-compatible service, or on this machine."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from email.message import Message
from pathlib import Path
from typing import Any

from hiersae_cli.errors import HierSAEError, UsageError
from hiersae_cli.formats.labels import LONGEST, tidy

_TRIES = 4
_BUSY = (429, 500, 502, 503, 504)
_LONGEST_WAIT = 30.0  # seconds
_LONGEST_EXCERPT = 200  # characters of a service's own message
_MOST_BYTES = 1 << 20  # of an answer


@dataclass
class Cost:
    """What a model was asked and answered.

    Attributes:
        calls: requests.
        tokens_read, tokens_written: tokens of the requests and of the answers, as the model counts them.
        calls_not_counted: calls for which the service did not say how many tokens there were.
        seconds: waited for answers.
    """

    calls: int = 0
    tokens_read: int = 0
    tokens_written: int = 0
    calls_not_counted: int = 0
    seconds: float = 0.0

    @property
    def in_words(self) -> str:
        """``21 calls, 3,412 tokens read, 21 written, 12 s``."""
        text = f"{self.calls:,} calls, {self.tokens_read:,} tokens read, {self.tokens_written:,} written"
        if self.calls_not_counted:
            text += f" (the service did not count those of {self.calls_not_counted:,} calls)"
        return f"{text}, {self.seconds:,.0f} s"

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"seconds": round(self.seconds, 1)}


class Chat(ABC):
    """A language model that answers.

    Attributes:
        name: of the model, as in the author of a label.
        address: of the service; "" if the model is on this machine.
        cost: of all calls so far.
    """

    name: str
    address: str
    cost: Cost

    @abstractmethod
    def ask(self, system: str, user: str) -> str:
        """The model's answer. Raises ``HierSAEError`` if there is none."""

    @abstractmethod
    def choose(self, system: str, user: str, options: Sequence[str]) -> tuple[str | None, str]:
        """Which of some lower-case words the model answers, or None; and its answer. Raises as ``ask`` does."""

    def record(self, path: Path, subject: dict[str, str], system: str, user: str, answer: str) -> None:
        """Add a line to a file: the subject, what was sent to whom, and the answer; never the key."""
        entry = {
            **subject,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "endpoint": self.address,
            "llm": self.name,
            "system": system,
            "user": user,
            "answer": answer,
        }
        with open(path, "a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


class ChatEndpoint(Chat):
    """A service that answers ``POST ADDRESS/chat/completions``.

    Args:
        address: such as ``http://127.0.0.1:8000/v1``.
        model: the name by which the service knows the model.
        key: sent as a bearer token, unless empty.
        timeout: seconds to wait for an answer.
        sleep: waits between tries.
    """

    def __init__(self, address: str, model: str, key: str, timeout: float, sleep: Callable[[float], None] = time.sleep):
        self.name, self.address, self.cost = model, address, Cost()
        self._url = address.rstrip("/") + "/chat/completions"
        self._key, self._timeout, self._sleep = key, timeout, sleep
        # A redirect would carry the key and the contexts to a service that the user has not named.
        self._opener = urllib.request.build_opener(_NoRedirect)

    def ask(self, system: str, user: str) -> str:
        """The model's answer; asks a few times if the service is busy.

        Raises ``HierSAEError`` if the service cannot be reached, refuses, or answers with something else.
        """
        body = {
            "model": self.name,
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
        begin = time.monotonic()
        for tries in range(1, _TRIES + 1):
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    answer = response.read(_MOST_BYTES)
                self.cost.seconds += time.monotonic() - begin
                return self._content(answer)
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

    def choose(self, system: str, user: str, options: Sequence[str]) -> tuple[str | None, str]:
        """The first word of the model's answer, if it is one of the options; and the answer."""
        answer = self.ask(system, user)
        word = next(iter(re.findall(r"[a-z]+", answer.lower())), None)
        return word if word in options else None, answer

    def _content(self, answer: bytes) -> str:
        try:
            data = json.loads(answer)
            content = data["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise self._foreign(answer) from None
        if not isinstance(content, str):
            raise self._foreign(answer)
        self._count(data.get("usage"))
        return content

    def _count(self, usage: Any) -> None:
        """Add a call to the cost; a service may leave out its tokens."""
        self.cost.calls += 1
        names = ("prompt_tokens", "completion_tokens")
        read, written = (usage.get(name) if isinstance(usage, dict) else None for name in names)
        if isinstance(read, int) and isinstance(written, int):
            self.cost.tokens_read += read
            self.cost.tokens_written += written
        else:
            self.cost.calls_not_counted += 1

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


def key_of(variable: str) -> str:
    """The key of a service, from the environment; "" if no variable is named. Raises ``UsageError``."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"--key-env {variable}: no such variable, or it is empty", "Set it to the key.")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"--key-env {variable}: holds characters that no key has")
    return key


def first_line(answer: str) -> str:
    """The first line of an answer that is not empty, without the quotation marks that models like to add."""
    unmarked = re.sub("[⟪⟫\ufffd]", "", answer)  # small models repeat the marks, or stop within a character
    lines = [line.strip().strip("\"'“”*`").strip() for line in unmarked.splitlines()]
    return tidy(next((line for line in lines if line), ""))[:LONGEST]


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
