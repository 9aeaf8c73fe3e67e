"""Configuration of ``hiersae eval``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options, parse_count

TASKS = ("probing", "absorption", "ablation", "steering", "hierarchy")
LABELLERS = ("text", "python")


def parse_tasks(text: str) -> tuple[str, ...]:
    """``all``, or some of the tasks, separated by commas."""
    if text == "all":
        return TASKS
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no task; write all, or some of: {','.join(TASKS)}")
    return tuple(name for name in TASKS if name in names)


@dataclass(kw_only=True)
class EvalConfig(Config):
    """Which runs are measured on which held-out rows."""

    runs: list[str] = argument(
        [],
        help="Run folder made by 'hiersae train'; several that differ in their seed are measured as one.",
        metavar="RUN",
    )
    baseline: list[str] = options(
        help="Run to compare with; may be given several times. Those of one configuration are taken together.",
        metavar="RUN",
    )
    stability: list[str] = options(
        help="Further run of another seed, for the stability of the tree alone; may be given several times.",
        metavar="RUN",
    )
    acts: list[str] = options(help="Cache whose held-out rows are used.", metavar="ACTS")
    drop_outliers: bool = option(
        False, help="Leave out rows whose norm is over 10 x the median, also where the cache and the runs kept them."
    )
    model: str = option("", help="Host model, for the loss with the reconstruction spliced in.", metavar="MODEL")
    out: str = option("", "--out", "-o", help="File to write the report to (JSON).", recorded=False)
    edges: str = option(
        "", help="File to write every edge of every tree to, with its statistics (CSV).", metavar="FILE", recorded=False
    )
    markdown: str = option("", help="File to write the report to as Markdown.", metavar="FILE", recorded=False)
    html: str = option(
        "", help="File to write the report to as one HTML page with its plots.", metavar="FILE", recorded=False
    )
    plots: str = option("", help="Folder to write the plots to (SVG).", metavar="DIR", recorded=False)
    full: bool = option(False, help="Print all tables below the answer.", recorded=False)
    explain: str = option(
        "",
        help="Say what a figure means and measure nothing; all lists them.",
        metavar="METRIC",
        recorded=False,
    )
    controls: bool = option(
        True,
        "--controls/--no-controls",
        help="Measure random directions, neurons and principal components beside the runs.",
    )
    tasks: tuple[str, ...] = option(
        (),
        parse=parse_tasks,
        metavar="all|TASK[,TASK…]",
        help=f"Downstream tasks on concepts of the text: {', '.join(TASKS)}. Needs --model.",
    )
    labeller: str = option(
        "text", choices=LABELLERS, help="What the concepts are made of: plain text (plays, wikis), or Python source."
    )
    labels: str = option("", help="CSV or Parquet file of your own concepts, instead of --labeller.", metavar="FILE")
    task_rows: int = option(
        65_536,
        parse=parse_count,
        metavar="COUNT",
        help="Training rows that probes are fitted on, and held-out rows that they are scored on.",
    )
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
    overwrite: bool = option(False, help="Replace what was written before.", recorded=False)

    def check(self) -> None:
        if self.explain:
            return
        self.require(len(self.runs) > 0, "runs", "name the run to measure: hiersae eval runs/hier --acts acts.h5")
        self.require(len(self.acts) > 0, "acts", "name the cache to evaluate on: --acts acts.h5")
        written = [path for path in (self.out, self.edges, self.markdown, self.html, self.plots) if path]
        self.require(len(set(written)) == len(written), "out", "every output needs a path of its own")
        self.require(set(self.tasks) <= set(TASKS), "tasks", "not all are tasks", f"Tasks: {', '.join(TASKS)}.")
        self.require(bool(self.model or not self.tasks), "tasks", "needs the host's tokenizer: --model MODEL")
        self.require(bool(self.tasks or not self.labels), "labels", "is for downstream tasks: add --tasks all")
        for name in ("tokens", "loss_tokens", "task_rows", "batch"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(self.resamples >= 100, "resamples", "must be at least 100")
        self.require(0 < self.confidence < 1, "confidence", "must lie between 0 and 1")
