"""Configuration of ``hiersae info``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option


@dataclass(kw_only=True)
class InfoConfig(Config):
    """Which file is described, and how thoroughly it is checked."""

    path: str = argument(
        help="A cache, codes, run folder, host model, report, tree or other file of HierSAE.", metavar="FILE"
    )
    verify: bool = option(False, help="Also read every byte and check fingerprints.", recorded=False)
