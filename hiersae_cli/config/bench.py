"""Configuration of ``hiersae bench``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, option, parse_count, parse_counts


@dataclass(kw_only=True)
class BenchConfig(Config):
    """The sizes of the models that are timed, and how they are timed."""

    latents: tuple[int, ...] = option(
        (16_384, 131_072), parse=parse_counts, metavar="N[,N...]", help="Latents of each model, in all levels together."
    )
    d: int = option(512, help="Width of the activations.")
    k: int = option(32, help="Active latents per row (L0).")
    batch: int = option(2048, parse=parse_count, metavar="COUNT", help="Activations per step.")
    dtype: str = option("float32", choices=("float32", "bfloat16"), help="Number type of the products.")
    moments: str = option("float32", choices=("float32", "bfloat16"), help="Number type of row-adam's moments.")
    compile: bool = option(False, "--compile/--no-compile", help="Compile row-adam with torch.compile, for a GPU.")
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    steps: int = option(10, help="Timed steps of each kind. The result is their median.")
    warmup: int = option(3, help="Steps before the timed ones.")

    def check(self) -> None:
        for name in ("d", "batch", "steps"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(self.warmup >= 0, "warmup", "must not be negative")
        self.require(self.k >= 4, "k", "must be at least 4, one for the coarsest level")
        # A hierarchy of two levels: the parents must leave room for children.
        self.require(min(self.latents) >= 8 * self.k, "latents", f"must be at least 8 times the L0 of {self.k}")
