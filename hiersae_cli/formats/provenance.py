"""Where a file came from: what every file of ours carries in the same words."""

from __future__ import annotations

import hashlib
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hiersae_cli import __version__
from hiersae_cli.config import Config
from hiersae_cli.errors import FileError, VersionError

_LIBRARIES = ("torch", "numpy", "h5py", "transformers", "tokenizers", "safetensors", "scikit-learn", "sae-lens")


def header(schema: str, schema_version: int, config: Config, inputs: dict[str, str]) -> dict[str, Any]:
    """The fields that open every file: schema, versions, time, configuration, fingerprints of the inputs.

    ``inputs`` maps what was read (a path as the user gave it) to its sha256.
    """
    return {
        "schema": schema,
        "schema_version": schema_version,
        "hiersae_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": config.recorded(),
        "inputs": inputs,
        "versions": {"python": platform.python_version(), **_versions()},
    }


def check_schema(path: object, found: Any, schema: str, *supported: int) -> None:
    """Raise where a file is not of ``schema``, or of a version that this release does not read."""
    if not isinstance(found, dict) or found.get("schema") != schema:
        kind = found.get("schema", "of no schema of ours") if isinstance(found, dict) else "of another kind"
        raise FileError(f"{path}: not a {schema} file (it is {kind})", "Check the path.")
    if found.get("schema_version") not in supported:
        raise VersionError(path, schema, found.get("schema_version"), " or ".join(map(str, supported)))


def sha256_file(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
