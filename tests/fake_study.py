"""A study without an index, whose texts try to be HTML; and a server of it in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn

from hiersae_cli.formats.study import (
    STUDY,
    VERSIONS,
    Item,
    Links,
    StudyFiles,
    fingerprint,
    items_fingerprint,
    load_study,
    write_study,
)
from hiersae_cli.study import preregistration
from hiersae_cli.study.live import Study
from hiersae_cli.study.protocol import CHECK, CHILD, CONDITIONS, EDGE, EXAMPLE, LABEL, MATCH, Rules, chances
from hiersae_cli.study.store import Store
from hiersae_cli.study.web import app

ATTACK = "<script>alert(1)</script>"
TASKS = (EXAMPLE, CHILD, EDGE, LABEL)


def make_study(
    folder: Path,
    *,
    sets: int = 2,
    raters: int = 3,
    tasks: tuple[str, ...] = TASKS,
    checks: int = 2,
    consent: str = "",
) -> Path:
    """A folder as ``hiersae study new`` writes it."""
    items: dict[str, Item] = {}

    def add(task: str, condition: str, number: int, shown: int, options: int) -> None:
        id = f"{len(items) + 0xA0:06x}"
        excerpt = {"tokens": [f" text {id}", " king", ATTACK, "\n"], "steps": [0, 7, 3, 0]}
        key = len(items) % options if options else None
        groups = [[excerpt, excerpt] for _ in range(options)]
        latents = [f"run:{number}"] if task != CHECK else []
        items[id] = Item(id, task, condition, number, latents, 0.01, 0, [[excerpt]] * shown, groups, key)

    sizes = {EXAMPLE: (0, 5), CHILD: (0, 4), EDGE: (2, 0), LABEL: (1, 0), MATCH: (0, 4)}
    for task in tasks:
        for part in (LABEL, MATCH) if task == LABEL else (task,):
            for condition in CONDITIONS[part]:
                for number in range(sets):
                    add(part, condition, number, *sizes[part])
    for _ in range(checks):
        add(CHECK, "", -1, 0, 5)
    design: dict[str, Any] = {
        "tasks": list(tasks),
        "sets": {task: sets for task in tasks},
        "conditions": {task: list(names) for task, names in CONDITIONS.items()},
        "materials": f"{sets} matched sets of each task.",
        "sets_per_rater": 0,
        "raters": raters,
        "checks": checks,
        "effect": 0.15,
        "power": 0.8,
        "confidence": 0.95,
        "resamples": 400,
        "seed": 3,
        "rules": asdict(Rules()),
        "planned": {},
        "minutes": 12,
        "consent_sha256": fingerprint(consent) if consent else "",
    }
    sha256 = items_fingerprint(items)
    header = {
        "schema": "hiersae.study",
        "schema_version": VERSIONS[STUDY],
        "hiersae_version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        "items_sha256": sha256,
        "design": design,
    }
    folder.mkdir(parents=True, exist_ok=True)
    guessing = chances(StudyFiles(folder, header, items))
    write_study(folder, header, items, preregistration.text(design, {}, sha256, guessing), consent)
    Links(folder).ensure(raters)
    assert f"`{fingerprint(design)}`" in (folder / "preregistration.md").read_text()
    return folder


def opened(folder: Path, url: str = "") -> tuple[StudyFiles, Store, Links]:
    """What a server needs of a folder."""
    study = load_study(folder)
    return study, Store(url or f"sqlite:///{folder / 'answers.sqlite'}", study.sha256), Links(folder)


@contextmanager
def serving(folder: Path, public: str = "", **end: str) -> Iterator[tuple[str, Study]]:
    """The address of a server of a study in a thread, and the study; ``end`` is its code and the page after it."""
    study = Study(*opened(folder), **end)
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(app(study, public=public), log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", study
    finally:
        server.should_exit = True
        thread.join(10)
        study.store.close()
