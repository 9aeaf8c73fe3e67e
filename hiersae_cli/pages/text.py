"""Contexts as HTML, with tokens marked by activation.

They are the bulk of a page, so code builds them and not a template.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

from markupsafe import Markup

from hiersae_cli.browse.model import Context
from hiersae_cli.formats.marked_text import (
    STEPS,
    context_line,
    number,
    one_line,
    percent,
    running,
    step,
    token,
    value,
)

__all__ = [
    "STEPS",
    "asset_text",
    "context",
    "contexts",
    "number",
    "one_line",
    "percent",
    "running",
    "step",
    "token",
    "value",
]


def context(context: Context, most: float | None) -> Markup:
    """A context as a line of a concordance; ``most`` is the activation of the darkest step."""
    held_out = ", held out" if context.held_out else ""
    where = f"{one_line(context.document)}, token {context.position:,}{held_out}"
    return context_line(context.tokens, context.activations, context.focus, where, most)


def contexts(lines: Iterable[Context], most: float | None) -> Markup:
    """The lines of a list of contexts."""
    return Markup("").join(context(line, most) for line in lines)


def asset_text(name: str) -> str:
    """The text of a style sheet, a script or a drawing."""
    return (files("hiersae_cli.pages") / "assets" / name).read_text(encoding="utf-8")
