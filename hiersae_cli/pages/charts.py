"""SVG drawings: a histogram for a page, and a subtree as a figure for a paper."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

from hiersae_cli.browse.model import Histogram
from hiersae_cli.browse.tree_model import Overview
from hiersae_cli.levels import latent_id
from hiersae_cli.pages.text import one_line, value

# The figure has a white ground everywhere, so its colours are fixed.
_INK, _QUIET, _ACCENT = "#1d1b18", "#6b655d", "#a33b1c"
_ROW, _TOP, _MARGIN = 22, 46, 24
_LINKS, _CHARACTER = 110, 6.4  # pixels: for the lines between two columns, and of a character of a name
_MOST_INCHES, _PIXELS_PER_INCH = 7.0, 96  # as wide as the text of a page of a paper


def histogram(bins: Histogram) -> Markup:
    """Bars on a line; the style sheet colours them."""
    width, height, most = 320, 84, max([*bins.counts, 1])
    step = width / max(1, len(bins.counts))
    bars = []
    for place, count in enumerate(bins.counts):
        bar_height = max(1.5, height * count / most) if count else 0
        low, high = value(bins.edges[place]), value(bins.edges[place + 1])
        bars.append(
            f'<rect x="{place * step + 0.5:.2f}" y="{height - bar_height:.2f}" width="{max(0.5, step - 1):.2f}" '
            f'height="{bar_height:.2f}"><title>{count:,} firings from {low} to {high}</title></rect>'
        )
    total = sum(bins.counts)
    name = f"Histogram of {total:,} activations from {value(bins.edges[0])} to {value(bins.edges[-1])}"
    return Markup(
        f'<svg class="histogram" viewBox="0 0 {width} {height + 1}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(name)}">{"".join(bars)}<line x1="0" x2="{width}" y1="{height + 0.5}" '
        f'y2="{height + 0.5}"/></svg>'
    )


@dataclass(frozen=True)
class _Spot:
    """A node's place in the figure; ``more`` of its children are left out."""

    node: int
    depth: int
    y: float
    more: int
    below: list[_Spot]


def subtree(tree: Overview, root: int, most: int = 40) -> str:
    """A node and everything below it, as an SVG file, at most 7 inches wide.

    Each node has at most ``most`` children drawn, those with the largest MI; the figure says how many are left out.
    ``root`` is a place in the columns of ``tree``.
    """
    below: dict[int, list[int]] = {}
    for place, parent in enumerate(tree.parent):
        if parent >= 0:
            below.setdefault(parent, []).append(place)
    rows = 0

    def put(node: int, depth: int) -> _Spot:
        nonlocal rows
        children = sorted(below.get(node, ()), key=lambda child: -(tree.mi_bits[child] or 0))
        spots = [put(child, depth + 1) for child in children[:most]]
        more = len(children) - len(spots)
        if not spots:
            rows += 1
            return _Spot(node, depth, rows - 0.5, 0, [])
        middle = (spots[0].y + spots[-1].y) / 2
        rows += bool(more)
        return _Spot(node, depth, middle, more, spots)

    top = put(root, 0)
    left = _columns(tree, top)
    width, height = round(left.pop()), _TOP + max(rows, 1) * _ROW + 44
    inches = min(_MOST_INCHES, width / _PIXELS_PER_INCH)
    parts: list[str] = []
    _draw(
        tree,
        top,
        _Scale(left, max(tree.rate, default=0) or 1, max([s or 0 for s in tree.share], default=0) or 1),
        parts,
    )
    caption = "Line: share of the parent’s firings. Circle: firing rate."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{inches:.2f}in" height="{inches * height / width:.2f}in" '
        f'viewBox="0 0 {width} {height}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="12">'
        f"<title>{escape(_name(tree, root))} and everything below it</title>"
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(parts)}'
        f'<text x="{_MARGIN}" y="{height - 16}" font-size="10.5" fill="{_QUIET}">{caption}</text></svg>'
    )


@dataclass(frozen=True)
class _Scale:
    """The left edge of each column, the largest rate, and the largest share of a parent's firings."""

    left: list[float]
    rate: float
    share: float


def _columns(tree: Overview, top: _Spot) -> list[float]:
    """The left edge of the column of each depth, and the right edge of the last one: names of leaves fit."""
    lengths: list[int] = []
    stack = [top]
    while stack:
        spot = stack.pop()
        lengths += [0] * (spot.depth + 1 - len(lengths))
        # The name of a node with lines to its right is above it, and may extend over them.
        length = len(_short(_name(tree, spot.node)))
        lengths[spot.depth] = max(lengths[spot.depth], length - 16 if spot.below else length)
        stack += spot.below
    edges = [float(_MARGIN)]
    for depth, length in enumerate(lengths):
        last = depth == len(lengths) - 1
        edges.append(edges[-1] + max(length * _CHARACTER + 24, _LINKS if not last else 0) + (_MARGIN if last else 0))
    caption = 340.0
    edges[-1] = max(edges[-1], caption)
    return edges


def _draw(tree: Overview, spot: _Spot, scale: _Scale, parts: list[str]) -> None:
    x, y = scale.left[spot.depth] + 8, _TOP + spot.y * _ROW
    radius = 2.5 + 6 * math.sqrt(tree.rate[spot.node] / scale.rate)
    # The name is to the right of a leaf, above a node with lines to its right, and at the top for the root.
    place = f'x="{x + 12:.1f}" y="{y + 4:.1f}"'
    if spot.below:
        place = f'x="{x - radius:.1f}" y="{y - radius - 6 if spot.depth else _MARGIN:.1f}"'
    for child in spot.below:
        to_x, to_y = scale.left[child.depth] + 8, _TOP + child.y * _ROW
        bend = (to_x - x) * 0.45
        strength = (tree.share[child.node] or 0) / scale.share
        parts.append(
            f'<path d="M{x:.1f} {y:.1f}C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}" '
            f'fill="none" stroke="{_ACCENT}" stroke-opacity="0.55" stroke-width="{0.6 + 7 * strength:.2f}"/>'
        )
        _draw(tree, child, scale, parts)
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{_ACCENT}"/>')
    bold = ' font-weight="bold"' if spot.below else ""
    name = escape(_short(_name(tree, spot.node)))
    # A white rim keeps a name legible in front of lines.
    rim = 'stroke="#ffffff" stroke-width="3" stroke-linejoin="round" paint-order="stroke"'
    parts.append(f'<text {place} fill="{_INK}" {rim}{bold}>{name}</text>')
    if spot.more:
        low = _TOP + (spot.below[-1].y + 1) * _ROW
        text = f"and {spot.more:,} more"
        parts.append(f'<text x="{scale.left[spot.depth + 1] + 20:.1f}" y="{low + 4:.1f}" fill="{_QUIET}">{text}</text>')


def _name(tree: Overview, place: int) -> str:
    text = tree.label[place] or tree.hint[place]
    return one_line(f"{latent_id(tree.level[place], tree.latent[place])}  {text}")


def _short(text: str, most: int = 44) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
