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

_MOST_POINTS = 2000  # more points are drawn as pixels: each point of a scatter takes a few hundred bytes
_LEAST_BITS = 1e-6  # drawn: smaller values, and those that the correction made negative, are practically 0


@dataclass(frozen=True)
class Plotted:
    """What the plots show about a dictionary beyond the report.

    Attributes:
        name: of its group.
        edges: columns (E,) of its tree, by their names in the file of edges.
        rates: for each level (F,), the share of held-out rows in which each latent fires.
    """

    name: str
    edges: Mapping[str, Array]
    rates: Sequence[Array]


def draw(report: Mapping[str, Any], plotted: Sequence[Plotted]) -> dict[str, str]:
    """SVG texts by file name, without the ending."""
    with matplotlib.rc_context(STYLE):
        plots = {"frontier": _frontier(report)}
        with_tree = [dictionary for dictionary in plotted if len(dictionary.edges.get("child", ()))]
        if with_tree:
            plots["information"] = _panels(with_tree, _information)
            plots["containment"] = _panels(with_tree, _containment)
        fitted = [
            dictionary for dictionary in with_tree if np.isfinite(dictionary.edges["p_child_given_parent_fitted"]).any()
        ]
        if fitted:
            plots["calibration"] = _panels(fitted, _calibration)
        plots["firing-rates"] = _panels(plotted, _rates)
        return plots


def _frontier(report: Mapping[str, Any]) -> str:
    plot, (axes,) = figure(1, 1.6)
    for name, group in report["groups"].items():
        runs = [report["runs"][subject] for subject in group["subjects"]]
        l0, fvu = ([run[metric]["value"] for run in runs] for metric in ("l0", "fvu"))
        axes.scatter(l0, fvu, s=24, marker="o" if group["seeds"] else "x", label=name)
    low, high = axes.get_xlim()
    middle = (low + high) / 2
    axes.set_xlim(min(low, 0.8 * middle), max(high, 1.2 * middle))  # small differences of L0 do not fill the plot
    axes.set(xlabel="L0 (active latents per row)", ylabel="FVU", yscale="log")
    axes.legend(frameon=False)
    return svg(plot)


def _information(axes: Axes, plotted: Plotted) -> None:
    most = plotted.edges["max_mi_bits"]
    bits = most * plotted.edges["mi_over_max"]  # 0 for negative association, to which the bound does not apply
    possible = most > 0
    _scatter(axes, most[possible], bits[possible].clip(_LEAST_BITS))
    _diagonal(axes, most[possible].clip(_LEAST_BITS))
    ylabel = f"I(parent; child), bits, at least {_LEAST_BITS:g}"
    axes.set(xlabel="I_max, bits", ylabel=ylabel, title=plotted.name, xscale="log", yscale="log")


def _containment(axes: Axes, plotted: Plotted) -> None:
    share = plotted.edges["p_parent_given_child"]
    axes.hist(share[np.isfinite(share)], bins=np.linspace(0, 1, 41).tolist())
    axes.set(xlabel="P(parent | child) in held-out rows", ylabel="edges", title=plotted.name)


def _calibration(axes: Axes, plotted: Plotted) -> None:
    predicted, observed = (plotted.edges[f"p_child_given_parent{suffix}"] for suffix in ("_fitted", ""))
    positive = (predicted > 0) & (observed > 0)
    _scatter(axes, predicted[positive], observed[positive])
    _diagonal(axes, predicted[positive])
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
    title = f"{plotted.name}: {silent:,} of {sum(map(len, plotted.rates)):,} never fire"
    axes.set(xlabel="log10 of the share of held-out rows", ylabel="latents", title=title)


def _panels(plotted: Sequence[Plotted], panel: Callable[[Axes, Plotted], None]) -> str:
    plot, all_axes = figure(len(plotted), 1.1)
    for axes, dictionary in zip(all_axes, plotted, strict=True):
        panel(axes, dictionary)
    return svg(plot)


def _scatter(axes: Axes, x: Array, y: Array) -> None:
    axes.scatter(x, y, s=3, alpha=0.4, linewidths=0, rasterized=len(x) > _MOST_POINTS)


def _diagonal(axes: Axes, values: Array) -> None:
    if len(values):
        axes.plot([values.min(), values.max()], [values.min(), values.max()], color="black", linewidth=0.8)
