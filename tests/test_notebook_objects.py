"""Runs, trees, reports and caches in Python: what they show, and what they turn into."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats.activations import Activations, load_acts
from hiersae_cli.formats.report import Report
from hiersae_cli.formats.run import load_run
from hiersae_cli.formats.tree import Node, Tree
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.dashboard.text_encoder import TextEncoder
from tests import caches
from tests.fixtures_chain import save_host

HOSTILE = '<script>alert("x")</script>&\u202e\n\x1b'
CONTEXT = {
    "document_name": HOSTILE,
    "document": 0,
    "row": 3,
    "position": 3,
    "held_out": True,
    "activation": 4.0,
    "before": [HOSTILE, "weak"],
    "token": "strong",
    "after": [" after"],
    "activations": [0.0, 1.0, 4.0, 0.0],
}


def node(id: str, parent: str | None = None, label: str | None = None, **statistics: float) -> Node:
    evidence = {"contexts": [CONTEXT], "tokens": [{"token": HOSTILE, "id": 1, "share": 0.5}]}
    level = "ab".index(id[0])
    return Node(id, parent, level, int(id[1:]), {"rate": 0.25, "dead": False, **statistics}, evidence, label)


@pytest.fixture
def tree() -> Tree:
    header = {"run": {"name": HOSTILE, "arch": "hier", "module": "h.1"}}
    children = [node(f"b{n}", "a0", mi_bits=0.5, p_child_given_parent=n / 10) for n in range(4)]
    return Tree(header, [node("a0", label=HOSTILE), node("a1"), *children])


@pytest.fixture
def report() -> Report:
    figure = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 10, "unit": "1"}
    return Report(
        {
            "groups": {HOSTILE: {"figures": {"fvu": figure, "mi_bits": figure}}, "flat": {"figures": {"fvu": figure}}},
            "paired": {"flat": {"fvu": {**figure, "value": -0.5, "p_holm": 0.01, "verdict": "better"}}},
            "sample": {"rows": 1234, "documents": 12, "module": "h.1"},
            "warnings": [HOSTILE],
        }
    )


class Page(HTMLParser):
    """The elements and the texts of a piece of HTML; fails if an element is not closed."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return "".join(text for tag, text in self.texts if tag != "style")


def page_of(shown: object) -> Page:
    """What a notebook shows, which must be self-contained and must not run or hide anything."""
    html = shown._repr_html_()  # type: ignore[attr-defined]
    page = Page(html)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") or name in ("src", "href") for _, names in page.elements for name in names)
    assert "url(" not in html and "@import" not in html
    assert "\u202e" not in html and "\x1b" not in html
    assert "light-dark(" in html and len(html) < 50_000
    return page


def test_a_tree_shows_its_families(tree: Tree) -> None:
    assert repr(tree) == "Tree(nodes=6, roots=2)"
    text = page_of(tree).text
    assert '<script>alert("x")</script>' in text and "4 children" in text
    assert text.index("b3") < text.index("b2")  # the largest share of the parent first


def test_a_large_tree_stays_small() -> None:
    children = [node(f"b{n}", f"a{n % 20}", label="long " * 3000) for n in range(4000)]
    tree = Tree({}, [*(node(f"a{n}") for n in range(20)), *children])
    assert len(repr(tree)) < 100 and len(repr(children[0])) < 200
    page_of(tree)
    page_of(children[0])


def test_a_node_shows_its_contexts_as_the_dashboard_does(tree: Tree) -> None:
    assert len(repr(tree["a0"])) < 200 and "\n" not in repr(tree["a0"])
    page = page_of(tree["b1"])
    marks = [names["class"] for tag, names in page.elements if tag == "mark"]
    assert marks == ["h3", "h9 focus"]
    assert [text for tag, text in page.texts if tag == "mark"] == ["weak", "strong"]
    assert "mi_bits" in page.text and "child of a0" in page.text


def test_a_tree_without_texts_of_tokens_shows_their_numbers() -> None:
    context = {**CONTEXT, "before": [5, 6], "token": 7, "after": [8]}
    shown = Node("a0", None, 0, 0, {}, {"contexts": [context], "tokens": [{"token": 7, "id": 7, "share": 1.0}]})
    assert "[5][6][7][8]" in page_of(shown).text


def test_walking_a_tree(tree: Tree) -> None:
    assert [step.id for step in tree.path("b2")] == ["a0", "b2"]
    assert tree.parent("b2") is tree["a0"] and tree.parent("a1") is None
    assert tree.edges() == [("a0", f"b{n}") for n in range(4)]
    assert [found.id for found in tree] == ["a0", "a1", "b0", "b1", "b2", "b3"]
    with pytest.raises(KeyError, match="near it"):
        tree.path("b99")


def test_a_tree_as_a_data_frame(tree: Tree) -> None:
    frame = tree.to_dataframe()
    assert list(frame.columns[:6]) == ["id", "parent", "level", "latent", "name", "label"]
    assert list(frame["id"]) == [found.id for found in tree]
    assert frame.set_index("id").loc["b1", "mi_bits"] == 0.5
    assert frame.set_index("id")["mi_bits"].isna()["a0"]
    assert list(Tree({}, []).to_dataframe().columns) == ["id", "parent", "level", "latent", "name", "label"]


def test_a_tree_as_a_graph(tree: Tree) -> None:
    graph = tree.to_networkx()
    assert list(graph.edges) == tree.edges() and list(graph.nodes) == [found.id for found in tree]
    assert graph.edges["a0", "b1"] == {"mi_bits": 0.5, "p_child_given_parent": 0.1}
    assert graph.nodes["b1"]["rate"] == 0.25 and "mi_bits" not in graph.nodes["b1"]


def test_a_report_as_a_data_frame(report: Report) -> None:
    frame = report.to_dataframe()
    assert list(frame["metric"]) == ["fvu", "mi_bits", "fvu"]
    row = frame.iloc[2]
    assert (row["group"], row["value"], row["low"], row["high"]) == ("flat", 0.25, 0.125, 0.5)
    assert (row["difference"], row["verdict"]) == (-0.5, "better")
    assert list(frame["verdict"][:2]) == ["", ""]
    assert report.figure("flat", "fvu")["n"] == 10 and report.verdict("flat", "fvu") == "better"


def test_a_report_shows_intervals_and_verdicts(report: Report) -> None:
    assert "1,234 rows" in repr(report) and len(repr(report)) < 200
    page = page_of(report)
    assert "0.250 [0.125, 0.500] better" in page.text
    assert ("span", {"class": "better"}) in page.elements


def test_a_report_without_groups_shows_its_sample(report: Report) -> None:
    html = Report({**report.data, "groups": {}, "paired": {}})._repr_html_()
    assert "held-out rows" in html and "verdicts" not in html


@pytest.mark.parametrize("package", ["pandas", "networkx"])
def test_a_missing_package_is_named(package: str, tree: Tree, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    asked = [tree.to_networkx] if package == "networkx" else [tree.to_dataframe, report.to_dataframe]
    for method in asked:
        with pytest.raises(HierSAEError, match=rf"needs {package}.*\n.*pip install"):
            method()


def test_a_run_shows_what_it_is(tiny_hier: Path) -> None:
    run = load_run(tiny_hier)
    assert repr(run) == "Run(hier: hier, 16 + 112 latents on transformer.h.1, step 195 of 195)"
    text = page_of(run).text
    assert "transformer.h.1, width 32" in text and "fvu" in text


def test_a_text_is_encoded_as_in_the_dashboard(tiny_hier: Path, tiny_host: Path) -> None:
    run = load_run(tiny_hier)
    text = "The old king\nsees winter."
    encoded = run.encode_text(text)  # the host is the recorded one
    assert "".join(encoded.tokens) == text and encoded.code_SF.shape == (len(text), 128) and not encoded.cut_off
    host = Host.load(str(tiny_host), torch.device("cpu"))
    pieces, firings, _ = TextEncoder(host, run, 64, None)(text)
    assert (encoded.tokens, encoded.firings()) == (pieces, firings)
    assert np.array_equal(encoded.sparse().toarray(), encoded.code_SF.numpy())
    frame = encoded.to_dataframe()
    assert len(frame) == encoded.sparse().nnz and set(frame["latent"]) <= set(run.model.levels.ids)
    assert f"{len(text)} tokens" in repr(encoded)
    assert "␣" in page_of(encoded).text
    assert run.load_host() is run.load_host()


def test_a_long_text_is_cut_and_an_unusable_one_refused(tiny_hier: Path, tiny_host: Path) -> None:
    run = load_run(tiny_hier)
    assert run.encode_text("The king " * 10, model=tiny_host).cut_off == 90 - 64
    with pytest.raises(UsageError, match="there is no text"):
        run.encode_text("  ", model=tiny_host)
    with pytest.raises(UsageError, match="no such folder"):
        run.encode_text("The king", model="/no/such/host")


def test_another_host_is_refused(tiny_hier: Path, tiny_text: Path, tmp_path: Path) -> None:
    other = save_host(tmp_path / "other", tiny_text.read_text(), seed=1)
    with pytest.raises(FileError, match="not the model that"):
        load_run(tiny_hier).load_host(other)


def test_the_text_around_a_row(tiny_acts: Path, tiny_text: Path) -> None:
    text = tiny_text.read_text()
    with load_acts(tiny_acts) as acts:
        assert "20,000 rows" in repr(acts) and "transformer.h.1 (32)" in repr(acts)
        around = acts.text(70, around=5)  # a token is a character, and a window has 64
        assert (around.before, around.token, around.after) == (text[65:70], text[70], text[71:76])
        assert str(around) == text[65:76] and around.position == 6
        assert acts.text(64, around=5).before == "" and acts.text(63, around=5).after == ""
        assert acts.text(-1, around=3).token == text[acts.rows - 1]
        with pytest.raises(IndexError):
            acts.text(acts.rows)


def test_a_synthetic_cache_has_no_text(tmp_path: Path) -> None:
    path = caches.write(tmp_path / "acts.h5", caches.content(20))
    with Activations(path) as acts:
        del acts.header["host"]["dtype"]
        with pytest.raises(FileError, match="synthetic"):
            acts.text(3)
