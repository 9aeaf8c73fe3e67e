"""A stand-in for the Hugging Face hub: as much of its HTTP interface as uploads, downloads and licences need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"


class FakeHub:
    """The repositories of the stand-in.

    Attributes:
        address: for ``HF_ENDPOINT``.
        files: the content of every file by the repository's name, with ``datasets/`` in front for data sets.
        commits: messages of the commits by repository.
        licenses: of other repositories, which have no files.
        requests: methods and paths that were asked for.
    """

    def __init__(self, address: str):
        self.address = address
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, list[str]] = {}
        self.licenses: dict[str, str] = {}
        self.requests: list[str] = []

    def environment(self, home: Path) -> dict[str, str]:
        """Variables with which ``huggingface_hub`` asks the stand-in, and keeps downloads in ``home``."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def sha(self, name: str) -> str:
        """The commit of a repository's content."""
        parts = (f"{path}\0".encode() + content for path, content in sorted(self.files[name].items()))
        return hashlib.sha1(b"".join(parts)).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A stand-in that answers at an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = FakeHub(f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.hub  # type: ignore[attr-defined]
    server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid credentials in Authorization header"})
        if path == "/api/repos/create":
            request = json.loads(body)
            kind = "datasets/" if request.get("type") == "dataset" else ""
            name = "/".join(filter(None, (request.get("organization"), request["name"])))
            hub.files.setdefault(kind + name, {})
            return self._send(200, {"url": f"{hub.address}/{kind}{name}", "id": name})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path.startswith("/api/"):
            return self._repository(hub, path, body)
        return self._file(hub, path.lstrip("/"))

    def _repository(self, hub: FakeHub, path: str, body: bytes) -> None:
        kind, owner, rest = path.removeprefix("/api/").split("/", 2)
        repository, _, action = rest.partition("/")
        name = ("datasets/" if kind == "datasets" else "") + f"{owner}/{repository}"
        if name not in hub.files and name in hub.licenses:
            card = {"cardData": {"license": hub.licenses[name]}}
            return self._send(200, {"id": name, "sha": "0" * 40, "siblings": [], **card})
        if name not in hub.files:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if action.startswith("preupload"):
            uploads = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._send(200, {"files": uploads})
        if action.startswith("commit"):
            lines = [json.loads(line) for line in body.splitlines()]
            hub.commits.setdefault(name, []).append(lines[0]["value"]["summary"])
            for line in lines[1:]:
                hub.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            sha = hub.sha(name)
            address = f"{hub.address}/{name}/commit/{sha}"
            return self._send(200, {"success": True, "commitOid": sha, "commitUrl": address})
        if action.startswith("tree"):
            return self._send(
                200,
                [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in hub.files[name].items()
                ],
            )
        siblings = [{"rfilename": file} for file in hub.files[name]]
        return self._send(200, {"id": name, "sha": hub.sha(name), "siblings": siblings})

    def _file(self, hub: FakeHub, path: str) -> None:
        name, _, rest = path.partition("/resolve/")
        file = rest.partition("/")[2]
        content = hub.files.get(name, {}).get(file)
        if content is None:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": hub.sha(name)}
        return self._send(200, content, headers)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for header, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
