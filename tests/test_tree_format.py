"""The tree's own format, and what other programs' parsers make of the other formats, with hostile text."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.config.export_tree import TREE_FORMATS
from hiersae_cli.errors import FileError, UsageError, VersionError
from hiersae_cli.formats.text import visible
from hiersae_cli.formats.tree import SCHEMA, SCHEMA_VERSION, Node, Tree, load_tree, save_tree, telling_families
from hiersae_cli.levels import latent_id
from hiersae_cli.metrics.tree import edge_statistics
from hiersae_cli.render.tree_writers import EDGE_STATISTICS, WRITERS, context_text, export

HEADER = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "config": {"model": "host"}}
NASTY = (
    "",
    "a\nb",
    '"',
    "'",
    "\\",
    "\\n",
    "<script>&amp;",
    "]]>",
    "\x00\x1b\x7f",
    "\ud800",
    "=1+1",
    "(a,b):1;[x]",
    "é𝄞\u2028",
)
texts = st.sampled_from(NASTY) | st.text(st.characters(codec=None), max_size=8)
numbers = st.none() | st.booleans() | st.integers(0, 10**9) | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def contexts(draw: st.DrawFn) -> dict[str, Any]:
    before, token, after = draw(st.lists(texts, max_size=3)), draw(texts), draw(st.lists(texts, max_size=3))
    values = [draw(st.floats(0, 9, width=32)) for _ in (*before, token, *after)]
    return {
        "document_name": draw(texts), "document": 0, "row": 5, "position": 2, "held_out": False, "activation": 1.5,
        "before": before, "token": token, "after": after, "activations": values,
    }  # fmt: skip


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Forests of up to four levels in which a parent may lie several levels above its child."""
    nodes: list[Node] = []
    for level in range(draw(st.integers(0, 4))):
        above = [node.id for node in nodes]
        for latent in sorted(draw(st.sets(st.integers(0, 30), max_size=5))):
            parent = draw(st.none() | st.sampled_from(above)) if above else None
            statistics = {
                "rate": draw(st.floats(0, 1)),
                "dead": draw(st.booleans()),
                "n_active": draw(st.integers(0, 9)),
            }
            if parent is not None:
                statistics |= {name: draw(numbers) for name in ("n_both", "lift")} | {"mi_over_max": 0.5}
            evidence: dict[str, Any] = {}
            if draw(st.booleans()):
                tokens = [{"token": draw(texts), "id": 3, "logit": 0.5} for _ in range(2)]
                evidence = {"contexts": draw(st.lists(contexts(), max_size=2)), "promoted": tokens, "suppressed": []}
                evidence["tokens"] = [{"token": draw(texts), "id": 4, "share": 0.5} for _ in range(4)]
            label = draw(st.none() | texts)
            nodes.append(Node(latent_id(level, latent), parent, level, latent, statistics, evidence, label))
    return Tree({**HEADER, "note": draw(texts)}, nodes)


def paired(value: Any) -> Any:
    """Two halves of a surrogate pair side by side are one character, as JSON has it."""
    return json.loads(json.dumps(value))


def edges(tree: Tree) -> set[tuple[str, str]]:
    return {(node.parent, node.id) for node in tree.nodes if node.parent is not None}


def sample() -> Tree:
    best = {
        "document_name": "d", "document": 0, "row": 1, "position": 1, "held_out": True, "activation": 2.0,
        "before": ["a "], "token": "b", "after": ["\n"], "activations": [0.0, 2.0, 0.0],
    }  # fmt: skip
    return Tree(
        HEADER,
        [
            Node(
                "a1",
                None,
                0,
                1,
                {"rate": 0.5},
                {
                    "contexts": [best],
                    "tokens": [{"token": " b", "id": 3, "share": 0.7}, {"token": "\n", "id": 4, "share": 0.2}],
                    "promoted": [{"token": " x", "id": 1, "logit": 1.0}],
                },
            ),
            Node("a4", None, 0, 4, {"rate": None}, label="of 'names'"),
            Node("b0", "a4", 1, 0, {"rate": 0.25, "mi_over_max": 0.5}),
            Node("b3", "a1", 1, 3, {"rate": 0.125, "mi_over_max": None}),
            Node("c2", "b0", 2, 2),
        ],
    )


def test_the_command_line_offers_every_writer():
    assert set(TREE_FORMATS) == set(WRITERS)


def test_edge_statistics_are_those_of_the_metrics():
    assert set(EDGE_STATISTICS) == {"n_parent", "n_both", *edge_statistics(1, 1, 1, 2)}


def test_the_tree_can_be_walked():
    tree = sample()
    assert [node.id for node in tree.roots()] == ["a1", "a4"]
    assert [node.id for node in tree.children("a4")] == ["b0"]
    assert tree.children("c2") == []
    assert [node.id for node in tree.subtree("a4")] == ["a4", "b0", "c2"]
    assert "b3" in tree and "b4" not in tree and len(tree) == 5
    with pytest.raises(KeyError):
        tree.children("z9")


@settings(max_examples=60)
@given(trees())
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, tree: Tree):
    path = tmp_path_factory.mktemp("tree") / "tree.json"
    save_tree(path, tree)
    found = load_tree(path)
    assert found.header == paired(tree.header)
    assert [vars(node) for node in found.nodes] == [paired(vars(replace(node))) for node in tree.nodes]
    again = path.with_name("again.json")
    save_tree(again, found)
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=60)
@given(trees())
def test_graphml_is_read_by_networkx(tree: Tree):
    graph = networkx.parse_graphml(WRITERS["graphml"](tree))
    assert set(graph.edges) == edges(tree)
    assert list(graph.nodes) == [node.id for node in tree.nodes]
    for node in tree.nodes:
        data = graph.nodes[node.id]
        assert data["label"] == node.title
        assert data["dead"] is node.statistics["dead"] and data["rate"] == node.statistics["rate"]
        assert json.loads(data.get("evidence", "{}")) == paired(node.evidence)
        assert data.get("context", "") == context_text(node)
        if node.parent is not None:
            assert graph.edges[node.parent, node.id]["mi_over_max"] == 0.5


@settings(max_examples=60)
@given(trees())
def test_csv_is_one_line_a_node(tree: Tree):
    text = WRITERS["csv"](tree)
    assert len(text.encode().splitlines()) == 1 + len(tree)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["parent"], row["id"]) for row in rows] == [(node.parent or "", node.id) for node in tree.nodes]
    for row, node in zip(rows, tree.nodes, strict=True):
        assert row["label"].removeprefix("'") == visible(node.label or "").removeprefix("'")
        assert row["rate"] == str(node.statistics["rate"])
        for column in ("label", "promoted", "suppressed", "context"):
            assert not row[column].startswith(("=", "+", "-", "@"))
        if node.evidence:
            assert json.loads(row["promoted"]) == paired([item["token"] for item in node.evidence["promoted"]])


@settings(max_examples=60)
@given(trees())
def test_newick_is_one_tree(tree: Tree):
    text = WRITERS["nwk"](tree)
    assert text.index("\n") == len(text) - 1
    found = dict(newick_edges(text))
    assert found.pop("root") is None
    parent_of = {node.id: node.parent for node in tree.nodes}
    assert found == {
        node.title: tree[parent].title if (parent := parent_of[node.id]) else "root" for node in tree.nodes
    }


@settings(max_examples=60)
@given(trees())
def test_dot_holds_every_node_and_edge(tree: Tree):
    statements = dot_statements(WRITERS["dot"](tree))
    nodes = {words[0]: attributes for words, attributes in statements if len(words) == 1}
    assert set(nodes) == {node.id for node in tree.nodes}
    assert {tuple(words) for words, _ in statements if len(words) == 2} == edges(tree)
    for node in tree.nodes:
        assert nodes[node.id]["label"].partition("\n")[0] == node.title
        assert nodes[node.id]["tooltip"] == context_text(node)


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_graphviz_draws_the_dot(tmp_path: Path):
    nodes = [Node(latent_id(0, n), None, 0, n, {"rate": 0.5}, label=text) for n, text in enumerate(NASTY)]
    export(tmp_path / "tree.dot", Tree(HEADER, nodes), "dot")
    done = subprocess.run(["dot", "-Tsvg", tmp_path / "tree.dot"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.count('class="node"') == len(NASTY)


@given(texts)
def test_what_is_shown_is_one_reversible_line(text: str):
    shown = visible(text)
    assert shown.isprintable()
    restored = re.sub(
        r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))",
        lambda m: {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}[m[4]] if m[4] else chr(int(m[1] or m[2] or m[3], 16)),
        shown,
    )
    assert restored == text


def test_labels_come_first_in_titles_and_tokens_stand_in():
    tree = sample()
    assert tree["a1"].title == "a1 ␣b ↵" and tree["a1"].name == "␣b ↵"
    assert tree["a4"].title == "a4 of 'names'" and tree["a4"].name == "of 'names'"
    assert tree["b0"].title == "b0" and tree["b0"].name == ""
    for kind in ("dot", "nwk", "graphml"):
        assert "a1 ␣b ↵" in WRITERS[kind](tree)
    row = next(csv.DictReader(io.StringIO(WRITERS["csv"](tree))))
    assert (row["label"], row["name"], row["promoted"]) == ("", "␣b ↵", '[" x"]')
    assert context_text(tree["a1"]) == r"a ⟪b⟫\n"


def broken(change: Any) -> dict[str, Any]:
    data = json.loads(WRITERS["json"](sample()))
    change(data["nodes"])
    return data


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda n: n[2].update(parent="a9"), "node b0 has the parent 'a9', which is not in the file"),
        (lambda n: n[2].update(parent="b0"), "node b0 has the parent b0, which is not of a lower level"),
        (lambda n: n[0].update(parent="c2"), "node a1 has the parent c2, which is not of a lower level"),
        (lambda n: n.reverse(), "out of order"),
        (lambda n: n.insert(1, n[0]), "node a1 comes twice"),
        (lambda n: n[3].pop("evidence"), "node number 3 has no 'evidence'"),
        (lambda n: n[3].update(level="1"), "node number 3: 'level' is \"1\""),
        (lambda n: n[3].update(latent=True), "node number 3: 'latent' is true"),
        (lambda n: n[3].update(id="b03"), "node 'b03' is not of level 1 and latent 3"),
        (lambda n: n.append(7), "node number 5 is not an object"),
    ],
)
def test_a_broken_contract_is_named_with_the_file(tmp_path: Path, change: Any, what: str):
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(broken(change)))
    with pytest.raises(FileError, match=re.escape(what)) as caught:
        load_tree(path)
    assert str(path) in caught.value.message


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "tree.json"
    with pytest.raises(FileError, match="no such file"):
        load_tree(path)
    with pytest.raises(FileError, match="folder"):
        load_tree(tmp_path)
    path.write_text("{")
    with pytest.raises(FileError, match="not a JSON file"):
        load_tree(path)
    path.write_text(json.dumps({"schema": "hiersae.report", "schema_version": 1}))
    with pytest.raises(FileError, match=r"not a hiersae\.tree file"):
        load_tree(path)
    path.write_text(json.dumps({"schema": SCHEMA, "schema_version": SCHEMA_VERSION + 1, "nodes": []}))
    with pytest.raises(VersionError, match="version 3 is not supported"):
        load_tree(path)
    path.write_text(json.dumps(HEADER))
    with pytest.raises(FileError, match="no list of nodes"):
        load_tree(path)


def old_form(data: dict[str, Any]) -> dict[str, Any]:
    """A file as version 1 had it."""
    for node in data["nodes"]:
        for name in ("id", "parent"):
            if node[name]:
                node[name] = f"{'abc'.index(node[name][0])}.{node[name][1:]}"
    return data | {"schema_version": 1}


def test_a_tree_of_an_older_release_is_read(tmp_path: Path):
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(old_form(json.loads(WRITERS["json"](sample())))))
    assert '"id": "1.3", "parent": "0.1"' in path.read_text()
    tree = load_tree(path)
    assert tree.nodes == sample().nodes
    assert tree["1.3"] is tree["b3"] and "1.3" in tree and "1.4" not in tree
    assert [node.id for node in tree.children("0.4")] == [node.id for node in tree.children("a4")] == ["b0"]


def test_an_unknown_id_is_answered_with_near_ones():
    tree = sample()
    with pytest.raises(KeyError, match="this tree has no b2; near it: b3, b0"):
        tree["b2"]
    with pytest.raises(KeyError, match="'names' is not the id of a latent, such as b480"):
        tree.subtree("names")


def test_a_tree_describes_itself_in_a_line():
    assert repr(sample()) == "Tree(nodes=5, roots=2)"


def test_the_most_telling_family_has_children_with_different_words() -> None:
    def family(number: int, words: tuple[str, ...], tightness: float) -> list[Node]:
        start = 3 * number
        children = [
            Node(f"b{start + place}", f"a{number}", 1, start + place, {"mi_over_max": tightness}, label=word)
            for place, word in enumerate(words)
        ]
        return [Node(f"a{number}", None, 0, number), *children]

    families = [
        (("the", "the", "The"), 0.9),
        ((",", ";", "."), 0.9),
        (("left", "right", "above"), 0.4),
        (("a", "b", " "), 0.9),
    ]
    nodes = [node for number, (words, tightness) in enumerate(families) for node in family(number, words, tightness)]
    tree = Tree(HEADER, sorted(nodes, key=lambda node: (node.level, node.latent)))
    assert [node.id for node in telling_families(tree)] == ["a2", "a0", "a1", "a3"]


def test_saving_is_all_or_nothing(tmp_path: Path):
    path = tmp_path / "tree.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        save_tree(path, Tree(HEADER, [Node("a0", None, 0, 0, {"rate": float("nan")})]))
    with pytest.raises(UsageError, match="pdf"):
        export(path, sample(), "pdf")
    assert os.listdir(tmp_path) == ["tree.json"] and path.read_text() == "old"


def newick_edges(text: str) -> list[tuple[str, str | None]]:
    """(label, label of the parent) of every node, by the grammar: list, quoted or plain label, comma, semicolon."""
    tokens = re.findall(r"'(?:[^']|'')*'|[(),;]|[^\s(),;']+", text)
    assert "".join(tokens) == text.strip() and tokens[-1] == ";"
    waiting: list[list[str]] = [[]]
    found: list[tuple[str, str | None]] = []
    finished: list[str] = []
    for token in tokens[:-1]:
        if token == "(":
            waiting.append([])
        elif token == ")":
            finished = waiting.pop()
        elif token != ",":
            label = token[1:-1].replace("''", "'") if token[0] == "'" else token
            found += [(child, label) for child in finished]
            finished = []
            waiting[-1].append(label)
    (root,) = waiting.pop()
    assert not waiting
    return [*found, (root, None)]


def dot_statements(text: str) -> list[tuple[list[str], dict[str, str]]]:
    """The quoted names and the attributes of every statement that begins with a quoted name."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|->|[\[\]{};=,]|[^\s"\[\]{};=,]+', text)
    found: list[tuple[list[str], dict[str, str]]] = []
    names: list[str] = []
    attributes: dict[str, str] = {}
    inside = False
    for number, token in enumerate(tokens):
        if token in "[]":
            inside = token == "["
        elif token == ";":
            if names:
                found.append((names, attributes))
            names, attributes = [], {}
        elif inside and token == "=":
            attributes[tokens[number - 1]] = unquoted(tokens[number + 1])
        elif not inside and token[0] == '"':
            names.append(unquoted(token))
    return found


def unquoted(text: str) -> str:
    if text[0] != '"':
        return text
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], text[1:-1]).replace("&amp;", "&")
