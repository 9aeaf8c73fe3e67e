"""Sentences that say what a parent or a child is, and why one should believe it."""

from __future__ import annotations

from markupsafe import Markup

from hiersae_cli.browse.model import Edge, Evidence, FeaturePage
from hiersae_cli.pages.text import number, percent

FEWEST = 30  # firings in held-out rows below which nothing is claimed
_LITTLE = 1.2  # times chance, below which being inside says little


def parent_sentence(feature: FeaturePage) -> Markup:
    """What a parent is, and whether its children's firings speak for it; "" for a node without children."""
    view = feature.as_parent
    if view is None:
        return Markup("")
    count = len(view.children) + view.children_left_out
    children, firings = f"its {count:,} children fire at parts", "the children’s firings"
    if count == 1:
        children, firings = "its only child fires at a part", "the child’s firings"
    what = f"This parent fires at {short_percent(feature.rate)} of the tokens, and {children} of these."
    return Markup("{} {}").format(what, _belief(view.together, firings))


def child_sentence(feature: FeaturePage) -> Markup:
    """What a child is, and whether its firings speak for its parent; "" for a node without a parent."""
    edge = feature.as_child.edge if feature.as_child else None
    if edge is None:
        return Markup("")
    rate = short_percent(feature.rate)
    what = f"This child fires at {rate} of the tokens and should be a special case of its parent."
    return Markup("{} {}").format(what, _belief(edge, "its firings"))


def _belief(evidence: Evidence, firings: str) -> Markup:
    inside, times = evidence.inside, evidence.times
    if inside is None or times is None or evidence.n_child < FEWEST:
        count = f"{evidence.n_child:,}" if evidence.n_child else "none"
        return Markup("Too few of {} are in the held-out tokens to judge: {}.").format(firings, count)
    figures = Markup("<strong>{}</strong> of {} lie inside the parent, <strong>{}</strong> alone").format(
        short_percent(inside), firings, short_percent(1 - inside)
    )
    chance = short_percent(evidence.by_chance)
    if times < 1:
        return figures + f": less than by chance ({chance}), which speaks against this parent."
    if times < _LITTLE:
        return figures + f": hardly more than by chance ({chance}), so this says little."
    return figures + Markup(": <strong>{} ×</strong> likelier than by chance ({}).").format(short_number(times), chance)


def edge_words(edge: Edge) -> list[str]:
    """The same for a row of a list, in a few words each."""
    if edge.inside is None or edge.times is None or edge.n_child < FEWEST:
        return [f"only {edge.n_child:,} held-out firing{'' if edge.n_child == 1 else 's'}"]
    return [
        f"inside {short_percent(edge.inside)}",
        f"alone {short_percent(1 - edge.inside)}",
        f"{short_number(edge.times)} × chance",
    ]


def short_percent(share: float) -> str:
    """``96 %``, ``7.3 %``, ``0.12 %``; ``99.6 %`` if rounding would make it 100."""
    figure = 100 * share
    if figure in (0, 100):
        return f"{figure:.0f} %"
    if 10 <= figure < 99:
        return f"{figure:.0f} %"
    if figure >= 99:
        return f"{min(figure, 99.9):.1f} %"
    return percent(share) if figure < 0.1 else f"{figure:.2g} %"


def short_number(figure: float) -> str:
    """Two figures, as many as one can compare at a glance."""
    return f"{figure:,.0f}" if figure >= 10 else f"{figure:.1f}" if figure >= 1 else number(figure)
