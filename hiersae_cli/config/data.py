"""Configuration of ``hiersae data get``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option

DATASETS = ("shakespeare_char", "enwik8", "text8")
DATA_FOLDER = "data"


@dataclass(kw_only=True)
class DataGetConfig(Config):
    """Which data set is fetched, from where, and to which folder."""

    name: str = argument(help=f"Data set: {', '.join(DATASETS)}.", metavar="NAME")
    source: str = option(
        "",
        "--from",
        help="File or URL to take it from: plain, .gz or .zip. Default: where its author publishes it.",
        metavar="FILE_OR_URL",
        recorded=False,
    )
    prefix: bool = option(
        False, "--prefix", help="Accept the beginning of the data set as a smaller one. Every output calls it a prefix."
    )
    data: str = option(
        DATA_FOLDER, help="Folder of all data sets. Each gets its own folder in it.", metavar="DIR", recorded=False
    )
    overwrite: bool = option(False, help="Replace the existing data set.", recorded=False)

    def check(self) -> None:
        self.require(self.name in DATASETS, "name", "is not a known data set", f"Known: {', '.join(DATASETS)}.")
