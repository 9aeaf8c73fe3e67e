"""Neuronpedia's explanation files, a JSON object per line: specified in ``docs/file-formats.md``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import write_text
from hiersae_cli.formats.fields import Kind, require_fields
from hiersae_cli.formats.labels import Label, within
from hiersae_cli.reading import parse_json, read_utf8, reading

TYPE = "hiersae"  # the kind of explanation, and of its score
_HINT = "Give a .jsonl or .jsonl.gz file of explanations."
_ROW: dict[str, Kind] = {
    "modelId": str,
    "layer": str,
    "index": (str, int),
    "description": str,
    "explanationModelName?": (str, None),
    "createdAt?": (str, None),
    "notes?": (str, None),
}
_RUN = re.compile(r"run sha256 ([0-9a-f]{64})")


def write_explanations(
    path: str, labels: Mapping[str, Label], ids: Sequence[str], parents: Mapping[str, str], source: str, run: str
) -> None:
    """Write labels as explanations, with the labels of parents in their descriptions.

    Args:
        labels: by node.
        ids: the nodes of the run; ``index`` is the place of a node in it, as in feature rows and ``tree.json``.
        parents: the parent of each node that has one.
        source: MODEL/SOURCE: what Neuronpedia calls the host and the dictionary.
        run: sha256 of the run's weights, noted in every row.
    """
    rows = []
    model, _, layer = source.rpartition("/")
    for place, id in enumerate(ids):
        if id not in labels:
            continue
        label, parent = labels[id], labels.get(parents.get(id, ""))
        notes = f"node {id}, run sha256 {run}"
        scores = []
        if label.score and label.score.balanced_accuracy is not None:
            notes += f", detection {label.score.in_words}"
            scores = [
                {
                    "value": label.score.balanced_accuracy,
                    "explanationScoreTypeName": f"{TYPE}_detection",
                    "explanationScoreModelName": label.score.scorer,
                    "jsonDetails": json.dumps(label.as_json()["score"]),
                }
            ]
        rows.append(
            {
                "modelId": model,
                "layer": layer,
                "index": str(place),
                "description": within(parent.text if parent and not parent.doubtful else "", label.text),
                "typeName": TYPE,
                "explanationModelName": label.author,
                "notes": notes,
                "createdAt": label.time,
                "scores": scores,
            }
        )
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_explanations(
    path: str, ids: Sequence[str], parents: Mapping[str, str], source: str, run: str
) -> dict[str, tuple[str, str]]:
    """The text and the author of the latest explanation of each node; a parent's label in front of a text is removed.

    Raises ``FileError`` if the file is damaged, has no explanation of ``source``, is about another dictionary or about
    latents that the run does not have; ``UsageError`` if it has several sources and none was named.
    """
    rows = _rows(path)
    sources = sorted({_source(row) for row in rows})
    if not source and len(sources) > 1:
        raise UsageError(f"{path}: explanations of {', '.join(sources[:4])}", "Choose one with --source MODEL/SOURCE.")
    if source:
        rows = [row for row in rows if _source(row) == source]
    if not rows:
        raise FileError(f"{path}: no explanations" + (f" of {source}" if source else ""), _HINT)
    texts: dict[str, tuple[str, str]] = {}
    for row in sorted(rows, key=lambda row: row.get("createdAt") or ""):
        made_of = _RUN.search(row.get("notes") or "")
        if made_of and made_of[1] != run:
            raise FileError(f"{path}: explanations of another run", "Its notes name other weights than this run has.")
        with reading(path, _HINT):
            place = int(row["index"])
        if not 0 <= place < len(ids):
            raise FileError(
                f"{path}: explains latent {place}; the run has {len(ids):,}", "It is about another dictionary."
            )
        texts[ids[place]] = row["description"], row.get("explanationModelName") or "Neuronpedia"
    # Parents come before children in ``ids``, so a parent's own text is known.
    for id in (id for id in ids if id in texts):
        parent = texts.get(parents.get(id, ""))
        text, author = texts[id]
        texts[id] = text.removeprefix(within(parent[0], "")) if parent else text, author
    return texts


def _source(row: Mapping[str, Any]) -> str:
    return f"{row['modelId']}/{row['layer']}"


def _rows(path: str) -> list[dict[str, Any]]:
    with reading(path, _HINT):
        rows = [parse_json(line) for line in read_utf8(path).split("\n") if line.strip()]
    for number, row in enumerate(rows, 1):
        require_fields(f"{path}: line {number}", row, _ROW, _HINT)
    return rows
