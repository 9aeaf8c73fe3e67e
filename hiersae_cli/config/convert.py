"""Configuration of ``hiersae convert``."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from hiersae_cli.config.base import Config, argument, option, options

TARGETS = ("sae-lens", "sparsify")


@dataclass(kw_only=True)
class ConvertConfig(Config):
    """Which dictionary is converted, and to what."""

    source: str = argument(
        help="Folder saved by SAELens, sparsify or dictionary_learning. With --to, a run.", metavar="SRC"
    )
    out: str = option(MISSING, "--out", "-o", help="Folder to write.", metavar="FOLDER", recorded=False)
    to: str = option(
        "",
        choices=("", *TARGETS),
        metavar="|".join(TARGETS),
        help="Write a run for this tool. Without it, another tool's dictionary becomes a run.",
    )
    acts: list[str] = options(
        help="Cache of the activations that the other tool's dictionary reads. May be given several times.",
        metavar="ACTS",
        recorded=False,
    )
    module: str = option("", help="Module of the dictionary, if the cache holds several.", metavar="PATH")
    overwrite: bool = option(False, help="Replace the output.", recorded=False)

    def check(self) -> None:
        if self.to:
            self.require(not self.acts, "acts", "is for dictionaries of other tools; a run records its activations")
            self.require(not self.module, "module", "is for dictionaries of other tools; a run records its module")
        else:
            hint = "Give --acts acts.h5 to turn another tool's dictionary into a run; --to is for the other direction."
            self.require(
                len(self.acts) > 0, "acts", "name a cache of the model and module that it was trained on", hint
            )
