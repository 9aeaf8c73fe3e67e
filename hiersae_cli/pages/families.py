"""The families of a text: for each token the paths from parent to child along which it fires."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

from hiersae_cli.browse.model import Neighbour
from hiersae_cli.browse.tree_model import TextCodes
from hiersae_cli.levels import Levels
from hiersae_cli.pages.text import one_line

HUES = 8  # families of a text with a colour of their own, f1 to f8 in the style sheet
_LISTED, _CHILDREN = 30, 5  # families next to the text, and children of each


@dataclass
class Family:
    """A node that fires in the text, or has a child that does.

    Attributes:
        place: of the node in the tree.
        node: the node.
        tokens: number of tokens at which it fires.
        hue: number of its colour; 0 without one.
        children: those that fire where it does, the most frequent first.
    """

    place: int
    node: Neighbour
    tokens: int
    hue: int = 0
    children: list[Family] = field(default_factory=list)


class Families:
    """The families of a text.

    Args:
        codes: what fires on the text.
        levels, parent: of the tree; ``parent`` has each node's place of its parent, or -1.
    """

    def __init__(self, codes: TextCodes, levels: Levels, parent: list[int]):
        self.codes = codes
        self._levels, self._parent = levels, parent
        self._nodes = {levels.latent(id): node for id, node in codes.nodes.items()}
        self._most = {levels.latent(id): most for id, most in codes.most.items()}
        self._active = [{levels.latent(id): value for id, value in of_token} for of_token in codes.active]

    def strength(self, place: int, value: float) -> float:
        """An activation as a share of the node's strongest in the indexed rows, at most 1."""
        return min(1.0, value / self._most[place]) if self._most.get(place) else 0.0

    @cached_property
    def heads(self) -> list[int]:
        """For each token the coarsest latent that fires most strongly there, by its place; -1 if there is none."""
        heads = []
        for at, active in enumerate(self._active):
            strengths = {
                place: self.strength(place, value)
                for place, value in active.items()
                if place < self._levels.widths[0] and at >= self.codes.unmeasured
            }
            heads.append(max(strengths, key=lambda place: strengths[place]) if strengths else -1)
        return heads

    @cached_property
    def hues(self) -> dict[int, int]:
        """The colours of the families that are the strongest at most tokens, by place."""
        common = Counter(place for place in self.heads if place >= 0).most_common(HUES)
        return {place: hue for hue, (place, _) in enumerate(common, 1)}

    @cached_property
    def strongest(self) -> int:
        """The token at which a child with its parent is closest to its strongest activation."""
        best = []
        for active in self._active[self.codes.unmeasured :]:
            inside = [place for place in active if self._parent[place] in active]
            best.append(max((self.strength(place, active[place]) for place in inside), default=0.0))
        return self.codes.unmeasured + best.index(max(best)) if best else 0

    @cached_property
    def listed(self) -> list[Family]:
        """The families of the text: those that are the strongest at most tokens, then those that fire at most."""
        active = self._active[self.codes.unmeasured :]
        fired = Counter(place for of_token in active for place in of_token)
        children = Counter(
            (self._parent[place], place) for of_token in active for place in of_token if self._parent[place] in of_token
        )
        leading = Counter(self.heads)
        roots = [place for place in fired if self._parent[place] < 0]
        roots.sort(key=lambda place: (-leading[place], -fired[place], place))
        families = {place: self._family(place, fired[place]) for place in roots[:_LISTED]}
        for (parent, child), tokens in children.most_common():
            if parent in families and len(families[parent].children) < _CHILDREN:
                families[parent].children.append(self._family(child, tokens))
        return list(families.values())

    def _family(self, place: int, tokens: int) -> Family:
        return Family(place, self._nodes[place], tokens, self.hues.get(place, 0))

    def name(self, place: int) -> str:
        """The label or the name of a node."""
        node = self._nodes[place]
        return one_line(node.label or node.hint)

    def gloss(self, place: int) -> str:
        """The same, as short as it must be above a token: a name without the signs for spaces."""
        return self.name(place).replace("␣", "")

    @cached_property
    def data(self) -> str:
        """For the script of the page, as JSON: the nodes by place, and the places and activations at each token."""
        nodes = {
            place: [node.id, self.name(place), int(bool(node.label)), self._parent[place], self._most.get(place, 0)]
            for place, node in self._nodes.items()
        }
        active = [[value for pair in of_token.items() for value in pair] for of_token in self._active]
        values = {"nodes": nodes, "active": active, "unmeasured": self.codes.unmeasured, "strongest": self.strongest}
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
