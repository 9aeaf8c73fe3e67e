"""The folder of a human study, ``study.json`` and the files next to it: specified in ``docs/file-formats.md``."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json, replacing, write_json, write_text
from hiersae_cli.formats.described import Described
from hiersae_cli.formats.fields import COUNT, Kind, require_fields
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.reading import read_utf8, reading, reason

STUDY, ITEMS, LINKS = "hiersae.study", "hiersae.study.items", "hiersae.study.links"
VERSIONS = {STUDY: 2, ITEMS: 2, LINKS: 1}
DESIGN_FILE, ITEMS_FILE, LINKS_FILE, PREREGISTRATION = "study.json", "items.json", "links.json", "preregistration.md"
CONSENT_FILE = "consent.md"
ANSWERS_FILE, REHEARSAL_FILE = "answers.sqlite", "simulated.sqlite"

HINT = "Make the study again with 'hiersae study new'."
_STEP = range(10)
_EXCERPTS: Kind = [[{"tokens": [str], "steps": [_STEP]}]]
_ITEM: dict[str, Kind] = {
    "id": str,
    "task": str,
    "condition": str,
    "set": int,
    "latents": [str],
    "rate": float,
    "decile": int,
    "shown": _EXCERPTS,
    "options": _EXCERPTS,
    "key": (COUNT, None),
    "words": str,
}
_DESIGN: dict[str, Kind] = {
    "hiersae_version?": str,
    "created?": str,
    "config?": dict,
    "inputs?": {str: str},
    "items_sha256": str,
    "design": {
        "tasks": [str],
        "conditions": {str: [str]},
        "sets": {str: COUNT},
        "sets_per_rater?": COUNT,
        "raters": COUNT,
        "checks?": COUNT,
        "effect?": float,
        "power?": float,
        "confidence?": float,
        "resamples?": COUNT,
        "seed?": int,
        "rules": {str: float},
        "planned?": dict,
        "minutes": float,
        "consent_sha256": str,
    },
}

Excerpt = dict[str, list[Any]]  # "tokens": texts; "steps": of the activation ramp, 0 for none


@dataclass(frozen=True)
class Item:
    """A question, with its answer and its condition, which never leave the server.

    Attributes:
        id: says nothing about its content.
        task, condition: as ``study.protocol`` names them.
        set: number of its matched set, the same for the set's items in other conditions. -1 for checks.
        latents: in it, such as ``run:1.17`` or ``baseline:203``, first the one that it is about.
        rate: the firing rate that it was matched on.
        decile: of an example intruder, the tenth of the activations its contexts come from, 1 the strongest; else 0.
        shown: groups of excerpts above the options.
        options: groups of excerpts to choose from.
        key: the number of the right option, counted from 0; None if there is none.
        words: of a label to be matched, if it is known beforehand; "" if raters of the study write it.
    """

    id: str
    task: str
    condition: str
    set: int
    latents: list[str]
    rate: float
    decile: int
    shown: list[list[Excerpt]]
    options: list[list[Excerpt]]
    key: int | None
    words: str = ""


@dataclass(frozen=True)
class StudyFiles:
    """A study, read from its folder.

    Attributes:
        path: the folder.
        header: all of ``study.json``.
        items: by id.
        consent: what raters are told and agree to, as Markdown; "" if only the pages' own text.
    """

    path: Path
    header: dict[str, Any]
    items: dict[str, Item]
    consent: str = ""

    @property
    def design(self) -> dict[str, Any]:
        """The decisions made before the first answer."""
        design: dict[str, Any] = self.header["design"]
        return design

    @property
    def sha256(self) -> str:
        """The fingerprint of the items."""
        return str(self.header["items_sha256"])

    def conditions(self, task: str) -> tuple[str, ...]:
        """The conditions of a task, first the one that the others are compared with."""
        return tuple(self.design["conditions"].get(task, ()))


def fingerprint(data: Any) -> str:
    """sha256 of plain data, written as JSON without spaces and with sorted keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def items_fingerprint(items: dict[str, Item]) -> str:
    """The fingerprint of items."""
    return fingerprint([asdict(item) for item in items.values()])


def write_study(
    folder: Path, header: dict[str, Any], items: dict[str, Item], preregistration: str, consent: str = ""
) -> None:
    """Write a study without its links and answers into an empty folder."""
    write_json(folder / DESIGN_FILE, header)
    common = {"schema_version": VERSIONS[ITEMS]} | {key: header[key] for key in ("hiersae_version", "created")}
    content = {"schema": ITEMS, **common, "items": [asdict(item) for item in items.values()]}
    write_text(folder / ITEMS_FILE, json.dumps(content, ensure_ascii=True, allow_nan=False) + "\n")
    write_text(folder / PREREGISTRATION, preregistration)
    if consent:
        write_text(folder / CONSENT_FILE, consent)


def load_study(folder: str | Path) -> StudyFiles:
    """A study; raises ``FileError`` if a file is missing or damaged, or does not belong to the design."""
    folder = Path(folder)
    header = read_json(folder / DESIGN_FILE)
    check_schema(folder / DESIGN_FILE, header, STUDY, VERSIONS[STUDY])
    content = read_json(folder / ITEMS_FILE)
    check_schema(folder / ITEMS_FILE, content, ITEMS, VERSIONS[ITEMS])
    require_fields(folder / DESIGN_FILE, header, _DESIGN, HINT)
    require_fields(folder / ITEMS_FILE, content, {"items": [_ITEM]}, HINT)
    with reading(folder / ITEMS_FILE, HINT):
        items = {fields["id"]: Item(**fields) for fields in content["items"]}
    if items_fingerprint(items) != header["items_sha256"]:
        raise FileError(
            f"{folder / ITEMS_FILE}: not the items that {DESIGN_FILE} was written for",
            "Answers to changed items belong to another study: restore the file.",
        )
    return StudyFiles(folder, header, items, _load_consent(folder, header["design"]["consent_sha256"]))


def read_consent(path: str | Path) -> str:
    """The text of a consent file; raises ``FileError`` if it is missing, empty or not UTF-8."""
    try:
        text = read_utf8(path, "utf-8-sig")
    except FileNotFoundError:
        raise FileError(f"{path}: no such file", "Check the path.") from None
    except ValueError as error:
        raise FileError(f"{path}: not a text in UTF-8 ({reason(error)})", "Save it as UTF-8.") from None
    if not text.strip():
        raise FileError(f"{path}: empty", "Write what raters should know and agree to, in Markdown.")
    return text


def _load_consent(folder: Path, sha256: str) -> str:
    """The text that raters agree to; raises ``FileError`` if it is missing or not the registered one."""
    if not sha256:
        return ""
    path = folder / CONSENT_FILE
    text = read_consent(path)
    if fingerprint(text) != sha256:
        raise FileError(f"{path}: not the text that was registered", "Raters agreed to another text: restore the file.")
    return text


class Links:
    """The secrets of a study: the private link of every rater, the administrator's, and the key of its forms.

    They come from the system's generator, never from the study's seed, and only the owner may read the file.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / LINKS_FILE
        self._content: dict[str, Any] = {"raters": [], "administrator": "", "key": ""}
        if self.path.exists():
            self._content = read_json(self.path)
            check_schema(self.path, self._content, LINKS, VERSIONS[LINKS])
            require_fields(self.path, self._content, {"raters": [str], "administrator": str, "key": str}, HINT)

    def ensure(self, raters: int) -> None:
        """Make links for ``raters`` raters; existing links stay."""
        if len(self.raters) >= raters and self.administrator:
            return
        self._content = {
            "schema": LINKS,
            "schema_version": VERSIONS[LINKS],
            "administrator": self.administrator or secrets.token_urlsafe(32),
            "key": self._content["key"] or secrets.token_hex(32),
            "raters": [*self.raters, *(secrets.token_urlsafe(24) for _ in range(raters - len(self.raters)))],
        }
        with replacing(self.path, mode=0o600) as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
            temporary.write_text(json.dumps(self._content, indent=2) + "\n")

    @property
    def raters(self) -> list[str]:
        """The raters' tokens, by number."""
        return list(self._content["raters"])

    @property
    def administrator(self) -> str:
        """The administrator's token."""
        return str(self._content["administrator"])

    @property
    def key(self) -> bytes:
        """The key that signs forms."""
        return str(self._content["key"]).encode()


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of a study by its ``study.json``; raises ``FileError`` as ``load_study`` does.

    Reading it compares the items with their fingerprint; nothing more can be verified.
    """
    study = load_study(path.parent)
    counts = Counter(item.task for item in study.items.values())
    details = {"items": dict(counts), "raters": study.design["raters"], "items_sha256": study.sha256}
    lines = [
        ("items", ", ".join(f"{count:,} {task}" for task, count in sorted(counts.items()))),
        ("raters", f"{study.design['raters']:,} planned"),
    ]
    return Described("study", study.header, details, lines)
