"""What all plots share: style, panels and SVG output."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Equal figures give equal files.
STYLE: Any = {"svg.hashsalt": "hiersae", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
_WIDTHS = (3.4, 7.0, 7.0)  # inches of one, two and three panels: a column, or a page, of a paper


def figure(panels: int, wide: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``panels`` with a shared x axis, three to a row, each ``wide`` times as wide as high."""
    columns = min(panels, 3)
    rows = -(-panels // columns)
    width = _WIDTHS[columns - 1]
    plot = Figure(figsize=(width, max(1.9, width / columns / wide) * rows), layout="constrained")
    plot.get_layout_engine().set(h_pad=0.08)  # type: ignore[union-attr, call-arg]  # titles stay clear of labels above
    first = plot.add_subplot(rows, columns, 1)
    more = [plot.add_subplot(rows, columns, number, sharex=first) for number in range(2, panels + 1)]
    return plot, [first, *more]


def svg(plot: Figure) -> str:
    """The figure as the text of an SVG file."""
    text = io.StringIO()
    plot.savefig(text, format="svg", dpi=150, metadata={"Date": None})
    return text.getvalue()
