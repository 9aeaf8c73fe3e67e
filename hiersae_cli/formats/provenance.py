"""Where a file came from: the fields that every file of ours carries."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from typing import Any

from hiersae_cli.config.base import Config
from hiersae_cli.errors import FileError, VersionError
from hiersae_cli.version import __version__

_LIBRARIES = ("torch", "numpy", "h5py", "transformers", "tokenizers", "safetensors", "scikit-learn", "sae-lens")


def header(schema: str, schema_version: int, config: Config, inputs: dict[str, str]) -> dict[str, Any]:
    """The fields that open every file: schema, versions, time, configuration, fingerprints of the inputs.

    ``inputs`` maps each path that was read, as the user gave it, to its sha256.
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


def check_schema(path: object, data: Any, schema: str, *supported: int) -> None:
    """Raise ``FileError`` for another schema, ``VersionError`` for a version that this release does not read.

    ``FileError`` also if the release or the time is not a text.
    """
    if not isinstance(data, dict) or data.get("schema") != schema:
        other = data.get("schema") if isinstance(data, dict) else None
        kind = other if isinstance(other, str) and other.isprintable() else "another kind of file"
        raise FileError(f"{path}: not a {schema} file (it is {kind})", "Check the path.")
    version = data.get("schema_version")
    if type(version) is not int or version not in supported:
        raise VersionError(path, schema, version, " or ".join(map(str, supported)))
    for name in ("hiersae_version", "created"):
        if not isinstance(data.get(name, ""), str):
            raise FileError(f"{path}: damaged: {name!r} is not a text", "Make it again.")


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and only writers need it

    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
