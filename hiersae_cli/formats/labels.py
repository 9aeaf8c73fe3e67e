"""Labels of a run's features (``labels.json`` in its folder): specified in ``docs/file-formats.md``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json, write_json
from hiersae_cli.formats.described import Described
from hiersae_cli.formats.fields import Kind, require_fields
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.levels import current_id, latent_id, parse_id
from hiersae_cli.locking import exclusive
from hiersae_cli.reading import reading
from hiersae_cli.version import __version__

SCHEMA = "hiersae.labels"
SCHEMA_VERSION = 2
FILE = "labels.json"  # in the folder of the run
LONGEST = 500  # characters

_HINT = "Repair it by hand, or move it away."
_LABEL: dict[str, Kind] = {"text": str, "author": str, "time": str}
_FIELDS: dict[str, Kind] = {"created": str, "run": str, "labels": {str: [_LABEL]}}


@dataclass(frozen=True)
class Label:
    """A feature's label, its author and its time.

    Attributes:
        text: the label; "" if it was removed.
        author: a person's name, or ``MODEL (automatic)``.
        time: UTC, ISO 8601, to the second.
    """

    text: str
    author: str
    time: str


@dataclass(frozen=True)
class _Snapshot:
    """The content of the file at one moment; ``stamp`` changes with the content."""

    stamp: tuple[int, ...]
    created: str
    history: dict[str, list[Label]]

    @cached_property
    def current(self) -> dict[str, Label]:
        return {id: of_node[-1] for id, of_node in self.history.items() if of_node[-1].text}


class Labels:
    """The labels of one run, as they are now: several programs may read and write the file at once.

    Args:
        run: the run's folder.
        sha256: of the run's weights; labels of other weights belong to other features, and are refused.
    """

    def __init__(self, run: str | Path, sha256: str):
        self.path = Path(run) / FILE
        self._sha256 = sha256
        self._known: _Snapshot | None = None

    def history(self) -> dict[str, list[Label]]:
        """Every label that a node ever had, by node, the latest last.

        Raises ``FileError`` if the file is damaged or of other weights, ``VersionError`` for another version.
        """
        return self._read().history

    def current(self) -> dict[str, Label]:
        """The label of every node that has one. Raises as ``history`` does."""
        return self._read().current

    def set(self, texts: Mapping[str, str], author: str) -> None:
        """Label nodes; an empty text removes a node's label. Texts are cut to one line of ``LONGEST`` characters."""
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with exclusive(self.path.parent):
            before = self._read()
            history = dict(before.history)
            for id, text in texts.items():
                id = current_id(id)
                label = Label(tidy(text), author, time)
                earlier = history.get(id, [])
                if label.text != (earlier[-1].text if earlier else ""):
                    history[id] = [*earlier, label]
            ordered = sorted(history.items(), key=lambda item: parse_id(item[0]))
            write_json(
                self.path,
                {
                    "schema": SCHEMA,
                    "schema_version": SCHEMA_VERSION,
                    "hiersae_version": __version__,
                    "created": before.created or time,
                    "run": self._sha256,
                    "labels": {id: [asdict(label) for label in of_node] for id, of_node in ordered},
                },
            )

    def _read(self) -> _Snapshot:
        """The file's content; it is read again only if the file has changed."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return _Snapshot((), "", {})
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        known = self._known
        if known is None or known.stamp != stamp:
            self._known = known = _Snapshot(stamp, *self._parse())
        return known

    def _parse(self) -> tuple[str, dict[str, list[Label]]]:
        data = read_json(self.path)
        check_schema(self.path, data, SCHEMA, 1, SCHEMA_VERSION)
        if data.get("run") != self._sha256:
            raise FileError(
                f"{self.path}: labels of other weights than those of this run",
                "The run was trained again: move the file away to start again.",
            )
        require_fields(self.path, data, _FIELDS, _HINT)
        with reading(self.path, _HINT):
            history = {
                latent_id(*parse_id(id)): [Label(**{name: label[name] for name in _LABEL}) for label in of_node]
                for id, of_node in data["labels"].items()
            }
            if not all(history.values()):
                raise ValueError("a node without labels")
        return data["created"], history


def tidy(text: str) -> str:
    """A label as one line of at most ``LONGEST`` characters."""
    return " ".join(text.encode("utf-8", "replace").decode().split())[:LONGEST].rstrip()


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of labels; raises ``FileError`` if the file is damaged. Nothing can be verified."""
    if path.name != FILE:
        raise FileError(f"{path}: labels of a run are called {FILE}", "Rename it.")
    data = read_json(path)
    check_schema(path, data, SCHEMA, 1, SCHEMA_VERSION)
    current = Labels(path.parent, str(data.get("run"))).current()
    authors = sorted({label.author for label in current.values()})
    details = {"labels": len(current), "authors": authors}
    lines = [("labels", f"{len(current):,}" + (f" by {', '.join(authors)}" if authors else ""))]
    return Described("labels", data, details, lines)
