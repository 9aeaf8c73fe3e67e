"""Configuration of ``hiersae experiment``."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from hiersae_cli.config.base import Config, argument, option

PLAN_FILE = "experiment.toml"


@dataclass(kw_only=True)
class ExperimentConfig(Config):
    """Which planned run is carried out."""

    out_dir: str = option(
        MISSING,
        "--out_dir",
        help="Folder of the run. Its name says which run of the plan to carry out, such as run_1.",
        metavar="DIR",
        recorded=False,
    )
    plan: str = option(
        PLAN_FILE, help="Plan of the runs. data/ must be in the same folder.", metavar="FILE.TOML", recorded=False
    )


@dataclass(kw_only=True)
class ExperimentPlotConfig(Config):
    """Which runs are compared, and where their plots are written."""

    runs: list[str] = argument(help="Folder of a finished run. Several are compared.", metavar="RUN")
    out: str = option("", "--out", "-o", help="Folder to write the plots to (SVG).", metavar="DIR", recorded=False)
    confidence: float = option(0.95, help="Coverage of Student's intervals over seeds.")
    overwrite: bool = option(False, help="Overwrite existing plots.", recorded=False)

    def check(self) -> None:
        self.require(0 < self.confidence < 1, "confidence", "must lie between 0 and 1")
