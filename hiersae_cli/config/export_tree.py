"""Configuration of ``hiersae export-tree``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options, parse_count

TREE_FORMATS = ("json", "graphml", "dot", "nwk", "csv")


@dataclass(kw_only=True)
class ExportTreeConfig(Config):
    """Which part of a run's tree is written, with how much evidence, and in which format."""

    run: str = argument(help="Run folder made by 'hiersae train'.", metavar="RUN")
    acts: list[str] = options(help="Cache to read firing rates and contexts from.", metavar="ACTS")
    model: str = option(
        "", help="Host model, for the text of contexts, and for the tokens that a latent promotes.", metavar="MODEL"
    )
    out: str = option("tree.json", "--out", "-o", help="File to write. Its ending chooses the format.", recorded=False)
    format: str = option(
        "",
        help="Format, if the ending does not say it.",
        choices=("", *TREE_FORMATS),
        metavar="|".join(TREE_FORMATS),
    )
    tokens: int = option(10**6, parse=parse_count, metavar="COUNT", help="Rows to read.")
    contexts: int = option(5, help="Strongest contexts to write for each latent.")
    context_tokens: int = option(16, help="Tokens of context before and after each firing.")
    top_tokens: int = option(10, help="Promoted and suppressed tokens to list for each latent.")
    min_rate: float = option(
        0.0, help="Leave out latents that fire in a smaller share of the rows, unless one of their children stays."
    )
    max_children: int = option(0, help="Keep only this many children of a parent, those with the most MI. 0 keeps all.")
    root: str = option("", help="Write only this node and what is below it, such as a12.", metavar="ID")
    batch: int = option(4096, help="Rows per batch.", recorded=False)
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    overwrite: bool = option(False, help="Replace the output.", recorded=False)

    def check(self) -> None:
        self.require(len(self.acts) > 0, "acts", "name the cache to read firings from: --acts acts.h5")
        for name in ("contexts", "context_tokens", "top_tokens", "max_children"):
            self.require(getattr(self, name) >= 0, name, "must not be negative")
        for name in ("tokens", "batch"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(0 <= self.min_rate <= 1, "min_rate", "must lie between 0 and 1")
        ending = self.out.rpartition(".")[2].lower()
        self.format = self.format or ending
        self.require(
            self.format in TREE_FORMATS,
            "out",
            f"the ending names no known format ({', '.join(TREE_FORMATS)})",
            "Choose one of these endings, or give --format.",
        )
