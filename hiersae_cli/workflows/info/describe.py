"""What ``hiersae info`` says of codes, of an index, finished or not, of labels and of a human study."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import read_json
from hiersae_cli.formats.codes import Codes
from hiersae_cli.formats.hdf5 import attributes
from hiersae_cli.formats.index import BASELINE, RUN, IndexFile, rows_committed
from hiersae_cli.formats.labels import Labels
from hiersae_cli.formats.study import load_study

HEADER_FILE = "header.json"  # of an unfinished index
_ROWS = 1 << 16  # of codes, verified at once


@dataclass(frozen=True)
class Described:
    """A file's kind, header, details as data and as lines, in what it is unfinished, and what was verified."""

    kind: str
    header: dict[str, Any]
    details: dict[str, Any]
    lines: list[tuple[str, str]]
    unfinished: str = ""
    verified: str = ""


def hdf5_schema(path: Path) -> str:
    """What an HDF5 file says that it is; empty where it says nothing."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs.get("schema", ""))
    except OSError:
        return ""


def describe_codes(path: Path, verify: bool) -> Described:
    """Codes; raises ``FileError`` where they are damaged."""
    with Codes(path) as codes:
        header = {**attributes(codes.file), **codes.header}
        details = {
            "rows": codes.rows,
            "latents": codes.latents,
            "widths": list(codes.widths),
            "firings": codes.firings,
            "l0": codes.firings / codes.rows if codes.rows else None,
            "run": codes.header["run"],
            "host": codes.header["host"],
        }
        for start in range(0, codes.rows if verify else 0, _ROWS):
            codes.read(start, start + _ROWS)
    lines = [
        ("rows", f"{codes.rows:,}"),
        ("latents", " + ".join(f"{width:,}" for width in codes.widths)),
        ("firings", f"{codes.firings:,}" + (f", L0 {details['l0']:.4g}" if codes.rows else "")),
        ("run", f"{details['run']['name']} ({details['run']['arch']}), {details['run']['module']}"),
    ]
    verified = "latents ascend in every row, and activations are finite and above 0" if verify else ""
    return Described("codes", header, details, lines, verified=verified)


def describe_index(path: Path) -> Described:
    """A finished index; raises ``FileError`` where it is damaged."""
    index = IndexFile(path)
    with h5py.File(path, "r", locking=False) as file:
        header = {**attributes(file), **index.header}
    firings = {name: len(lists.latent_n) for name, lists in index.lists.items()}
    details = {"rows": index.rows, "documents": len(index.documents), "firings": firings, **_names(header)}
    lines = [("rows", f"{index.rows:,} of {len(index.documents):,} documents")]
    for name, count in firings.items():
        lines.append((name, f"{header[name]['name']}: {count:,} firings of {index.lists[name].latents:,} latents"))
    lines.append(("tokens", "as text" if index.token_texts else "as numbers: built without --model"))
    return Described("index", header, details, lines)


def describe_partial(path: Path) -> Described:
    """An index in the making."""
    header = read_json(path / HEADER_FILE)
    done, total = rows_committed(path), header["made_of"]["rows"]
    details = {"rows": total, "rows_committed": done, **_names(header)}
    return Described("index", header, details, [], f"{done:,} of {total:,} rows are indexed")


def describe_labels(path: Path, data: dict[str, Any]) -> Described:
    """Labels; raises ``FileError`` where the file is damaged."""
    if path.name != "labels.json":
        raise FileError(f"{path}: labels of a run are called labels.json", "Call it so.")
    found = Labels(path.parent, str(data.get("run")))
    current = found.current()
    authors = sorted({label.author for label in current.values()})
    details = {"labels": len(current), "authors": authors}
    lines = [("labels", f"{len(current):,}" + (f" by {', '.join(authors)}" if authors else ""))]
    return Described("labels", data, details, lines)


def _names(header: dict[str, Any]) -> dict[str, Any]:
    return {"run": header[RUN], "baseline": header[BASELINE], "host": header["host"]}


def describe_study(path: Path) -> Described:
    """A human study by its ``study.json``; raises ``FileError`` where its items are damaged or others."""
    study = load_study(path.parent)
    design = study.design
    counts = Counter(item.task for item in study.items.values())
    details = {"items": dict(counts), "raters": design["raters"], "items_sha256": study.sha256}
    lines = [("items", ", ".join(f"{count:,} {task}" for task, count in sorted(counts.items())))]
    lines.append(("raters", f"{design['raters']:,} planned"))
    return Described("study", study.header, details, lines)
