"""Whether a run, caches and a host model belong together: asked before any work is done."""

from __future__ import annotations

import torch

from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import Activations, ActivationSet
from hiersae_cli.formats.run import Run
from hiersae_cli.host.model import Host

_HINT = "Give the cache that the run was trained on, or one of the same model and module."


def open_acts(run: Run, paths: list[str], drop_outliers: bool = False) -> ActivationSet:
    """The caches opened at the run's module; raises ``FileError`` where they are of another module, width or host.

    Outliers are left out where the caches, the run's training or ``drop_outliers`` say so.
    """
    for path in paths:
        with Activations(path) as cache:
            if run.module not in cache.modules:
                raise FileError(
                    f"{path}: holds {', '.join(cache.modules)}; {run.path} was trained on {run.module}", _HINT
                )
            width = cache.width(run.module)
            if width != run.header["width"]:
                raise FileError(
                    f"{path}: {run.module} has width {width}; {run.path} was trained on width {run.header['width']}",
                    _HINT,
                )
            of_cache, of_run = cache.header["host"], run.header["host"]
            if of_cache["fingerprint"] != of_run["fingerprint"]:
                raise FileError(
                    f"{path}: activations of {_shown(of_cache)}; {run.path} was trained on those of {_shown(of_run)}",
                    _HINT,
                )
    acts = ActivationSet(paths, run.module, drop_outliers or run.config.drop_outliers)
    acts.check_finite()
    return acts


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
