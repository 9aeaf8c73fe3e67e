"""Configuration of ``hiersae dashboard``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options, parse_count


@dataclass(kw_only=True)
class DashboardConfig(Config):
    """Which run is shown, with which baseline, and whether it is served, written as a folder, or exported."""

    run: str = argument(help="Run folder made by 'hiersae train'.", metavar="RUN")
    acts: list[str] = options(help="Cache to read firings and contexts from.", metavar="ACTS")
    baseline: str = option("", help="Run of a flat dictionary to compare features with.", metavar="RUN")
    model: str = option(
        "", help="Host model, for the text of tokens, the logit lens, and what fires on a text.", metavar="MODEL"
    )
    report: str = option(
        "", help="Report of 'hiersae eval', shown next to the tree.", metavar="REPORT.JSON", recorded=False
    )
    serve: bool = option(False, "--serve", help="Serve the pages until Ctrl-C.", recorded=False)
    out: str = option(
        "",
        "--out",
        "-o",
        help="Folder to write static pages to. It opens from the disk.",
        metavar="DIR",
        recorded=False,
    )
    neuronpedia: str = option(
        "",
        help="Folder to write the tree and feature rows to, as SAEDashboard makes them for Neuronpedia.",
        metavar="DIR",
        recorded=False,
    )
    host_address: str = option(
        "127.0.0.1", help="Address to serve at. The default can be reached only from this machine.", recorded=False
    )
    port: int = option(8700, help="Port to serve at. 0 takes a free one.", recorded=False)
    index: str = option(
        "", help="File for the index, which is built once. Default: RUN/dashboard.h5.", metavar="FILE", recorded=False
    )
    tokens: int | None = option(
        None,
        parse=parse_count,
        metavar="COUNT",
        help="Rows to index. Default: as many as the existing index has; 1M for a new one.",
    )
    seed: int | None = option(
        None,
        help="Seed for drawing contexts from each decile of activation. Default: that of the existing index, or 0.",
    )
    author: str = option(
        "", help="Author of labels given in the browser. Default: your user name.", metavar="NAME", recorded=False
    )
    batch: int = option(4096, help="Rows per batch.", recorded=False)
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.", recorded=False)
    rebuild: bool = option(False, "--rebuild", help="Build the index again.", recorded=False)
    overwrite: bool = option(False, help="Overwrite existing output, but not the index.", recorded=False)

    def check(self) -> None:
        self.require(len(self.acts) > 0, "acts", "name the cache to read firings from: --acts acts.h5")
        self.require(0 <= self.port <= 65535, "port", "must lie between 0 and 65535")
        self.require(self.seed is None or self.seed >= 0, "seed", "must not be negative")
        self.require(not self.neuronpedia or bool(self.model), "neuronpedia", "needs the host model: --model MODEL")
        outputs = [path for path in (self.out, self.neuronpedia) if path]
        self.require(len(set(outputs)) == len(outputs), "out", "every output needs its own path")
        self.require(self.tokens is None or self.tokens >= 1, "tokens", "must be at least 1")
        self.require(self.batch >= 1, "batch", "must be at least 1")

    @property
    def index_file(self) -> str:
        """The path of the index."""
        return self.index or f"{self.run.rstrip('/')}/dashboard.h5"
