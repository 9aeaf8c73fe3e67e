"""Configuration of ``hiersae eval``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options, parse_count


@dataclass(kw_only=True)
class EvalConfig(Config):
    """Which runs are measured on which held-out rows."""

    run: str = argument(help="Run folder made by 'hiersae train'.", metavar="RUN")
    baseline: list[str] = options(help="Run to compare with; may be given several times.", metavar="RUN")
    acts: list[str] = options(help="Cache whose held-out rows are used.", metavar="ACTS")
    model: str = option("", help="Host model, for the loss with the reconstruction spliced in.", metavar="MODEL")
    out: str = option("", "--out", "-o", help="File to write the report to (JSON).", recorded=False)
    tokens: int = option(
        10**6, parse=parse_count, metavar="COUNT", help="Held-out rows for reconstruction and tree metrics."
    )
    loss_tokens: int = option(
        65_536, parse=parse_count, metavar="COUNT", help="Held-out rows for the loss of the host."
    )
    resamples: int = option(1000, help="Bootstrap resamples of documents behind each interval.")
    confidence: float = option(0.95, help="Coverage of the intervals.")
    batch: int = option(4096, help="Rows at a time.", recorded=False)
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    seed: int = option(0, help="Seed of the bootstrap.")
    overwrite: bool = option(False, help="Replace the report.", recorded=False)

    def check(self) -> None:
        self.require(len(self.acts) > 0, "acts", "name the cache to evaluate on: --acts acts.h5")
        for name in ("tokens", "loss_tokens", "batch"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(self.resamples >= 100, "resamples", "must be at least 100")
        self.require(0 < self.confidence < 1, "confidence", "must lie between 0 and 1")
