"""Plots that compare finished runs of the experiment, as SVG texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from hiersae_cli.formats.experiment_run import Curve, FinishedRun, interval, titles
from hiersae_cli.render.experiment_tables import CAUTION
from hiersae_cli.render.svg import STYLE, figure, svg

_TREE = ("mi_over_max", "p_parent_given_child", "hierarchy_score", "concept_score", "absorption")
_MARKS = {"hier": "o", "flat": "x"}

Panel = Callable[[Axes, str], None]


def draw(runs: Sequence[FinishedRun], confidence: float) -> dict[str, str]:
    """SVG texts by file name, without the ending; each has a panel for every data set."""
    panels: dict[str, Panel] = {
        "host-training": partial(_hosts, runs=runs),
        "training": partial(_training, runs=runs, confidence=confidence),
        "frontier": partial(_frontier, runs=runs, confidence=confidence),
        "tree": partial(_tree, runs=runs, confidence=confidence),
    }
    with matplotlib.rc_context(STYLE):
        return {name: _panels(titles(runs), panel) for name, panel in panels.items()}


def _panels(names: list[str], panel: Panel) -> str:
    plot, all_axes = figure(len(names), 1.3)
    for axes, title in zip(all_axes, names, strict=True):
        panel(axes, title)
        axes.set_title(title)
    all_axes[0].legend(frameon=False, fontsize=7)
    plot.supxlabel(fill(CAUTION, 75 * min(len(names), 3)), fontsize=7, color="dimgray")
    return svg(plot)


def _hosts(axes: Axes, title: str, *, runs: Sequence[FinishedRun]) -> None:
    drawn: list[list[Curve]] = []
    for number, run in enumerate(runs):
        curves = run.host_curves.get(title, [])
        if curves in drawn:
            continue  # reused from another run: the same hosts
        drawn.append(curves)
        for seed, curve in enumerate(curves):
            axes.plot(*zip(*curve, strict=True), color=f"C{number}", label=run.name if seed == 0 else None)
    axes.set(xlabel="steps", ylabel="validation loss, nats per character")


def _training(axes: Axes, title: str, *, runs: Sequence[FinishedRun], confidence: float) -> None:
    drawn: list[list[Curve]] = []
    for kind, style in (("hier", "-"), ("flat", ":")):
        for number, run in enumerate(runs):
            curves = run.curves.get((title, kind), [])
            if not curves or curves in drawn:
                continue
            drawn.append(curves)
            tokens = [at for at, _ in curves[0]]
            spread = [interval([curve[place][1] for curve in curves], confidence) for place in range(len(tokens))]
            middle = np.array([value for value, _ in spread], float)
            half = np.array([width or 0.0 for _, width in spread])
            axes.plot(tokens, middle, style, color=f"C{number}", label=f"{run.name} {kind}")
            axes.fill_between(tokens, np.maximum(middle - half, 0), middle + half, color=f"C{number}", alpha=0.2, lw=0)
    axes.set(xlabel="training rows", ylabel="FVU of the training batches", yscale="log")


def _frontier(axes: Axes, title: str, *, runs: Sequence[FinishedRun], confidence: float) -> None:
    for number, run in enumerate(runs):
        for kind, mark in _MARKS.items():
            (x, dx), (y, dy) = (interval(run.values(title, f"{metric}_{kind}"), confidence) for metric in ("l0", "fvu"))
            if x is not None and y is not None:
                axes.errorbar(
                    x, y, xerr=dx, yerr=dy, fmt=mark, color=f"C{number}", lw=0.8, ms=4, label=f"{run.name} {kind}"
                )
    axes.set(xlabel="L0 (active latents per row)", ylabel="FVU")


def _tree(axes: Axes, title: str, *, runs: Sequence[FinishedRun], confidence: float) -> None:
    for number, run in enumerate(runs):
        for kind, mark in _MARKS.items():
            intervals = [interval(run.values(title, f"{metric}_{kind}"), confidence) for metric in _TREE]
            place = np.arange(len(_TREE)) + (number - (len(runs) - 1) / 2) * 0.8 / max(1, len(runs))
            defined = [at for at, (middle, _) in enumerate(intervals) if middle is not None]
            axes.errorbar(
                place[defined],
                [float(intervals[at][0] or 0) for at in defined],
                yerr=[intervals[at][1] or 0 for at in defined],
                fmt=mark,
                color=f"C{number}",
                lw=0.8,
                ms=4,
                label=f"{run.name} {kind}",
            )
    axes.set_xticks(range(len(_TREE)), [name.replace("_", "\n") for name in _TREE], fontsize=6)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
