"""What all plots share: style, panels and SVG output."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Equal figures give equal files.
STYLE: Any = {"svg.hashsalt": "hiersae", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_PANEL = 3.2  # inches


def figure(panels: int, wide: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``panels`` with a shared x axis, three to a row, each ``wide`` times as wide as high."""
    columns = min(panels, 3)
    rows = -(-panels // columns)
    plot = Figure(figsize=(_PANEL * wide * columns, _PANEL * rows), layout="constrained")
    first = plot.add_subplot(rows, columns, 1)
    more = [plot.add_subplot(rows, columns, number, sharex=first) for number in range(2, panels + 1)]
    return plot, [first, *more]


def svg(plot: Figure) -> str:
    """The figure as the text of an SVG file."""
    text = io.StringIO()
    plot.savefig(text, format="svg", dpi=150, metadata={"Date": None})
    return text.getvalue()
