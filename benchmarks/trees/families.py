"""Families of a tree as text, good and bad alike: every N-th parent of several children, by how often it fires.

    python -m benchmarks.trees.families tree.json [--count 10]

The families stand at equal distances in the list of all parents with three or more children, from the one that fires
most to the one that fires least, so that nobody chooses them.
"""

from __future__ import annotations

import argparse

from hiersae_cli.formats.text import visible
from hiersae_cli.formats.tree import Tree, load_tree

_LEAST_CHILDREN = 3
_NAMED = 5


def families(tree: Tree, count: int) -> list[str]:
    """A line for each chosen family: rank, rate and name of the parent, names of its most frequent children."""
    parents = [node for node in tree.nodes if len(tree.children(node.id)) >= _LEAST_CHILDREN]
    parents.sort(key=lambda node: -(node.statistics.get("rate") or 0.0))
    lines = []
    for place in range(min(count, len(parents))):
        rank = round(place * (len(parents) - 1) / max(count - 1, 1))
        parent = parents[rank]
        children = sorted(tree.children(parent.id), key=lambda n: -(n.statistics.get("p_child_given_parent") or 0.0))
        names = [visible(child.name) for child in children[:_NAMED]]
        more = [f"{len(children) - _NAMED} more"] if len(children) > _NAMED else []
        lines.append(
            f"{rank + 1:4d}. {visible(parent.name)} ({parent.statistics['rate']:.1%}): {' | '.join(names + more)}"
        )
    return lines


if __name__ == "__main__":
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.trees.families",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("tree")
    flags.add_argument("--count", type=int, default=10)
    options = flags.parse_args()
    print("\n".join(families(load_tree(options.tree), options.count)))
