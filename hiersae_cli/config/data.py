"""Configuration of ``hiersae data get``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option

DATASETS = ("shakespeare_char", "enwik8", "text8")
DATA_FOLDER = "data"


@dataclass(kw_only=True)
class DataGetConfig(Config):
    """Which data set is fetched, from where, and into which folder."""

    name: str = argument(help=f"Data set: {', '.join(DATASETS)}.", metavar="NAME")
    source: str = option(
        "",
        "--from",
        help="File or address to take it from, plain, .gz or .zip. Default: where its author publishes it.",
        metavar="FILE_OR_URL",
        recorded=False,
    )
    prefix: bool = option(
        False, "--prefix", help="Take the beginning of the data set for a smaller one, and name it so everywhere."
    )
    data: str = option(
        DATA_FOLDER, help="Folder of data sets; each gets a folder in it.", metavar="DIR", recorded=False
    )
    overwrite: bool = option(False, help="Replace the data set that is there.", recorded=False)

    def check(self) -> None:
        self.require(self.name in DATASETS, "name", "not a data set that is known", f"Known: {', '.join(DATASETS)}.")
