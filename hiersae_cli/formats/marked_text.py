"""Corpus text and numbers as HTML: tokens marked by activation, visible white space, everything escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from hiersae_cli.formats.names import token_shown

# Steps of the colour ramp in the style sheets: h1 (weakest) to h9. 0 is no activation.
STEPS = 9
_LARGE = 1e300  # an activation

# Characters that a page would not show, or that would reverse the text around them (such as U+202E).
_HIDDEN_RANGES = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff\ud800-\udfff"
)
_HIDDEN = re.compile(f"[{_HIDDEN_RANGES}]")
# The characters of running text that a page shows as something else; searched for at once, since texts have few.
_SHOWN_OTHERWISE = re.compile(f"[&<>'\"\n\t{_HIDDEN_RANGES}]")
WINDOW_START = Markup('<i title="Here the window begins: the model saw nothing before it.">⊢</i>')
_SIGNS = {"\n": "<i>↵</i>", "\t": "<i>⇥</i>"}


def step(activation: float, most: float | None) -> int:
    """The step of the ramp for an activation: 0 for none, else 1 to ``STEPS``, which ``most`` has."""
    if activation <= 0 or not most or most <= 0:
        return 0
    activation = min(activation, most)
    if most > _LARGE:  # the product would be infinite
        activation, most = activation / _LARGE, most / _LARGE
    return max(1, min(STEPS, -int(-activation * STEPS // most)))


def one_line(text: str) -> str:
    """A text on one line: line ends and tabs as signs, invisible characters as their codes."""
    return _HIDDEN.sub(_code, text.replace("\n", "↵").replace("\t", "⇥"))


def token(text: str) -> Markup:
    """A single token, with visible white space."""
    return Markup(_quiet(token_shown(text)))


def running(text: str) -> Markup:
    """A token in running text: white space stays, and a line end has a sign."""
    return Markup(_quiet(text))


def value(number: float) -> str:
    """A number with three figures: ``12.0``, ``0.0123``; ``0`` is 0."""
    if number == 0:
        return "0"
    text = f"{number:#.3g}".rstrip(".")
    return f"{number:.0f}" if "e+" in text else text


def percent(share: float | None) -> str:
    """``2.31 %``, with three figures; a dash if undefined."""
    return "–" if share is None else f"{value(100 * share)} %"


def number(figure: float | None) -> str:
    """Three figures, ``2.42 × 10⁻⁷`` if it is small; a dash if undefined."""
    if figure is None:
        return "–"
    if 0 < abs(figure) < 1e-4:
        digits, _, power = f"{figure:.2e}".partition("e")
        raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{digits} × 10{raised}".replace("-", "−")
    return value(figure).replace("-", "−")


def context_line(
    tokens: Sequence[str],
    activations: Sequence[float],
    focus: int,
    where: str,
    most: float | None,
    *,
    starts_window: bool = False,
    source: str = "",
) -> Markup:
    """A context as a line of a concordance: the text before the focus, then the focus and the text after it.

    Only tokens with an activation have an element.

    Args:
        tokens, activations: the text of each token, and the latent's activation there.
        focus: place of the token that the context was chosen for.
        where: where the context comes from, in words.
        most: the activation of the darkest step.
        starts_window: whether the first token begins a window of the host model; this gets a sign.
        source: where the page has the whole document, for its script.
    """
    pairs = list(zip(tokens, activations, strict=True))
    before, after = marked(pairs[:focus], most), marked(pairs[focus:], most, focus=True)
    if starts_window:
        before = WINDOW_START + before
    to = f' data-source="{escape(source)}"' if source else ""
    return Markup(
        f'<li class="line" tabindex="0" data-where="{escape(where)}"{to}>'
        f'<span class="strength">{value(activations[focus])}</span>'
        f'<span class="before"><bdi>{before}</bdi></span><span class="after"><bdi>{after}</bdi></span></li>'
    )


def marked(pairs: Sequence[tuple[str, float]], most: float | None, focus: bool = False) -> Markup:
    """Tokens as running text; those with an activation are in a ``<mark>`` of the step of the ramp.

    Args:
        pairs: the text and the activation of each token.
        most: the activation of the darkest step.
        focus: whether the context was chosen for its first token.
    """
    parts, plain = [], ""
    for place, (text, activation) in enumerate(pairs):
        here = step(activation, most) if activation else 0
        chosen = focus and place == 0
        if (text and here) or chosen:  # of several tokens that make one character, only one has text
            name = f"h{here} focus" if chosen else f"h{here}"
            mark = f'<mark class="{name}" data-a="{value(activation)}">{_mark_text(text)}</mark>'
            parts += [_quiet(plain), mark] if plain else [mark]
            plain = ""
        else:
            plain += text
    return Markup("".join([*parts, _quiet(plain)]))


def _mark_text(text: str) -> str:
    """A marked token; one that is only spaces would be an empty box."""
    return text.replace(" ", "<i>␣</i>") if text and not text.strip(" ") else _quiet(text)


def _quiet(text: str) -> str:
    """Escaped text; the signs for white space are in a paler element."""
    return _SHOWN_OTHERWISE.sub(_instead, text)


def _instead(match: re.Match[str]) -> str:
    character = match[0]
    return _SIGNS.get(character) or str(escape(_HIDDEN.sub(_code, character)))


def _code(match: re.Match[str]) -> str:
    return f"‹{ord(match[0]):02X}›"
