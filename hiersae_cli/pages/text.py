"""Contexts as HTML, with tokens marked by activation.

They are the bulk of a page, so code builds them and not a template.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
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
    "stretch",
    "token",
    "value",
]


def context(context: Context, most: float | None) -> Markup:
    """A context as a line of a concordance; ``most`` is the activation of the darkest step."""
    held_out = ", held out" if context.held_out else ""
    where = f"{one_line(context.document)}, token {context.position:,}{held_out}"
    return context_line(
        context.tokens,
        context.activations,
        context.focus,
        where,
        most,
        starts_window=context.starts_window,
        source="{}/{}".format(*context.source),
    )


def contexts(lines: Iterable[Context], most: float | None) -> Markup:
    """The lines of a list of contexts."""
    return Markup("").join(context(line, most) for line in lines)


@cache
def asset_text(name: str) -> str:
    """The text of a style sheet, a script or a drawing."""
    return (files("hiersae_cli.pages") / "assets" / name).read_text(encoding="utf-8")


def stretch(first: int, tokens: Sequence[str], activations: Sequence[float], most: float, at: int) -> Markup:
    """Consecutive tokens of a document, each in an element of its own, so that any can be found by its place.

    Args:
        first: place of the first token in the document.
        most: the activation of the darkest step.
        at: place of the token that is framed.
    """
    parts = []
    for place, (piece, activation) in enumerate(zip(tokens, activations, strict=True), first):
        framed = " at" if place == at else ""
        if activation:
            mark = f'<mark class="h{step(activation, most)}{framed}" data-a="{value(activation)}">'
            parts.append(f"{mark}{running(piece)}</mark>")
        else:
            parts.append(f'<s class="at">{running(piece)}</s>' if framed else f"<s>{running(piece)}</s>")
    return Markup("".join(parts))
