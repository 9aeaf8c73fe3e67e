"""What a notebook shows of runs, trees, nodes and reports: self-contained HTML, light and dark, all text escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

from hiersae_cli.formats.marked_text import STEPS, context_line, number, one_line

Content = str | Markup


def card(title: str, note: str, *parts: Markup) -> str:
    """A framed box with a title, a line below it, and parts."""
    heading = Markup('<h3>{}</h3><p class="quiet">{}</p>').format(one_line(title), one_line(note))
    return f'<div class="hiersae"><style>{_style()}</style>{heading}{Markup("").join(parts)}</div>'


def section(title: str, *parts: Markup) -> Markup:
    """Parts below a small heading; nothing if they are empty."""
    body = Markup("").join(parts)
    return Markup("<h4>{}</h4>{}").format(title, body) if body else Markup("")


def table(rows: Iterable[Sequence[Content]], columns: Sequence[str] = ()) -> Markup:
    """A table; the first cell of a row is its heading."""
    head = Markup("").join(Markup("<th>{}</th>").format(as_text(name)) for name in columns)
    lines = [
        Markup("<tr><th>{}</th>{}</tr>").format(as_text(row[0]), Markup("").join(map(_cell, row[1:]))) for row in rows
    ]
    body = Markup("").join(lines)
    return Markup("<table>{}{}</table>").format(Markup("<tr>{}</tr>").format(head) if columns else "", body)


def statistics(values: Mapping[str, Any]) -> Markup:
    """A table of numbers by name."""
    return table((name, figure(value)) for name, value in values.items()) if values else Markup("")


def figure(value: Any) -> str:
    """A number with three figures, a whole number with separators, a dash if undefined."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else number(value)


def contexts(items: Sequence[Mapping[str, Any]]) -> Markup:
    """Contexts as ``tree.json`` has them, in the lines that the dashboard shows."""
    most = max((item["activation"] for item in items), default=None)
    lines = Markup("").join(_line(item, most) for item in items)
    return Markup('<ul class="lines">{}</ul>').format(lines) if lines else Markup("")


def token_list(items: Iterable[Mapping[str, Any]], value: str) -> Markup:
    """Tokens with a number each, such as their logit."""
    marked = (Markup("<code>{}</code> {}").format(*token_and(item, value)) for item in items)
    return Markup(", ").join(marked)


def token_and(item: Mapping[str, Any], value: str) -> tuple[str, str]:
    """A token's text on one line, and its number."""
    return shown(_word(item["token"])), number(item.get(value))


def shown(token: str) -> str:
    """A token on one line, with visible white space."""
    return one_line(token).replace(" ", "␣")


def _line(item: Mapping[str, Any], most: float | None) -> Markup:
    words = [_word(token) for token in (*item["before"], item["token"], *item["after"])]
    held_out = ", held out" if item.get("held_out") else ""
    where = f"{one_line(str(item['document_name']))}, token {item['position']:,}{held_out}"
    return context_line(words, item["activations"], len(item["before"]), where, most)


def _word(token: str | int) -> str:
    """A token's text; its number in brackets if there is none."""
    return token if isinstance(token, str) else f"[{token}]"


def _cell(content: Content) -> Markup:
    return Markup("<td>{}</td>").format(as_text(content))


def as_text(content: Content) -> Markup:
    """Text on one line, escaped; markup unchanged."""
    return content if isinstance(content, Markup) else escape(one_line(content))


@cache
def _style() -> str:
    """The style of a box: the dashboard's colours, then the rules, then the steps of the ramp of activations."""
    package = files("hiersae_cli")
    dashboard = package.joinpath("pages/assets/dashboard.css").read_text(encoding="utf-8")
    colours = re.search(r":root (\{.*?\n\})", dashboard, re.DOTALL)
    assert colours
    steps = (
        f".hiersae .h{step} {{ background-color: var(--h{step}); color: var(--h{step}-ink); }}"
        for step in range(1, STEPS + 1)
    )
    rules = package.joinpath("formats/notebook.css").read_text(encoding="utf-8")
    # Themes of notebooks come after the colours, so that they decide between light and dark.
    return "\n".join([f".hiersae {colours[1]}", rules, *steps])
