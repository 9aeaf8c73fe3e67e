"""The lists of nodes below the map: of each level, without a parent, and dead."""

from __future__ import annotations

from dataclasses import dataclass

from hiersae_cli.browse.tree_model import Overview

ROWS = 100  # of a page of a list


@dataclass(frozen=True)
class NodeList:
    """A list of nodes: of one level, without a parent, or dead; ``places`` are theirs in the tree."""

    name: str
    title: str
    explanation: str
    places: list[int]


def node_lists(tree: Overview) -> dict[str, NodeList]:
    """All lists by name, with all their nodes, those that fire most first."""
    deepest = max(tree.level, default=0)

    def node_list(name: str, title: str, explanation: str, member: list[bool]) -> NodeList:
        places = [place for place, is_member in enumerate(member) if is_member]
        return NodeList(name, title, explanation, sorted(places, key=lambda place: -tree.rate[place]))

    lists = []
    for level in range(deepest + 1):
        title = level_name(level, deepest, 2).capitalize()
        member = [own == level and not root_child for own, root_child in zip(tree.level, tree.root_child, strict=True)]
        explanation = "Those that fire most come first."
        if level:
            explanation += " Those without a parent are in the list of root children."
        lists.append(node_list(f"level-{level}", title, explanation, member))
    if deepest:
        explanation = "Even the best parent says too little about them, so they have none."
        lists.append(node_list("root-children", "Root children", explanation, tree.root_child))
    title = f"Dead in {tree.rows:,} rows"
    lists.append(node_list("dead", title, "They fire in none of the indexed rows.", tree.dead))
    return {nodes.name: nodes for nodes in lists}


def level_name(level: int, deepest: int, number: int = 1) -> str:
    """What ``number`` latents of a level are called: ``parent`` or ``children`` in a tree of two levels."""
    if deepest == 1:
        return (("parent", "parents"), ("child", "children"))[level][number != 1]
    return (f"level {level}" if deepest else "latent") if number == 1 else (f"level {level}" if deepest else "latents")
