"""``hiersae sweep``: a plan -> its runs, a report for each point of its grid, one table and a plot of the frontiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiersae_cli.config.base import first_difference
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.sweep import SweepConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats import sweep_plan
from hiersae_cli.formats.atomic import read_json, replace_all
from hiersae_cli.formats.run import RunFolder

_TABLE, _PLOT = "table.md", "frontiers.svg"
_DERIVED = ("tokens", "dead_after")  # 0 in a plan: training derives them from the cache


def run(config: SweepConfig, console: Console | None = None) -> tuple[dict[str, Any], str]:
    """Carry out a plan: complete runs and reports are kept, an unfinished run resumes.

    Returns the figures of every run and the paths of the reports, and the table in Markdown. Raises ``UsageError`` and
    ``FileError`` before any work if the plan or a complete run in the way does not allow it.
    """
    console = console or Console.silent()
    out = Path(config.out)
    plan = sweep_plan.load(Path(config.plan), out)
    finished = {name for name, planned in plan.runs.items() if _is_trained(planned)}
    part, parts = config.shard_of()
    names = list(plan.runs)[part::parts]
    reports = [] if config.shard or not config.evaluate else plan.reports
    console.say(
        f"{config.plan}: {len(names)} runs, {len(finished & set(names))} of them trained; {len(reports)} reports"
    )
    result: dict[str, Any] = {"runs": {}, "reports": {}}
    if config.dry_run:
        planned_files = [*(plan.runs[name].out for name in names), *(f"{out / report.name}.json" for report in reports)]
        return {**result, "planned": planned_files}, "\n".join(planned_files)
    for number, name in enumerate(names, 1):
        if name not in finished:
            from hiersae_cli.workflows.train.run import run as train

            console.say(f"\nrun {number} of {len(names)}: {name}")
            train(plan.runs[name], console)
        result["runs"][name] = {"path": plan.runs[name].out, **RunFolder(plan.runs[name].out).last_metrics()}
    for report in reports:
        result["reports"][report.name] = _measure(report, plan, out, console)
    if not reports:
        return result, ""
    table = _summarise([report for report in reports if report.in_table], plan, out, console)
    return {**result, "table": str(out / _TABLE), "plot": str(out / _PLOT)}, table


def _is_trained(planned: TrainConfig) -> bool:
    """Whether the run is complete; raises ``FileError`` if a complete run of another configuration is in its place."""
    folder = RunFolder(planned.out)
    if not folder.config_file.exists() or not folder.is_complete():
        return False
    saved, options = folder.read_header()["config"], planned.recorded()
    ignored = {name for name in _DERIVED if not options[name]} | planned.unused()
    compared = [name for name in options if name in saved and name not in ignored]  # older releases lack some
    if difference := first_difference(*({name: record[name] for name in compared} for record in (saved, options))):
        raise FileError(
            f"{folder.path}: a run of another configuration is in the way: {difference}",
            "Give the plan another --out, its run another name, or remove the folder.",
        )
    return True


def _measure(report: sweep_plan.PlannedReport, plan: sweep_plan.Plan, out: Path, console: Console) -> str:
    """Write a report, unless it exists with the same configuration and runs; returns its path."""
    file = out / f"{report.name}.json"
    first, *others = ([plan.runs[name].out for name in group] for group in report.groups.values())
    config = EvalConfig(
        **report.options,
        runs=first,
        baseline=[path for group in others for path in group],
        out=str(file),
        markdown=str(file.with_suffix(".md")),
        html=str(file.with_suffix(".html")),
        plots=str(out / f"plots-{report.name}"),
        overwrite=True,
    )
    if file.exists():
        saved = read_json(file)
        if saved.get("config") == config.recorded() and _same_runs(saved):
            console.say(f"{file} exists already")
            return str(file)
    from hiersae_cli.workflows.eval import evaluate

    console.say(f"\nreport {file}")
    evaluate(config, Console(quiet=console.quiet, json=True))  # its tables are in the Markdown file
    return str(file)


def _same_runs(report: dict[str, Any]) -> bool:
    """Whether the runs of a report still have the weights that it measured."""
    subjects = [subject for subject in report["subjects"].values() if subject.get("path")]
    return all(_weights(subject["path"]) == subject["sha256"] for subject in subjects)


def _weights(run: str) -> str:
    from hiersae_cli.hashing import sha256_file

    return sha256_file(RunFolder(run).model_file)


def _summarise(reports: list[sweep_plan.PlannedReport], plan: sweep_plan.Plan, out: Path, console: Console) -> str:
    """Write the table and the plot of all reports; returns the table."""
    from hiersae_cli.render.comparison import COLUMNS, frontiers, rows_of, table

    rows = []
    for report in reports:
        labels = {plan.runs[name].out: label for label, group in report.groups.items() for name in group}
        rows += [{**row, "arch": labels[row["path"]]} for row in rows_of(read_json(out / f"{report.name}.json"))]
    present = {metric: heading for metric, heading in COLUMNS.items() if any(metric in row for row in rows)}
    text = table(rows, present)
    replace_all({out / _TABLE: f"{text}\n".encode(), out / _PLOT: frontiers(rows).encode()})
    console.say(f"{out / _TABLE}, {out / _PLOT}")
    return text
