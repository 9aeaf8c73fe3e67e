"""Configuration of ``hiersae encode``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, parse_count


@dataclass(kw_only=True)
class EncodeConfig(Config):
    """Which rows of which caches are encoded, with which run."""

    run: str = argument(help="Run folder made by 'hiersae train'.", metavar="RUN")
    acts: list[str] = argument(help="Cache to encode. Several are read as one, in this order.", metavar="ACTS")
    out: str = option("codes.h5", "--out", "-o", help="File to write.", recorded=False)
    tokens: int = option(0, parse=parse_count, metavar="COUNT", help="Stop after this many rows. 0 takes all.")
    compression: str = option("none", choices=("none", "lzf", "gzip"), help="Lossless compression.")
    batch: int = option(4096, help="Rows per batch.", recorded=False)
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    overwrite: bool = option(False, help="Replace the output.", recorded=False)

    def check(self) -> None:
        self.require(self.tokens >= 0, "tokens", "must not be negative")
        self.require(self.batch >= 1, "batch", "must be at least 1")
