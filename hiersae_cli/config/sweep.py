"""Configuration of ``hiersae sweep``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option


@dataclass(kw_only=True)
class SweepConfig(Config):
    """Which plan is carried out, how much of it here, and where its runs go."""

    plan: str = argument(help="Plan of the runs and their evaluation.", metavar="PLAN.TOML", recorded=False)
    out: str = option(
        "sweep", "--out", "-o", help="Folder of the runs, the reports, the table and the plot.", recorded=False
    )
    shard: str = option(
        "",
        help="Train only part i of n of the runs (i from 1) and measure nothing. The command without --shard "
        "measures when all are trained.",
        metavar="I/N",
        recorded=False,
    )
    evaluate: bool = option(
        True, "--eval/--no-eval", help="Measure the runs when they are trained, or only train them.", recorded=False
    )
    dry_run: bool = option(False, "--dry-run", help="List the runs and the reports, and make none.", recorded=False)

    def check(self) -> None:
        self.shard_of()

    def shard_of(self) -> tuple[int, int]:
        """The part, counted from 0, and the number of parts."""
        return self.part_of("shard")
