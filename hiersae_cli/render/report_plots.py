"""The plots of a report, as SVG texts.

Legend of shapes: E edges, F latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from hiersae_cli.render.svg import STYLE, figure, svg

Array = np.ndarray[Any, Any]

_MANY = 2000  # points from which on a scatter is drawn as pixels: each point is a few hundred bytes otherwise
_LEAST_BITS = 1e-6  # drawn: what is less, or negative by its correction, is as good as none


@dataclass(frozen=True)
class Plotted:
    """What the plots show of a dictionary beyond the report.

    Attributes:
        name: of its group.
        edges: columns (E,) of its own tree by their names in the file of edges.
        rates: by level, the share of held-out rows in which each latent fires.
    """

    name: str
    edges: Mapping[str, Array]
    rates: Sequence[Array]


def draw(report: Mapping[str, Any], plotted: Sequence[Plotted]) -> dict[str, str]:
    """SVG texts by file name without its ending."""
    with matplotlib.rc_context(STYLE):
        found = {"frontier": _frontier(report)}
        with_tree = [each for each in plotted if len(each.edges.get("child", ()))]
        if with_tree:
            found["information"] = _panels(with_tree, _information)
            found["containment"] = _panels(with_tree, _containment)
        fitted = [each for each in with_tree if np.isfinite(each.edges["p_child_given_parent_fitted"]).any()]
        if fitted:
            found["calibration"] = _panels(fitted, _calibration)
        found["firing-rates"] = _panels(plotted, _rates)
        return found


def _frontier(report: Mapping[str, Any]) -> str:
    drawn, (axes,) = figure(1, 1.6)
    for name, group in report["groups"].items():
        runs = [report["runs"][subject] for subject in group["subjects"]]
        l0, fvu = ([run[metric]["value"] for run in runs] for metric in ("l0", "fvu"))
        axes.scatter(l0, fvu, s=24, marker="o" if group["seeds"] else "x", label=name)
    axes.set(xlabel="L0 (active latents a row)", ylabel="FVU", yscale="log")
    axes.legend(frameon=False)
    return svg(drawn)


def _information(axes: Axes, plotted: Plotted) -> None:
    most = plotted.edges["max_mi_bits"]
    found = most * plotted.edges["mi_over_max"]  # without negative association, which has no such bound
    possible = most > 0
    _scatter(axes, most[possible], found[possible].clip(_LEAST_BITS))
    _diagonal(axes, most[possible].clip(_LEAST_BITS))
    ylabel = f"I(parent; child), bits, {_LEAST_BITS:g} if less"
    axes.set(xlabel="I_max, bits", ylabel=ylabel, title=plotted.name, xscale="log", yscale="log")


def _containment(axes: Axes, plotted: Plotted) -> None:
    share = plotted.edges["p_parent_given_child"]
    axes.hist(share[np.isfinite(share)], bins=np.linspace(0, 1, 41).tolist())
    axes.set(xlabel="P(parent | child) in held-out rows", ylabel="edges", title=plotted.name)


def _calibration(axes: Axes, plotted: Plotted) -> None:
    predicted, observed = (plotted.edges[f"p_child_given_parent{suffix}"] for suffix in ("_fitted", ""))
    shown = (predicted > 0) & (observed > 0)
    _scatter(axes, predicted[shown], observed[shown])
    _diagonal(axes, predicted[shown])
    axes.set(xlabel="fitted", ylabel="held-out", title=plotted.name, xscale="log", yscale="log")


def _rates(axes: Axes, plotted: Plotted) -> None:
    logarithms = [np.log10(rate_F[rate_F > 0]) for rate_F in plotted.rates]
    lowest = min((values.min() for values in logarithms if len(values)), default=-1.0)
    for level, values in enumerate(logarithms):
        label = f"level {level}" if len(logarithms) > 1 else None
        axes.hist(values, bins=np.linspace(min(lowest, -1.0), 0, 41).tolist(), histtype="step", label=label)
    if len(logarithms) > 1:
        axes.legend(frameon=False)
    silent = sum(int((rate_F == 0).sum()) for rate_F in plotted.rates)
    title = f"{plotted.name}: {silent:,} of {sum(map(len, plotted.rates)):,} never"
    axes.set(xlabel="log10 of the share of held-out rows", ylabel="latents", title=title)


def _panels(plotted: Sequence[Plotted], panel: Callable[[Axes, Plotted], None]) -> str:
    drawn, all_axes = figure(len(plotted), 1.1)
    for axes, each in zip(all_axes, plotted, strict=True):
        panel(axes, each)
    return svg(drawn)


def _scatter(axes: Axes, x: Array, y: Array) -> None:
    axes.scatter(x, y, s=3, alpha=0.4, linewidths=0, rasterized=len(x) > _MANY)


def _diagonal(axes: Axes, values: Array) -> None:
    if len(values):
        axes.plot([values.min(), values.max()], [values.min(), values.max()], color="black", linewidth=0.8)
