"""Tables as lines of text that fit a terminal: no column is lost, and no cell is cut.

If a table is too wide, intervals are left out first, then the columns that the caller can spare. If it is still too
wide, it becomes several tables below each other, each with the first column. Only a cell wider than the terminal is
wrapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Rows = Sequence[Sequence[str]]
Style = Callable[[str, str], str]  # maps a text and its kind ("heading", or a cell's own text) to the styled text

_GAP, _MARGIN = 2, 1
_WITH_INTERVAL = re.compile(r"([-+]?[\d.,]+(?:e[-+]?\d+)?) ([\[(].*, .*[\])])")
_NUMBER = re.compile(r"[-+−–<.\d]")
_ENDS_OF_WORDS = re.compile(r"\s+")


def table_lines(
    title: str,
    columns: Sequence[str],
    rows: Rows,
    width: int,
    spare: Sequence[int] = (),
    together: int = 1,
    style: Style | None = None,
) -> list[str]:
    """The lines of a table of at most ``width`` characters.

    Args:
        rows: texts; a row of one cell is the heading of those below it.
        spare: numbers of columns that may be left out if there is no room, in this order.
        together: how many columns belong together, counted from the last one.
        style: adds colours; it must not change how wide a text is.
    """
    visible = list(range(len(columns)))
    if _table_width(columns, rows, visible) > width:
        rows = [[split_interval(cell)[0] for cell in row] for row in rows]
    for column in spare:
        if _table_width(columns, rows, visible) > width:
            visible.remove(column)
    lines = [*_wrap(title, width), ""]
    for part in _split_columns(columns, rows, visible, width, together):
        lines += [*_part_lines(columns, rows, part, width, style or (lambda text, _: text)), ""]
    return lines


def _split_columns(
    columns: Sequence[str], rows: Rows, visible: list[int], width: int, together: int
) -> list[list[int]]:
    """The columns of each of the tables that replace one: as many as fit next to the first column."""
    first, *others = visible
    singles = len(others) % together
    units = [[column] for column in others[:singles]]
    for start in range(singles, len(others), together):
        members = others[start : start + together]
        fits = _table_width(columns, rows, [first, *members]) <= width
        units += [members] if fits else [[column] for column in members]
    parts = [[first]]
    for members in units:
        if len(parts[-1]) > 1 and _table_width(columns, rows, [*parts[-1], *members]) > width:
            parts.append([first])
        parts[-1] += members
    return parts


def _part_lines(columns: Sequence[str], rows: Rows, part: list[int], width: int, style: Style) -> list[str]:
    widths = [_column_width(columns, rows, column) for column in part]
    widths[0] = min(widths[0], max(width // 2, width - _MARGIN - sum(w + _GAP for w in widths[1:])))
    if _MARGIN + sum(widths) + _GAP * (len(widths) - 1) > width:  # two columns: more would be several tables
        widths[-1] = max(1, width - _MARGIN - _GAP * (len(widths) - 1) - sum(widths[:-1]))
    for number, column in enumerate(part):  # widen a column to its whole name while there is room
        room = width - _MARGIN - sum(widths) - _GAP * (len(widths) - 1)
        widths[number] += min(max(0, _display_width(columns[column]) - widths[number]), max(0, room))
    right = [number > 0 and _is_numeric(rows, column) for number, column in enumerate(part)]

    def line_up(cells: Sequence[str], kind: str = "") -> list[str]:
        wrapped = [_wrap(cell, w) for cell, w in zip(cells, widths, strict=True)]
        aligned = []
        for place in range(max(map(len, wrapped))):
            texts = []
            for lines, w, to_the_right, cell in zip(wrapped, widths, right, cells, strict=True):
                text = lines[place] if place < len(lines) else ""
                space = " " * (w - _display_width(text))
                text = style(text, kind or cell) if text else ""
                texts.append(space + text if to_the_right else text + space)
            aligned.append((" " * _MARGIN + (" " * _GAP).join(texts)).rstrip())
        return aligned

    lines = line_up([columns[column] for column in part], "heading")
    lines.append(" " * _MARGIN + "─" * (sum(widths) + _GAP * (len(widths) - 1)))
    for row in rows:
        if len(row) == 1:
            lines += [*([""] if row is not rows[0] else []), " " * _MARGIN + style(row[0], "heading")]
        else:
            lines += line_up([row[column] for column in part])
    return lines


def _table_width(columns: Sequence[str], rows: Rows, visible: list[int]) -> int:
    return _MARGIN + sum(_column_width(columns, rows, column) for column in visible) + _GAP * (len(visible) - 1)


def _column_width(columns: Sequence[str], rows: Rows, column: int) -> int:
    """The width of the widest cell, or of the longest word of the column's name, which is wrapped."""
    words = _ENDS_OF_WORDS.split(columns[column])
    return max(map(_display_width, [*words, *(row[column] for row in rows if len(row) > 1)]))


def _is_numeric(rows: Rows, column: int) -> bool:
    cells = [row[column] for row in rows if len(row) > 1 and row[column]]
    return bool(cells) and all(_NUMBER.match(cell) for cell in cells)


def split_interval(cell: str) -> tuple[str, str]:
    """A figure and its interval; for any other cell, the cell and an empty text."""
    match = _WITH_INTERVAL.fullmatch(cell)
    return (match[1], match[2]) if match else (cell, "")


def _wrap(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width``, broken at spaces if possible; at least one line."""
    lines = []
    for line in text.split("\n"):
        while _display_width(line) > width:
            end = next(end for end in range(len(line), 0, -1) if end == 1 or _display_width(line[:end]) <= width)
            space = line.rfind(" ", 1, end + 1)
            end = space if space > 0 else end
            lines.append(line[:end].rstrip())
            line = line[end:].lstrip(" ")
        lines.append(line)
    return lines


def _display_width(text: str) -> int:
    """The width of ``text`` on a terminal, where East Asian characters take two columns."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
