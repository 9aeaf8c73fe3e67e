"""Open runs, caches and host models, and check that they belong together before any work."""

from __future__ import annotations

from typing import Any

import torch

from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import Activations, ActivationSet
from hiersae_cli.formats.run import Run
from hiersae_cli.host.model import Host
from hiersae_cli.host.tokenizer import decoded

_LONGEST_SAMPLE = 40  # characters of a text in a message
_HINT = "Give the cache that the run was trained on, or one of the same model and module."


def open_acts(run: Run, paths: list[str], drop_outliers: bool = False) -> ActivationSet:
    """The caches at the run's module; raises ``FileError`` if they have another module, width or host.

    Outliers are left out if the caches, the run's training or ``drop_outliers`` leave them out.
    """
    for path in paths:
        with Activations(path) as cache:
            require_match(run, cache)
    acts = ActivationSet(paths, run.module, drop_outliers or run.config.drop_outliers)
    acts.check_finite()
    return acts


def require_match(run: Run, cache: Activations) -> None:
    """Raise ``FileError`` if a cache has another module, width or host than the run."""
    if run.module not in cache.modules:
        raise FileError(
            f"{cache.path}: holds {', '.join(cache.modules)}; {run.path} was trained on {run.module}", _HINT
        )
    width = cache.width(run.module)
    if width != run.header["width"]:
        raise FileError(
            f"{cache.path}: {run.module} has width {width}; {run.path} was trained on width {run.header['width']}",
            _HINT,
        )
    of_cache, of_run = cache.header["host"], run.header["host"]
    if of_cache["fingerprint"] != of_run["fingerprint"]:
        raise FileError(
            f"{cache.path}: activations of {_named(of_cache)}; {run.path} was trained on those of {_named(of_run)}",
            _HINT,
        )


def load_host(name: str, run: Run, acts: ActivationSet, device: torch.device, console: Console | None = None) -> Host:
    """The host model at ``name``.

    Raises ``FileError`` if the run was trained on another host, or the run or a cache has another tokenizer.
    """
    host = Host.load(name, device, run.header["host"]["dtype"], console=console)
    loaded = {"name": name, "fingerprint": host.fingerprint}
    if host.fingerprint != run.header["host"]["fingerprint"]:
        raise FileError(
            f"{_named(loaded)}: not the model that {run.path} was trained on, which is {_named(run.header['host'])}",
            "Give that model with --model.",
        )
    _require_tokenizer(host, str(run.path), run.header)
    for cache in acts.caches:
        _require_tokenizer(host, str(cache.path), cache.header)
    return host


def _require_tokenizer(host: Host, path: str, header: dict[str, Any]) -> None:
    """Raise ``FileError`` if a run or cache has another tokenizer; older files do not name theirs."""
    expected = header["host"].get("tokenizer")
    if expected in (None, host.tokenizer_fingerprint):
        return
    reason = "it cuts text differently"
    if sample := header.get("sample"):
        text = decoded(host.tokenizer, sample["tokens"])
        if text != sample["text"]:
            reason = f"it reads {text[:_LONGEST_SAMPLE]!r}, but the text is {sample['text'][:_LONGEST_SAMPLE]!r}"
    raise FileError(
        f"{host.name}: its tokenizer is not the one that {path} was made with: {reason}",
        "Put the model's own tokenizer back, or cache the text again with this one.",
    )


def _named(host: dict[str, str]) -> str:
    """Name and fingerprint, because two models may have the same name."""
    return f"{host['name']} ({host['fingerprint'][:12]})"
