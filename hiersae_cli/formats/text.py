"""Any text as one line of printable characters, and as a cell of a table that other programs open."""

from __future__ import annotations

_LONGEST = 80  # characters


def visible(text: str) -> str:
    """``text`` in one line of printable characters, everything else escaped as in a Python string."""
    return "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode("ascii") for c in text)


def cell(text: str) -> str:
    """A text as a cell of CSV that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


def shortened(text: str) -> str:
    """``text`` without its end, marked by ``…``, if it is too long for a line."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def counted(number: int, noun: str) -> str:
    """``1 rater``, ``2 raters``: a number and its noun, whose plural ends in s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
