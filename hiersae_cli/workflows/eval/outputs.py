"""What is made of a report: an answer on the terminal, ``report.json``, Markdown, HTML, plots and the file of edges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import refuse_existing, write_json, write_text
from hiersae_cli.formats.report import OWN, PLOTS, TREES
from hiersae_cli.render.report_answer import answer
from hiersae_cli.render.report_tables import doubts, lines, tables
from hiersae_cli.render.report_writers import edges_csv, html, markdown
from hiersae_cli.workflows.eval.subjects import Group, Subject


def refuse(config: EvalConfig) -> None:
    """Raise ``FileError``, before any work, where something that is to be written cannot be."""
    if config.plots and Path(config.plots).is_file():
        raise FileError(f"{config.plots}: this is a file, a folder was expected", "Choose another path for --plots.")
    plots = [str(Path(config.plots) / f"{name}.svg") for name in PLOTS] if config.plots else []
    for path in (config.out, config.edges, config.markdown, config.html, *plots):
        if path:
            refuse_existing(path, config.overwrite)


def publish(report: dict[str, Any], groups: list[Group], config: EvalConfig, console: Console) -> None:
    """Write the report as whatever was asked for, then show what it says."""
    written = []
    plots = _plots(report, groups) if config.html or config.plots else {}
    if config.plots:
        for name, svg in plots.items():
            write_text(Path(config.plots) / f"{name}.svg", svg)
        written.append(("plots", config.plots))
    if config.edges:
        write_text(config.edges, edges_csv(_edges(groups)))
        written.append(("edges", config.edges))
    if config.markdown:
        write_text(config.markdown, markdown(report))
        written.append(("Markdown", config.markdown))
    if config.html:
        write_text(config.html, html(report, {PLOTS[name]: svg for name, svg in plots.items()}))
        written.append(("HTML", config.html))
    if config.out:
        write_json(config.out, report)
        written.append(("report", config.out))
    show(report, config, console)
    for what, path in written:
        console.say(f"{what}: {path}")


def show(report: dict[str, Any], config: EvalConfig, console: Console) -> None:
    """The answer on the terminal, what makes it doubtful, and all tables if they were asked for."""
    console.show("\n".join(answer(report)))
    console.show(f"\nWhole report: {' '.join(filter(None, (config.html, config.out))) or 'add -o report.json'}")
    hint = "" if config.full else "All tables: --full. "
    console.show(f"{hint}What a figure means: hiersae eval --explain all")
    for doubt in doubts(report):
        console.warn(doubt)
    if not config.full:
        return
    console.show("")
    for table in tables(report):
        console.table(table.title, table.columns, table.rows, table.spare, table.together)
    for line in lines(report):
        console.show(line)


def _edges(groups: list[Group]) -> Iterator[dict[str, Any]]:
    """Every edge of every tree of every run and control, latents by their ids as in ``tree.json``."""
    for subject in (subject for group in groups for subject in group.subjects):
        ids = subject.model.levels.ids
        for suffix in subject.trees.trees if subject.trees else ():
            columns = _columns(subject, suffix)
            for values in zip(*(column.tolist() for column in columns.values()), strict=True):
                edge = dict(zip(columns, values, strict=True))
                edge |= {"child": ids[edge["child"]], "parent": ids[edge["parent"]]}
                yield {"subject": subject.name, "tree": TREES[suffix], **edge}


def _plots(report: dict[str, Any], groups: list[Group]) -> dict[str, str]:
    """SVG texts by name; of several seeds the first stands for all."""
    from hiersae_cli.render.report_plots import Plotted, draw  # matplotlib takes a second to load

    plotted = []
    for group in groups:
        subject = group.subjects[0]
        fired_F, rows = subject.sums.fired_KF.sum(0, dtype=float), subject.data.rows_K.sum()
        rates = [fired_F[part] / rows for part in subject.model.level_slices()]
        edges = _columns(subject, OWN) if subject.trees and OWN in subject.trees.trees else {}
        plotted.append(Plotted(group.name, edges, rates))
    return draw(report, plotted)


def _columns(subject: Subject, suffix: str) -> dict[str, np.ndarray]:
    assert subject.trees is not None
    return subject.trees.table(suffix, subject.sums, subject.data)
