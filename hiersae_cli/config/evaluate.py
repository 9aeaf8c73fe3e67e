"""Configuration of ``hiersae eval``."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.config.base import Config, argument, option, options, parse_count

TASKS = ("probing", "absorption", "ablation", "steering", "hierarchy")
LABELLERS = ("text", "python", "wordnet")


def parse_tasks(text: str) -> tuple[str, ...]:
    """Parse ``all``, or some of the tasks, separated by commas."""
    if text == "all":
        return TASKS
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a task; write all, or some of: {','.join(TASKS)}")
    return tuple(name for name in TASKS if name in names)


@dataclass(kw_only=True)
class EvalConfig(Config):
    """Which runs are measured on which held-out rows."""

    runs: list[str] = argument(
        [],
        help="Run folder made by 'hiersae train'. Runs that differ only in their seeds are measured as one group.",
        metavar="RUN",
    )
    baseline: list[str] = options(
        help="Run to compare with. May be given several times. Runs that differ only in their seeds form a group.",
        metavar="RUN",
    )
    stability: list[str] = options(
        help="Further run with another seed, used only for stability. May be given several times.",
        metavar="RUN",
    )
    acts: list[str] = options(help="Cache whose held-out rows are measured.", metavar="ACTS")
    drop_outliers: bool = option(
        False, help="Leave out rows whose norm is over 10 times the median, even if the cache and the runs kept them."
    )
    model: str = option(
        "", help="Host model, for its loss with the reconstruction instead of the activations.", metavar="MODEL"
    )
    out: str = option("", "--out", "-o", help="File to write the report to (JSON).", recorded=False)
    edges: str = option(
        "", help="File to write all edges of all trees to, with their statistics (CSV).", metavar="FILE", recorded=False
    )
    markdown: str = option("", help="File to write the report to as Markdown.", metavar="FILE", recorded=False)
    html: str = option(
        "", help="File to write the report to as one HTML page with its plots.", metavar="FILE", recorded=False
    )
    plots: str = option("", help="Folder to write the plots to (SVG).", metavar="DIR", recorded=False)
    full: bool = option(False, help="Print all tables below the summary.", recorded=False)
    explain: str = option(
        "",
        help="Explain a figure and measure nothing. 'all' lists the figures.",
        metavar="METRIC",
        recorded=False,
    )
    controls: bool = option(
        True,
        "--controls/--no-controls",
        help="Also measure random directions, neurons and principal components.",
    )
    tasks: tuple[str, ...] = option(
        (),
        parse=parse_tasks,
        metavar="all|TASK[,TASK…]",
        help=f"Downstream tasks on concepts of the text: {', '.join(TASKS)}. Needs --model.",
    )
    labeller: str = option(
        "text",
        choices=LABELLERS,
        help="Where concepts come from: plain text (plays, wikis), Python source, or the nouns of WordNet.",
    )
    wordnet: str = option(
        "", help="Folder of WordNet's data files, for --labeller wordnet. Default: /usr/share/wordnet.", metavar="DIR"
    )
    labels: str = option("", help="CSV or Parquet file of your own concepts, instead of --labeller.", metavar="FILE")
    task_rows: int = option(
        65_536,
        parse=parse_count,
        metavar="COUNT",
        help="How many training rows probes are fitted on, and how many held-out rows they are scored on.",
    )
    tokens: int = option(
        10**6, parse=parse_count, metavar="COUNT", help="Held-out rows for reconstruction and tree metrics."
    )
    loss_tokens: int = option(
        65_536, parse=parse_count, metavar="COUNT", help="Held-out rows for the loss of the host."
    )
    resamples: int = option(1000, help="Bootstrap resamples of documents for each interval.")
    confidence: float = option(0.95, help="Coverage of the intervals.")
    batch: int = option(4096, help="Rows per batch.", recorded=False)
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    seed: int = option(0, help="Seed of the bootstrap.")
    overwrite: bool = option(False, help="Overwrite existing output.", recorded=False)

    def check(self) -> None:
        if self.explain:
            return
        self.require(len(self.runs) > 0, "runs", "name the run to measure: hiersae eval runs/hier --acts acts.h5")
        self.require(len(self.acts) > 0, "acts", "name the cache to evaluate on: --acts acts.h5")
        outputs = [path for path in (self.out, self.edges, self.markdown, self.html, self.plots) if path]
        self.require(len(set(outputs)) == len(outputs), "out", "every output needs its own path")
        self.require(set(self.tasks) <= set(TASKS), "tasks", "has an unknown task", f"Tasks: {', '.join(TASKS)}.")
        self.require(bool(self.model or not self.tasks), "tasks", "needs the host's tokenizer: --model MODEL")
        self.require(bool(self.tasks or not self.labels), "labels", "is for downstream tasks: add --tasks all")
        self.require(
            not self.wordnet or (self.labeller == "wordnet" and not self.labels), "wordnet", "is for --labeller wordnet"
        )
        for name in ("tokens", "loss_tokens", "task_rows", "batch"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        self.require(self.resamples >= 100, "resamples", "must be at least 100")
        self.require(0 < self.confidence < 1, "confidence", "must lie between 0 and 1")
