"""A tree in the formats of other programs: GraphML, Graphviz DOT, Newick and CSV.

Corpus text may hold any character. In names and contexts, characters that are not printable, and the backslash, are
written as Python writes them (``\\n``, ``\\x1b``, ``\\ud800``): every label is one line, nothing is lost, and no format
gets a character that it forbids.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hiersae_cli.errors import UsageError
from hiersae_cli.formats.atomic import write_text
from hiersae_cli.formats.names import token_shown
from hiersae_cli.formats.text import cell, visible
from hiersae_cli.formats.tree import EDGE_STATISTICS, Node, Tree, is_of_edge, write_json
from hiersae_cli.metrics.catalogue import SOFT

_TOKENS = ("tokens", "promoted", "suppressed")
_GRAPHML = "http://graphml.graphdrawing.org/xmlns"


def tokens_of(node: Node, which: str) -> list[str]:
    """The tokens of a kind of evidence, the strongest first."""
    return [str(item["token"]) for item in node.evidence.get(which, ())]


def edge_statistic(node: Node, name: str) -> Any:
    """A statistic of the edge to the parent, on soft firing if measured: on hard firing it follows from the tree."""
    return node.statistics.get(f"{name}{SOFT}", node.statistics.get(name))


def context_text(node: Node) -> str:
    """Its strongest context on one line, with the token at which it fires in double angle brackets."""
    contexts = node.evidence.get("contexts")
    if not contexts:
        return ""
    best = contexts[0]
    gap = "" if isinstance(best["token"], str) else " "
    before, after = (gap.join(map(str, best[side])) for side in ("before", "after"))
    return visible(f"{before}{gap}⟪{best['token']}⟫{gap}{after}".strip(" "))


def write_graphml(tree: Tree) -> str:
    """GraphML, with an edge from each parent to its child; ``evidence`` is the complete evidence as JSON.

    Source: Brandes et al., GraphML (http://graphml.graphdrawing.org).
    """
    document = ElementTree.Element("graphml", xmlns=_GRAPHML)
    node_values = [_node_values(node) for node in tree.nodes]
    edges = [node for node in tree.nodes if node.parent is not None]
    edge_values = [{name: value for name, value in node.statistics.items() if is_of_edge(name)} for node in edges]
    keys = {
        **_declare_keys(document, "node", node_values),
        **_declare_keys(document, "edge", edge_values),
    }
    graph = ElementTree.SubElement(document, "graph", id="tree", edgedefault="directed")
    for node, values in zip(tree.nodes, node_values, strict=True):
        _add_values(ElementTree.SubElement(graph, "node", id=node.id), "node", values, keys)
    for node, values in zip(edges, edge_values, strict=True):
        element = ElementTree.SubElement(graph, "edge", source=str(node.parent), target=node.id)
        _add_values(element, "edge", values, keys)
    ElementTree.indent(document)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(document, encoding="unicode") + "\n"


def write_dot(tree: Tree) -> str:
    """Graphviz DOT: nodes show title and rate, tooltips the strongest context; an edge's width is I/I_max.

    Source: https://graphviz.org/doc/info/lang.html
    """
    lines = ["digraph tree {", "  rankdir=LR;", "  node [shape=box, fontname=Helvetica];"]
    for node in tree.nodes:
        rate = node.statistics.get("rate")
        label = _dot_text(node.title) + (f"\\n{rate:.2%}" if rate is not None else "")
        lines.append(f'  "{node.id}" [label="{label}", tooltip="{_dot_text(context_text(node))}"];')
    for node in tree.nodes:
        if node.parent is not None:
            share = min(1.0, max(0.0, edge_statistic(node, "mi_over_max") or 0.0))
            lines.append(f'  "{node.parent}" -> "{node.id}" [penwidth={0.5 + 4 * share:.2f}];')
    return "\n".join([*lines, "}"]) + "\n"


def write_newick(tree: Tree) -> str:
    """Newick: every node by its title, below a virtual root called ``root``; without branch lengths.

    Source: https://phylipweb.github.io/phylip/newicktree.html
    """
    below: dict[str | None, list[str]] = {}
    # Children come after their parents, so in reverse order a node's children are written before it.
    for node in reversed(tree.nodes):
        below.setdefault(node.parent, []).append(_newick_list(below.pop(node.id, [])) + _newick_label(node.title))
    return _newick_list(below.get(None, [])) + "root;\n"


def write_csv(tree: Tree) -> str:
    """A line per node: its place, every statistic, its tokens as JSON lists and its strongest context.

    A text that a spreadsheet would read as a formula gets an apostrophe at its beginning.
    """
    names = sorted({name for node in tree.nodes for name in node.statistics})
    node_names = (name for name in names if not is_of_edge(name))
    soft_names = (name for name in names if name.endswith(SOFT))
    statistics = [*node_names, *EDGE_STATISTICS, *soft_names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels = ["label", "label_author", "label_score", "name"]
    writer.writerow(["id", "parent", "level", "latent", *labels, "children", *statistics, *_TOKENS, "context"])
    for node in tree.nodes:
        writer.writerow(
            [
                node.id,
                node.parent,
                node.level,
                node.latent,
                cell(visible(node.label or "")),
                cell(visible(node.label_author or "")),
                node.label_score,
                cell(visible(node.name)),
                len(tree.children(node.id)),
                *(node.statistics.get(name) for name in statistics),
                *(cell(_json(tokens_of(node, which)) if node.evidence.get(which) else "") for which in _TOKENS),
                cell(context_text(node)),
            ]
        )
    return text.getvalue()


def _node_values(node: Node) -> dict[str, Any]:
    statistics = {name: value for name, value in node.statistics.items() if not is_of_edge(name)}
    tokens = {which: visible(" ".join(map(token_shown, tokens_of(node, which)))) or None for which in _TOKENS}
    return {
        "label": node.title,
        "label_author": node.label_author and visible(node.label_author),
        "label_score": node.label_score,
        "level": node.level,
        "latent": node.latent,
        **statistics,
        **tokens,
        "context": context_text(node) or None,
        "evidence": _json(node.evidence) if node.evidence else None,
    }


def _json(value: Any) -> str:
    """``value`` as JSON that escapes only characters that are not printable."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _declare_keys(document: ElementTree.Element, domain: str, rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Declare the name and type of each value; a column that mixes whole and other numbers is of type double."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                kinds.setdefault(name, set()).add(type(value))
    keys = {}
    for name, types in kinds.items():
        kind = {bool: "boolean", int: "long", str: "string"}.get(next(iter(types)), "double")
        kind = kind if len(types) == 1 else "double" if types == {int, float} else "string"
        keys[domain, name] = f"{domain}_{name}"
        attributes = {"id": f"{domain}_{name}", "for": domain, "attr.name": name, "attr.type": kind}
        ElementTree.SubElement(document, "key", attributes)
    return keys


def _add_values(
    element: ElementTree.Element, domain: str, values: dict[str, Any], keys: dict[tuple[str, str], str]
) -> None:
    for name, value in values.items():
        if value is not None:
            data = ElementTree.SubElement(element, "data", key=keys[domain, name])
            data.text = str(value).lower() if isinstance(value, bool) else str(value)


def _dot_text(text: str) -> str:
    # Graphviz reads HTML's character entities in ordinary strings too.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def _newick_label(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _newick_list(items: list[str]) -> str:
    return "(" + ",".join(reversed(items)) + ")" if items else ""


# To add a format: a function from a tree to its text, named here and in ``config.export_tree.TREE_FORMATS``.
WRITERS: dict[str, Callable[[Tree], str]] = {
    "json": write_json,
    "graphml": write_graphml,
    "dot": write_dot,
    "nwk": write_newick,
    "csv": write_csv,
}


def export(path: str | Path, tree: Tree, format: str) -> None:
    """Write a tree atomically in one of ``WRITERS``; raises ``UsageError`` for another format."""
    if format not in WRITERS:
        raise UsageError(f"{path}: no tree format is called {format!r}", f"Formats: {', '.join(WRITERS)}.")
    write_text(path, WRITERS[format](tree))
