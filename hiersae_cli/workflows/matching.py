"""Whether a run, caches and a host model belong together: asked before any work is done."""

from __future__ import annotations

import torch

from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import Activations, ActivationSet
from hiersae_cli.formats.run import Run
from hiersae_cli.host.model import Host

_HINT = "Give the cache that the run was trained on, or one of the same model and module."


def open_acts(run: Run, paths: list[str]) -> ActivationSet:
    """The caches opened at the run's module; raises ``FileError`` where they are of another module, width or host."""
    for path in paths:
        with Activations(path) as cache:
            require_match(run, cache)
    acts = ActivationSet(paths, run.module)
    acts.check_finite()
    return acts


def require_match(run: Run, cache: Activations) -> None:
    """Raise ``FileError`` where a cache is of another module, width or host than the run."""
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
            f"{cache.path}: activations of {_shown(of_cache)}; {run.path} was trained on those of {_shown(of_run)}",
            _HINT,
        )


def load_host(name: str, run: Run, device: torch.device) -> Host:
    """The host model at ``name``; raises ``FileError`` where the run is not of its activations."""
    host = Host.load(name, device, run.header["host"]["dtype"])
    found = {"name": name, "fingerprint": host.fingerprint}
    if host.fingerprint != run.header["host"]["fingerprint"]:
        raise FileError(
            f"{_shown(found)}: not the model that {run.path} was trained on, which is {_shown(run.header['host'])}",
            "Give that model with --model.",
        )
    return host


def _shown(host: dict[str, str]) -> str:
    """Two models may go by one name: the fingerprint tells them apart."""
    return f"{host['name']} ({host['fingerprint'][:12]})"
