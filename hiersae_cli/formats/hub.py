"""Runs, caches and other files on the Hugging Face hub: ``hf://OWNER/NAME`` wherever a path is named.

As in ``huggingface_hub``, ``hf://datasets/OWNER/NAME`` is a repository of data sets, ``@REVISION`` may follow the name,
and ``/PATH`` names a file or folder in it. The files go into the hub's own cache on this machine. Without a network, or
with ``HF_HUB_OFFLINE=1``, those of an earlier download are used.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from hiersae_cli.config.base import HUB, Config, OnHub
from hiersae_cli.errors import HierSAEError, UsageError

_NAME = re.compile(
    r"hf://(?:(?P<kind>datasets|models)/)?(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+))?"
)
_HINT = "Check the name, and log in if the repository is private: hf auth login."

C = TypeVar("C", bound=Config)


def local_path(name: str | Path) -> str:
    """The path of a file or folder; what a name of the hub stands for is downloaded first.

    Raises ``UsageError`` if the hub has no such repository or file, ``HierSAEError`` if it cannot be reached.
    """
    text = str(name)
    if not text.startswith(HUB):
        return text
    match = _NAME.fullmatch(text)
    if match is None:
        raise UsageError(f"{text}: not a name on the hub", "Write hf://OWNER/NAME or hf://datasets/OWNER/NAME/acts.h5.")
    from huggingface_hub import errors, snapshot_download

    path = (match["path"] or "").rstrip("/")
    try:
        folder = snapshot_download(
            match["repository"],
            repo_type="dataset" if match["kind"] == "datasets" else "model",
            revision=match["revision"],
            allow_patterns=[path, f"{path}/*"] if path else None,
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise UsageError(f"{text}: the hub has no such repository or revision", _HINT) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise HierSAEError(
            f"{text}: the hub cannot be reached, and no earlier download is on this machine",
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE.",
        ) from None
    except errors.HfHubHTTPError as error:
        raise HierSAEError(f"{text}: {' '.join(str(error).split())}", _HINT) from None
    local = Path(folder) / path
    if not local.exists():
        raise UsageError(f"{text}: the repository has no {path}", "Check the path.")
    return str(local)


def folder_name(path: Path) -> str:
    """The name of a folder; of a downloaded repository, whose folder is called after its commit, the repository's."""
    resolved = path.resolve()
    kept_by_hub = resolved.parent.name == "snapshots" and "--" in resolved.parent.parent.name
    return resolved.parent.parent.name.rpartition("--")[2] if kept_by_hub else resolved.name


def with_local_paths(config: C) -> C:
    """The configuration with a downloaded copy for every name of the hub; files still record the names.

    A host model keeps its name, because its own library loads it. Raises ``UsageError`` for an output on the hub.
    """
    changes = {}
    for field in fields(config):
        value = getattr(config, field.name)
        names = value if isinstance(value, list) else [value]
        if not any(isinstance(name, str) and name.startswith(HUB) for name in names):
            continue
        if field.name in ("out", "edges", "markdown", "html", "plots", "index"):
            raise UsageError(f"--{field.name} {value}: the hub cannot be written to directly", "Use 'hiersae push'.")
        if field.name == "model":
            changes[field.name] = value.removeprefix(HUB)
        else:
            local = [OnHub(local_path(name), name) if name.startswith(HUB) else name for name in names]
            changes[field.name] = local if isinstance(value, list) else local[0]
    return replace(config, **changes) if changes else config
