"""Configuration of ``hiersae push``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(kw_only=True)
class PushConfig(Config):
    """Which run goes to the hub, with which files, and under which name."""

    run: str = argument(help="Run folder made by 'hiersae train'.", metavar="RUN")
    repository: str = argument(help="Repository of models on the Hugging Face hub.", metavar="OWNER/NAME")
    report: str = option(
        "", help="Report of 'hiersae eval' on this run: its figures go into the card.", metavar="REPORT.JSON"
    )
    tree: str = option(
        "",
        help="Tree of 'hiersae export-tree' of this run: some families go into the card. It holds texts of the corpus.",
        metavar="TREE.JSON",
    )
    license: str = option(
        "",
        help="Licence of the repository, such as apache-2.0. Default: the host's, if the hub or its folder names it.",
    )
    private: bool = option(False, "--private", help="Make a new repository private.")
    branch: str = option("main", help="Branch of the repository to write to.")
    message: str = option("", help="Message of the commit. Default: Add RUN.")
    out: str = option(
        "", "--out", "-o", help="Write the files into this folder, to look at them, and push nothing.", metavar="DIR"
    )

    def check(self) -> None:
        valid = _REPOSITORY.fullmatch(self.repository) is not None
        self.require(valid, "repository", "write the owner and the name: OWNER/NAME")
