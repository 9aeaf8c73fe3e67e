"""``hiersae info``: what a file of the chain is, what it was made of, and whether it is complete and valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hiersae_cli.config.info import InfoConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats import activations, codes, host, index, labels, report, study, tree
from hiersae_cli.formats import run as run_folder
from hiersae_cli.formats.activations.describe import describe as describe_cache
from hiersae_cli.formats.activations.writer import partial_path
from hiersae_cli.formats.atomic import human_bytes, read_json
from hiersae_cli.formats.described import Described, Lines
from hiersae_cli.formats.hdf5 import schema_of
from hiersae_cli.reading import reading, require_regular


def _describe_report(path: Path, verify: bool) -> Described:
    """Also refuse a report that pages of this release cannot show."""
    from hiersae_cli.browse.index import summary

    described = report.describe(path, verify)
    if described.header["schema_version"] in report.READ_VERSIONS:
        summary(described.header)
    return described


# To add a kind of file: a function ``describe`` in its format, and its line here.
DESCRIBE: dict[str, Callable[[Path, bool], Described]] = {
    activations.SCHEMA: describe_cache,
    codes.SCHEMA: codes.describe,
    host.SCHEMA: host.describe,
    host.CHECKPOINT_SCHEMA: host.describe_checkpoint,
    host.GGUF: host.describe_gguf,
    index.SCHEMA: index.describe,
    labels.SCHEMA: labels.describe,
    report.SCHEMA: _describe_report,
    run_folder.SCHEMA: run_folder.describe,
    study.STUDY: study.describe,
    tree.SCHEMA: tree.describe,
}
_IN_FOLDER = (run_folder.SCHEMA, host.SCHEMA, index.SCHEMA)  # whose JSON files stand for their folder
_HDF5 = b"\x89HDF\r\n\x1a\n"
_GGUF = b"GGUF"
_LABEL_WIDTH = 12
_KINDS = "a cache, codes, a run folder, host model, GGUF file, report.json, tree.json, labels.json, an index or a study"


def run(config: InfoConfig, console: Console | None = None) -> tuple[dict[str, Any], str]:
    """Describe a file: as data (what ``--json`` prints) and as text.

    An unfinished file is no error: ``complete`` is False, and the text says how to finish it. Raises ``UsageError``
    if there is no file, ``FileError`` if it is damaged or not ours, ``VersionError`` for another version.
    """
    with reading(config.path, "Make it again."):
        schema, path = _identify(Path(config.path))
        described = DESCRIBE[schema](path, config.verify)
        answer = _answer(path, described)
        lines = _lines(answer, described)
        json.dumps(answer, allow_nan=False)  # a number that JSON cannot hold is damage too
    return answer, "\n".join([str(path), *(f"  {label:<{_LABEL_WIDTH}} {text}" for label, text in lines)])


def _identify(path: Path) -> tuple[str, Path]:
    """The schema of a file or folder, and the path that is described: an unfinished cache, or a file's folder."""
    if not path.exists():
        if partial_path(path).exists():
            return _identify(partial_path(path))
        raise UsageError(f"{path}: no such file", "Check the path.")
    if path.is_dir():
        return _identify_folder(path)
    require_regular(path, f"info describes {_KINDS}.")
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(_GGUF):
        return host.GGUF, path
    if not start:
        raise FileError(f"{path}: the file is empty", f"info describes {_KINDS}.")
    if start.startswith(_HDF5):
        schema = schema_of(path)
        # Reading a cache says best what is wrong with any other file.
        return schema if schema in (codes.SCHEMA, index.SCHEMA) else activations.SCHEMA, path
    if start.lstrip()[:1] != b"{":
        raise FileError(f"{path}: not a file of ours", f"info describes {_KINDS}.")
    schema = read_json(path).get("schema")
    if schema in _IN_FOLDER:
        return _identify_folder(path.parent)
    if schema not in tuple(DESCRIBE):  # JSON may hold any value
        raise FileError(f"{path}: not a file of HierSAE (its schema is {schema!r})", f"info describes {_KINDS}.")
    return schema, path


def _identify_folder(path: Path) -> tuple[str, Path]:
    if (path / index.HEADER_FILE).exists():
        return index.SCHEMA, path
    model = (path / "config.json").exists()
    if (path / host.CHECKPOINT).exists() and not model:
        return host.CHECKPOINT_SCHEMA, path
    if (path / study.DESIGN_FILE).exists():
        return study.STUDY, path / study.DESIGN_FILE
    if not model:
        raise FileError(f"{path}: no config.json in this folder; not a folder of ours", f"info describes {_KINDS}.")
    header = read_json(path / "config.json")
    of_host = isinstance(header, dict) and "model_type" in header and "schema" not in header
    return host.SCHEMA if of_host else run_folder.SCHEMA, path


def _answer(path: Path, described: Described) -> dict[str, Any]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {
        "file": str(path),
        "kind": described.kind,
        **{key: described.header.get(key) for key in ("schema", "schema_version", "hiersae_version", "created")},
        "bytes": sum(file.stat().st_size for file in files if file.is_file()),
        "complete": described.complete,
        "valid": True,
        "verified": bool(described.verified),
        **described.details,
        "inputs": described.header.get("inputs", {}),
        "config": described.header.get("config", {}),
    }


def _lines(answer: dict[str, Any], described: Described) -> Lines:
    lines = [("kind", f"{described.kind}, {human_bytes(answer['bytes'])}")]
    if answer["schema"]:
        version = f", hiersae {answer['hiersae_version']}" if answer["hiersae_version"] else ""
        lines.append(("format", f"{answer['schema']} version {answer['schema_version']}{version}"))
    if answer["created"]:
        lines.append(("made", str(answer["created"])))
    lines += [("from", f"{name} ({str(fingerprint)[:12]}…)") for name, fingerprint in answer["inputs"].items()]
    lines += described.lines
    finish = f"to finish, run the same '{described.made_by}' command again"
    lines.append(("state", "complete" if described.complete else f"incomplete: {described.unfinished}; {finish}"))
    if described.verified:
        lines.append(("verified", described.verified))
    return lines
