"""The outputs of an evaluation: an answer on the terminal, ``report.json``, Markdown, HTML, plots, file of edges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import finish_replacing, json_text, refuse_existing, replace_all
from hiersae_cli.formats.report import OWN, PLOTS, TREES
from hiersae_cli.render.report_answer import answer
from hiersae_cli.render.report_tables import doubts, lines, tables
from hiersae_cli.render.report_writers import edges_csv, markdown
from hiersae_cli.workflows.eval.passes import Encoded
from hiersae_cli.workflows.eval.score import Evaluation


def refuse(config: EvalConfig) -> None:
    """Raise ``FileError``, before any work, if an output cannot be written."""
    if config.plots and Path(config.plots).is_file():
        raise FileError(f"{config.plots}: this is a file, a folder was expected", "Choose another path for --plots.")
    plots = [str(Path(config.plots) / f"{name}.svg") for name in PLOTS] if config.plots else []
    paths = [path for path in (*plots, config.edges, config.markdown, config.html, config.out) if path]
    if paths:
        finish_replacing(paths[-1])
    for path in paths:
        refuse_existing(path, config.overwrite)


def publish(report: dict[str, Any], evaluation: Evaluation, console: Console) -> None:
    """Write the report in every form that was asked for, all or none of them, then show its answer."""
    written, config = [], evaluation.config
    texts: dict[str | Path, str] = {}  # the report comes last: without it, the others do not count
    plots = _plots(report, evaluation) if config.html or config.plots else {}
    if config.plots:
        texts |= {Path(config.plots) / f"{name}.svg": svg for name, svg in plots.items()}
        written.append(("plots", config.plots))
    if config.edges:
        texts[config.edges] = edges_csv(_edges(evaluation))
        written.append(("edges", config.edges))
    if config.markdown:
        texts[config.markdown] = markdown(report)
        written.append(("Markdown", config.markdown))
    if config.html:
        from hiersae_cli.pages.report_page import html

        texts[config.html] = html(report, {PLOTS[name]: svg for name, svg in plots.items()})
        written.append(("HTML", config.html))
    if config.out:
        texts[config.out] = json_text(report)
        written.append(("report", config.out))
    if texts:
        replace_all({Path(path): text.encode() for path, text in texts.items()})
    show(report, config, console)
    for what, path in written:
        console.say(f"{what}: {path}")


def show(report: dict[str, Any], config: EvalConfig, console: Console) -> None:
    """Show the answer, the reasons to doubt it, and all tables if they were asked for."""
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


def _edges(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Every edge of every tree of every run and control, latents by their ids as in ``tree.json``."""
    for scored in evaluation.scored:
        ids, trees = scored.subject.model.levels.ids, scored.encoded.trees.trees
        for suffix in trees:
            columns = _columns(scored.encoded, suffix)
            for values in zip(*(column.tolist() for column in columns.values()), strict=True):
                edge = dict(zip(columns, values, strict=True))
                edge |= {"child": ids[edge["child"]], "parent": ids[edge["parent"]]}
                yield {"subject": scored.name, "tree": TREES[suffix], **edge}


def _plots(report: dict[str, Any], evaluation: Evaluation) -> dict[str, str]:
    """SVG texts by name; the first of several seeds stands for all."""
    from hiersae_cli.render.report_plots import Plotted, draw  # matplotlib takes a second to load

    plotted = []
    for group in evaluation.all_groups:
        encoded = group.scored[0].encoded
        fired_F, rows = encoded.codes.fired_KF.sum(0, dtype=float), encoded.data.rows_K.sum()
        rates = [fired_F[part] / rows for part in encoded.subject.model.level_slices()]
        edges = _columns(encoded, OWN) if OWN in encoded.trees.trees else {}
        plotted.append(Plotted(group.name, edges, rates))
    return draw(report, plotted)


def _columns(encoded: Encoded, suffix: str) -> dict[str, np.ndarray]:
    return encoded.trees.table(suffix, encoded.codes, encoded.data)
