"""Labels of a run's features (``labels.json`` in its folder): specified in ``docs/file-formats.md``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json, write_json
from hiersae_cli.formats.described import Described
from hiersae_cli.formats.fields import COUNT, Kind, require_fields
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
_SHARE = (float, None)
_SCORE: dict[str, Kind] = {
    "scorer": str,
    "balanced_accuracy": _SHARE,
    "low": _SHARE,
    "high": _SHARE,
    "firing": COUNT,
    "firing_right": COUNT,
    "siblings": COUNT,
    "siblings_right": COUNT,
    "others": COUNT,
    "others_right": COUNT,
    "unusable": COUNT,
}
_LABEL: dict[str, Kind] = {"text": str, "author": str, "time": str, "score?": (_SCORE, None)}
_FIELDS: dict[str, Kind] = {"created": str, "run": str, "labels": {str: [_LABEL]}}


@dataclass(frozen=True)
class Score:
    """How well a reader of a label can say in which held-out contexts the feature fires.

    Attributes:
        scorer: the language model that read the label.
        balanced_accuracy: mean of the shares of right answers in contexts with and without a firing; guessing gets 0.5.
        low, high: its 95 % interval. All three are None if there were no usable answers of both kinds.
        firing, firing_right: contexts with a firing, and right answers to them.
        siblings, siblings_right: the same for contexts in which a sibling fires and the feature is silent.
        others, others_right: the same for other contexts in which it is silent.
        unusable: answers that were neither yes nor no; they are not counted above.
    """

    scorer: str
    balanced_accuracy: float | None
    low: float | None
    high: float | None
    firing: int
    firing_right: int
    siblings: int
    siblings_right: int
    others: int
    others_right: int
    unusable: int

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above guessing."""
        return self.low is not None and self.low > 0.5

    @property
    def in_words(self) -> str:
        """``0.81 [0.66, 0.91] in 20 contexts, by MODEL``."""
        count = self.firing + self.siblings + self.others
        if self.balanced_accuracy is None:
            return f"no score: too few usable answers in {count} contexts, by {self.scorer}"
        return f"{self.balanced_accuracy:.2f} [{self.low:.2f}, {self.high:.2f}] in {count} contexts, by {self.scorer}"


@dataclass(frozen=True)
class Label:
    """A feature's label, its author and its time.

    Attributes:
        text: the label; "" if it was removed.
        author: where it comes from: a person's name, or ``MODEL (automatic)``.
        time: UTC, ISO 8601, to the second.
        score: of a test on held-out contexts; None if there was none.
    """

    text: str
    author: str
    time: str
    score: Score | None = None

    @property
    def doubtful(self) -> bool:
        """Whether a test has not shown that the label is better than guessing."""
        return self.score is not None and not self.score.above_chance

    def as_json(self) -> dict[str, Any]:
        """As in the file: without a score, there is no such field."""
        return {name: value for name, value in asdict(self).items() if name != "score" or value is not None}


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
            history = dict(self._read().history)
            for id, text in texts.items():
                id = current_id(id)
                label = Label(tidy(text), author, time)
                earlier = history.get(id, [])
                if label.text != (earlier[-1].text if earlier else ""):
                    history[id] = [*earlier, label]
            self._write(history, time)

    def score(self, id: str, text: str, score: Score) -> bool:
        """Keep the score of a node's label; False if the label is no longer this text."""
        with exclusive(self.path.parent):
            history = dict(self._read().history)
            of_node = history.get(current_id(id), [])
            if not of_node or of_node[-1].text != text:
                return False
            history[current_id(id)] = [*of_node[:-1], replace(of_node[-1], score=score)]
            self._write(history, of_node[-1].time)
        return True

    def _write(self, history: Mapping[str, list[Label]], time: str) -> None:
        ordered = sorted(history.items(), key=lambda item: parse_id(item[0]))
        write_json(
            self.path,
            {
                "schema": SCHEMA,
                "schema_version": SCHEMA_VERSION,
                "hiersae_version": __version__,
                "created": self._read().created or time,
                "run": self._sha256,
                "labels": {id: [label.as_json() for label in of_node] for id, of_node in ordered},
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
                latent_id(*parse_id(id)): [_label(label) for label in of_node] for id, of_node in data["labels"].items()
            }
            if not all(history.values()):
                raise ValueError("a node without labels")
        return data["created"], history


def _label(data: Mapping[str, Any]) -> Label:
    score = data.get("score")
    return Label(
        data["text"], data["author"], data["time"], Score(**{name: score[name] for name in _SCORE}) if score else None
    )


def tidy(text: str) -> str:
    """A label as one line of at most ``LONGEST`` characters."""
    return " ".join(text.encode("utf-8", "replace").decode().split())[:LONGEST].rstrip()


def within(parent: str, text: str) -> str:
    """A label with the label of its parent in front, if that has one: ``within countries: in Europe``."""
    return f"within {parent}: {text}" if parent else text


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of labels; raises ``FileError`` if the file is damaged. Nothing can be verified."""
    if path.name != FILE:
        raise FileError(f"{path}: labels of a run are called {FILE}", "Rename it.")
    data = read_json(path)
    check_schema(path, data, SCHEMA, 1, SCHEMA_VERSION)
    current = Labels(path.parent, str(data.get("run"))).current()
    authors = sorted({label.author for label in current.values()})
    scored = sum(label.score is not None for label in current.values())
    details = {"labels": len(current), "authors": authors, "scored": scored}
    by = f" by {', '.join(authors)}" if authors else ""
    lines = [("labels", f"{len(current):,}{by}" + (f"; {scored:,} with a score" if scored else ""))]
    return Described("labels", data, details, lines)
