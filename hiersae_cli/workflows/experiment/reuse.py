"""Reuse finished files of other runs of the experiment, if their configuration and fingerprints agree."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.lm import LMConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats import atomic
from hiersae_cli.formats.activations import Activations
from hiersae_cli.formats.host import DESCRIPTION
from hiersae_cli.formats.run import RunFolder

_PATHS = ("texts", "model")  # they differ between runs; the fingerprints say whether the files are the same


def host_agrees(folder: Path, config: LMConfig, sha256: str) -> bool:
    """Whether ``folder`` is a host of this configuration, trained on the text with this SHA-256."""
    try:
        described = atomic.read_json(folder / DESCRIPTION)
        return _same(described["config"], config.recorded()) and described["text_sha256"] == sha256
    except (HierSAEError, KeyError, TypeError):
        return False


def cache_agrees(path: Path, config: CacheConfig, host: str, text: str) -> bool:
    """Whether ``path`` is a finished cache of this configuration, host and text, the last two by fingerprint."""
    if not path.is_file():
        return False
    try:
        with Activations(path) as cache:
            header = cache.header
        same = _same(header["config"], config.recorded()) and list(header["inputs"].values()) == [text]
        return same and bool(header["host"]["fingerprint"] == host)
    except (HierSAEError, KeyError, OSError):
        return False


def run_agrees(folder: Path, config: TrainConfig, cache: str) -> bool:
    """Whether ``folder`` is a finished run of this configuration on the cache with this fingerprint."""
    try:
        run = RunFolder(folder)
        header = run.read_header()
        same = _same(header["config"], config.recorded()) and list(header["inputs"].values()) == [cache]
        return same and run.is_complete()
    except (HierSAEError, KeyError):
        return False


def link_file(source: Path, target: Path) -> None:
    """Link a file to a second name, or copy it if the file system has no links; atomic."""
    with atomic.replacing(target) as temporary:
        _link(source, temporary)


def link_folder(source: Path, target: Path, names: Iterable[str] = ()) -> None:
    """The same for the files of a folder: all, or only those with these names."""
    with atomic.replacing_folder(target) as temporary:
        for file in sorted(source.iterdir()):
            if file.is_file() and (not names or file.name in names):
                _link(file, temporary / file.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _same(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether two configurations agree apart from paths."""
    ours, theirs = ({key: value for key, value in side.items() if key not in _PATHS} for side in (expected, saved))
    return ours == theirs
