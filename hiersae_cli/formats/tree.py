"""The tree (``tree.json``): features as flat nodes, with their statistics and evidence.

Specified in ``docs/file-formats.md``. ``render.tree_writers`` writes the other formats, which are never read back.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from heapq import nsmallest
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from hiersae_cli.errors import FileError
from hiersae_cli.formats import notebook
from hiersae_cli.formats.atomic import read_json, write_text
from hiersae_cli.formats.described import Described, of_levels, run_line
from hiersae_cli.formats.fields import COMMON, COUNT, HOST, RUN, Kind, require_fields
from hiersae_cli.formats.hub import local_path
from hiersae_cli.formats.labels import Label
from hiersae_cli.formats.names import name_of
from hiersae_cli.formats.optional import optional_package
from hiersae_cli.formats.provenance import check_schema
from hiersae_cli.formats.text import shortened, visible
from hiersae_cli.levels import MOST_LEVELS, Levels, current_id, latent_id, parse_id
from hiersae_cli.metrics.catalogue import OF_EDGE, SOFT

SCHEMA = "hiersae.tree"
SCHEMA_VERSION = 2

_HINT = "Make it again with 'hiersae export-tree'."
_HEADER: dict[str, Kind] = {
    **COMMON,
    "run": RUN,
    "host?": (HOST, None),
    "sample": {"rows": COUNT, "rows_held_out": COUNT},
}
_TOKENS: Kind = [{"token": (str, int)}]
_NODE: dict[str, Kind] = {
    "label_author?": (str, None),
    "label_score?": (float, None),
    "statistics": {str: (float, bool, None)},
    "evidence": {
        "contexts?": [{"activation?": float, "activations?": [float], "before?": list, "after?": list}],
        "tokens?": _TOKENS,
        "promoted?": _TOKENS,
        "suppressed?": _TOKENS,
    },
}

# Statistics that describe the edge to the parent; the others describe the node.
EDGE_STATISTICS = ("n_parent", "n_both", *OF_EDGE)

_FAMILIES, _LEAST_CHILDREN, _NAMED_CHILDREN = 10, 3, 4  # that ``describe`` shows
_LISTED_CHILDREN = 30  # that a notebook shows of a family
_TOKEN_LISTS = (
    ("Fires at", "tokens", "share"),
    ("Promotes", "promoted", "logit"),
    ("Suppresses", "suppressed", "logit"),
)
_LEAST_LETTERS = 3  # of a word that tells something
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, repr=False)
class Node:
    """A feature.

    Attributes:
        id: such as ``b480``, of level 1 and latent 480: see ``hiersae_cli.levels``.
        parent: the id of its parent, or None for a root.
        level, latent: the parts of the id: 0 is the coarsest level, latents count from 0 within theirs.
        statistics: numbers, true or false, or None if undefined. Of every node: ``n_rows`` rows measured,
            ``n_active`` of them in which it fires, ``rate`` (their ratio), ``mean_activation`` when it fires, ``dead``.
            Of a node with a parent also ``n_parent``, ``n_both`` and the statistics of ``metrics.tree``.
        evidence: ``contexts`` (its strongest firings), ``tokens`` (that it fires at: see ``metrics.own_tokens``),
            ``promoted`` and ``suppressed`` (tokens); any may be missing.
        label: by a person or a model, or None.
        label_author: who wrote it, or None.
        label_score: its balanced accuracy in held-out contexts, or None if it was not tested.
    """

    id: str
    parent: str | None
    level: int
    latent: int
    statistics: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    label: str | None = None
    label_author: str | None = None
    label_score: float | None = None

    @property
    def name(self) -> str:
        """Its label, or else the tokens that it fires at: ``␣king ␣queen``; "" if these are not known."""
        return self.label or name_of(item["token"] for item in self.evidence.get("tokens", ()))

    @property
    def title(self) -> str:
        """Its id and its name, on one line of printable characters."""
        return f"{self.id} {visible(self.name)}".strip()

    def __repr__(self) -> str:
        parent = f", parent {self.parent}" if self.parent else ""
        return f"Node({self._short_title}{parent}, {self._fires()})"

    @property
    def _short_title(self) -> str:
        return shortened(self.title)

    def _fires(self) -> str:
        rate = self.statistics.get("rate")
        return "rate unknown" if rate is None else f"fires in {rate:.2%} of the rows"

    def _repr_html_(self) -> str:
        parent = f"child of {self.parent}; " if self.parent else ""
        return notebook.card(
            self._short_title,
            f"level {self.level}, {parent}{self._fires()}",
            notebook.section("Strongest contexts", notebook.contexts(self.evidence.get("contexts", ()))),
            *(
                notebook.section(heading, notebook.token_list(self.evidence.get(name, ()), value))
                for heading, name, value in _TOKEN_LISTS
            ),
            notebook.section("Statistics", notebook.statistics(self.statistics)),
        )


@dataclass(frozen=True)
class Tree:
    """Features in a forest; ``nodes`` are ordered by level, then latent.

    ``header`` says what the file was made from: the fields of every file of ours, and the run, host and sample.
    """

    header: dict[str, Any]
    nodes: list[Node]

    def __getitem__(self, id: str) -> Node:
        """The node of an id, in the current or the old form; raises ``KeyError``, which names near ids."""
        node = self._by_id.get(current_id(id))
        if node is None:
            raise KeyError(self._unknown(id))
        return node

    def __contains__(self, id: str) -> bool:
        return current_id(id) in self._by_id

    def __repr__(self) -> str:
        return f"Tree(nodes={len(self)}, roots={len(self.roots())})"

    def _repr_html_(self) -> str:
        run = self.header.get("run", {})
        run_name = f"of {run['name']} ({run['arch']}), {run['module']}; " if run else ""
        counts = f"{len(self):,} nodes, {len(self.edges()):,} of them with a parent"
        parents = telling_families(self) or self.roots()
        families = [self._family_html(parent) for parent in parents[:_FAMILIES]]
        return notebook.card("Tree", run_name + counts, notebook.section("Some families", *families))

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def children(self, id: str) -> list[Node]:
        """The nodes whose parent is ``id``, in order; raises ``KeyError`` if there is no such node."""
        return self._children[self[id].id]

    def parent(self, id: str) -> Node | None:
        """The parent of the node ``id``, or None for a root; raises ``KeyError`` if there is no such node."""
        parent = self[id].parent
        return None if parent is None else self[parent]

    def path(self, id: str) -> list[Node]:
        """The nodes from a root down to the node ``id``; raises ``KeyError`` if there is no such node."""
        node: Node | None = self[id]
        path: list[Node] = []
        while node is not None:
            path.insert(0, node)
            node = self.parent(node.id)
        return path

    def edges(self) -> list[tuple[str, str]]:
        """The ids of parent and child of every edge, in the order of the children."""
        return [(node.parent, node.id) for node in self.nodes if node.parent is not None]

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row per node: its place, name and label, and a column for each statistic.

        A missing statistic is NaN. Raises ``HierSAEError`` if pandas is not installed.
        """
        pandas = optional_package("pandas", "tree.to_dataframe()")
        columns = ("id", "parent", "level", "latent", "name", "label")
        rows = [{**{name: getattr(node, name) for name in columns}, **node.statistics} for node in self.nodes]
        statistics = dict.fromkeys(name for node in self.nodes for name in node.statistics)
        return pandas.DataFrame(rows, columns=[*columns, *statistics])

    def to_networkx(self) -> Any:
        """A ``networkx.DiGraph`` with an edge from each parent to its child.

        Nodes are ids with ``level``, ``latent``, ``name``, ``label`` and their statistics; edges have the statistics of
        the edge (``metrics.tree``). Raises ``HierSAEError`` if networkx is not installed.
        """
        graph = optional_package("networkx", "tree.to_networkx()").DiGraph()
        for node in self.nodes:
            of_node = {name: value for name, value in node.statistics.items() if not is_of_edge(name)}
            place = {"level": node.level, "latent": node.latent, "name": node.name, "label": node.label}
            graph.add_node(node.id, **place, **of_node)
        for parent, child in self.edges():
            statistics = self[child].statistics
            graph.add_edge(parent, child, **{name: value for name, value in statistics.items() if is_of_edge(name)})
        return graph

    def roots(self) -> list[Node]:
        """The nodes without a parent, in order."""
        return [node for node in self.nodes if node.parent is None]

    def subtree(self, id: str) -> list[Node]:
        """The node ``id`` and everything below it, in the tree's order; raises ``KeyError``."""
        inside = {self[id].id}
        # Parents come before their children, so one pass meets every descendant.
        for node in self.nodes:
            if node.parent in inside:
                inside.add(node.id)
        return [node for node in self.nodes if node.id in inside]

    def _family_html(self, parent: Node) -> Markup:
        """A parent that opens to its children, those that make up most of it first."""
        children = _by_share(self.children(parent.id))
        more = len(children) - _LISTED_CHILDREN
        titles = [f"{child._short_title}: {child._fires()}" for child in children[:_LISTED_CHILDREN]]
        items = [Markup("<li>{}</li>").format(title) for title in titles + [f"{more:,} more"] * (more > 0)]
        return Markup("<details><summary>{} <span>{}, {} children</span></summary><ul>{}</ul></details>").format(
            parent._short_title, parent._fires(), len(children), Markup("").join(items)
        )

    def _unknown(self, id: str) -> str:
        try:
            level, latent = parse_id(id)
        except ValueError as error:
            return str(error)
        near = nsmallest(3, self.nodes, lambda node: (abs(node.level - level), abs(node.latent - latent)))
        return f"this tree has no {id}; near it: {', '.join(node.id for node in near) or 'nothing'}"

    @cached_property
    def _by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def _children(self) -> dict[str, list[Node]]:
        children: dict[str, list[Node]] = {node.id: [] for node in self.nodes}
        for node in self.nodes:
            if node.parent is not None:
                children[node.parent].append(node)
        return children


def is_of_edge(name: str) -> bool:
    """Whether a statistic describes the edge to the parent, not the node."""
    return name.removesuffix(SOFT) in EDGE_STATISTICS


def save_tree(path: str | Path, tree: Tree) -> None:
    """Write a ``tree.json`` atomically."""
    write_text(path, write_json(tree))


def load_tree(path: str | Path) -> Tree:
    """Read a ``tree.json``, from this machine or from the hub: ``hf://OWNER/NAME/tree.json``.

    Raises ``FileError`` if it is missing, of another kind, or breaks the contract (a parent that does not
    exist or is not of a lower level, nodes out of order, fields missing); ``VersionError`` for another version.
    """
    path = local_path(path)
    if Path(path).is_dir():
        raise FileError(
            f"{path}: this is a folder; a tree is a file", "Make one: hiersae export-tree RUN -o tree.json."
        )
    data = read_json(path)
    check_schema(path, data, SCHEMA, 1, SCHEMA_VERSION)
    header = {key: value for key, value in data.items() if key != "nodes"}
    items = data.get("nodes")
    if not isinstance(items, list):
        raise _broken(path, "it has no list of nodes")
    nodes = [_node(path, number, item) for number, item in enumerate(items)]
    _check_order(path, nodes)
    return Tree(header, nodes)


def write_json(tree: Tree) -> str:
    """The text of ``tree.json``: one node a line, so that trees can be compared and searched line by line."""
    header = json.dumps(tree.header, indent=2, ensure_ascii=False, allow_nan=False)
    names = [field.name for field in fields(Node)]
    items = ({name: getattr(node, name) for name in names} for node in tree.nodes)
    lines = [json.dumps(item, ensure_ascii=False, allow_nan=False) for item in items]
    body = '"nodes": [\n    ' + ",\n    ".join(lines) + "\n  ]" if lines else '"nodes": []'
    text = header.removesuffix("}").rstrip() + ("," if tree.header else "") + f"\n  {body}\n}}\n"
    # Text cut between the halves of a surrogate pair is not UTF-8; JSON's own escapes carry it.
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "parent": (str, type(None)),
    "level": int,
    "latent": int,
    "statistics": dict,
    "evidence": dict,
    "label": (str, type(None)),
}


def label_fields(label: Label | None) -> dict[str, Any]:
    """The fields of a node that come from its label; none if it has no label."""
    if label is None:
        return {}
    score = label.score.balanced_accuracy if label.score else None
    return {"label": label.text, "label_author": label.author, "label_score": score}


def _node(path: str | Path, number: int, item: Any) -> Node:
    if not isinstance(item, dict):
        raise _broken(path, f"node number {number} is not an object")
    for name, kind in _TYPES.items():
        if name not in item:
            raise _broken(path, f"node number {number} has no {name!r}")
        # JSON's true is an int to Python.
        if not isinstance(item[name], kind) or isinstance(item[name], bool):
            raise _broken(path, f"node number {number}: {name!r} is {json.dumps(item[name])[:40]}")
    require_fields(f"{path}: node {item['id']}", item, _NODE, _HINT)
    values: dict[str, Any] = {field.name: item.get(field.name) for field in fields(Node)}
    values |= {name: current_id(values[name]) for name in ("id", "parent") if values[name] is not None}
    node = Node(**values)
    if not 0 <= node.level < MOST_LEVELS or node.id != latent_id(node.level, node.latent) or node.latent < 0:
        raise _broken(path, f"node {item['id']!r} is not of level {node.level} and latent {node.latent}")
    return node


def _check_order(path: str | Path, nodes: Iterable[Node]) -> None:
    """Parents before children and of a lower level, which also rules out cycles; each latent once."""
    levels: dict[str, int] = {}
    last = (-1, -1)
    for node in nodes:
        if node.id in levels:
            raise _broken(path, f"node {node.id} comes twice")
        if (node.level, node.latent) < last:
            raise _broken(path, f"node {node.id} is out of order; nodes go by level, then latent")
        last = (node.level, node.latent)
        levels[node.id] = node.level
    for node in nodes:
        if node.parent is None:
            continue
        if node.parent not in levels:
            raise _broken(path, f"node {node.id} has the parent {node.parent!r}, which is not in the file")
        if levels[node.parent] >= node.level:
            raise _broken(path, f"node {node.id} has the parent {node.parent}, which is not of a lower level")


def _broken(path: str | Path, what: str) -> FileError:
    return FileError(f"{path}: damaged: {what}", _HINT)


def bare_nodes(levels: Levels, parents: Sequence[int]) -> list[Node]:
    """The nodes of a tree without statistics and evidence, from the number of each latent's parent."""
    return [
        Node(levels.ids[latent], levels.parent_id(parent), *levels.place(latent))
        for latent, parent in enumerate(parents)
    ]


def telling_families(tree: Tree) -> list[Node]:
    """The parents of several children, the most telling first.

    A family tells much if its children fire with their parent and differ from each other: the median of their MI over
    its bound, times the share of children whose names begin with different words.
    """
    parents = [node for node in tree.nodes if len(tree.children(node.id)) >= _LEAST_CHILDREN]
    return sorted(parents, key=lambda node: -_telling(tree.children(node.id)))


def family_lines(tree: Tree) -> list[str]:
    """The most telling families in a line each: a parent's name and rate, and the names of its largest children."""
    lines = []
    for parent in telling_families(tree)[:_FAMILIES]:
        children = _by_share(tree.children(parent.id))
        rate = parent.statistics.get("rate")
        fires = f" ({rate:.1%})" if rate is not None else ""
        names = [child.title for child in children[:_NAMED_CHILDREN]]
        more = [f"{len(children) - len(names)} more"] if len(children) > len(names) else []
        lines.append(f"{parent.title}{fires}: {' | '.join([*names, *more])}")
    return lines


def _by_share(children: list[Node]) -> list[Node]:
    """Children, those that fire in the largest share of their parent's firings first."""
    return sorted(children, key=lambda child: -(child.statistics.get("p_child_given_parent") or 0))


def _telling(children: list[Node]) -> float:
    words = {word.strip("␣").lower() for child in children for word in child.name.split()[:1]}
    different = sum(word.isalpha() and len(word) >= _LEAST_LETTERS for word in words)
    tightness: float = median(child.statistics.get("mi_over_max") or 0.0 for child in children)
    return tightness * different / len(children)


def describe(path: Path, verify: bool) -> Described:
    """What ``hiersae info`` says of a tree; raises as ``load_tree`` does. Nothing more can be verified."""
    tree = load_tree(path)
    header = tree.header
    require_fields(path, header, _HEADER, _HINT)
    counts = Counter(node.level for node in tree.nodes)
    details = {
        "nodes": len(tree),
        "levels": [counts[level] for level in sorted(counts)],
        "roots": len(tree.roots()),
        "edges": sum(node.parent is not None for node in tree.nodes),
        "dead": sum(bool(node.statistics.get("dead")) for node in tree.nodes),
        "run": header["run"],
        "sample": header["sample"],
    }
    lines = [
        (
            "features",
            f"{details['nodes']:,} ({of_levels(details['levels'])}), "
            f"{details['edges']:,} with a parent; {details['dead']:,} never fire in the rows measured",
        ),
        run_line(header["run"]),
        ("measured on", f"{header['sample']['rows_held_out']:,} held-out rows"),
        *(("family", family) for family in family_lines(tree)),
    ]
    return Described("tree", header, details, lines)
