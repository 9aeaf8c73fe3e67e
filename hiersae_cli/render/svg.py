"""What plots have in common: their style, panels, and the text of their SVG."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Texts of an SVG as outlines, and the same file for the same figures.
STYLE: Any = {"svg.hashsalt": "hiersae", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_PANEL = 3.2  # inches


def figure(panels: int, wide: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``panels`` with one x axis, three in a row, each ``wide`` times as wide as high."""
    columns = min(panels, 3)
    rows = -(-panels // columns)
    found = Figure(figsize=(_PANEL * wide * columns, _PANEL * rows), layout="constrained")
    first = found.add_subplot(rows, columns, 1)
    more = [found.add_subplot(rows, columns, number, sharex=first) for number in range(2, panels + 1)]
    return found, [first, *more]


def svg(drawn: Figure) -> str:
    """The text of the figure's file."""
    text = io.StringIO()
    drawn.savefig(text, format="svg", dpi=150, metadata={"Date": None})
    return text.getvalue()
