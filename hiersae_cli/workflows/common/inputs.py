"""Open runs, caches and host models, and check that they belong together before any work."""

from __future__ import annotations

import torch

from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import Activations, ActivationSet
from hiersae_cli.formats.recorded_host import in_words, load_recorded_host, require_tokenizer
from hiersae_cli.formats.run import Run
from hiersae_cli.host.model import Host

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
            f"{cache.path}: activations of {in_words(of_cache)}; {run.path} was trained on those of {in_words(of_run)}",
            _HINT,
        )


def load_host(name: str, run: Run, acts: ActivationSet, device: torch.device, console: Console | None = None) -> Host:
    """The host model at ``name``.

    Raises ``FileError`` if the run was trained on another host, or the run or a cache has another tokenizer.
    """
    host = load_recorded_host(run.path, run.header, device, name, console)
    for cache in acts.caches:
        require_tokenizer(host.name, host.tokenizer, host.tokenizer_fingerprint, cache.path, cache.header)
    return host
