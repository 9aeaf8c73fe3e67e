"""Text of any characters through the whole chain, over a vocabulary of bytes; strings of any kind in HDF5."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import h5py
import pytest

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.study import StudyNewConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.hdf5 import read_strings, write_strings
from hiersae_cli.formats.index import IndexFile
from hiersae_cli.formats.names import token_shown
from hiersae_cli.formats.text import visible
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.pages.render import Pages
from hiersae_cli.workflows.cache import run as cache
from hiersae_cli.workflows.dashboard import run as dashboard
from hiersae_cli.workflows.study import run as study
from hiersae_cli.workflows.train import run as train
from hiersae_cli.workflows.tree import run as export_tree
from tests.random_hosts import byte_host

SENTENCES = (
    "The cat 🙂👍🏽 sat\x00on the mat.\n",
    "שלום עולם, \x1b[31mred\x07 bell.\n",
    "你好，世界！ the hat and\u202e more.\n",
    "naïve café — the other \x00\x01 mat.\r\n",
)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A cache of such text, a hierarchical and a flat run."""
    folder = tmp_path_factory.mktemp("bytes")
    text = "".join(random.Random(0).choices(SENTENCES, k=160))
    (folder / "text.txt").write_bytes(text.encode())
    host = byte_host(folder / "host", "gpt2", add_bos=False)
    acts = str(folder / "acts.h5")
    cache.run(CacheConfig(texts=[str(folder / "text.txt")], model=str(host), layer="2", out=acts, document_tokens=128))
    runs = {}
    for arch, widths, k in (("hier", (8, 56), (2, 2)), ("batchtopk", (64,), (4,))):
        runs[arch] = str(folder / arch)
        train.run(
            TrainConfig(
                acts=[acts], out=runs[arch], arch=arch, widths=widths, k=k, tokens=30_000, batch=256, device="cpu"
            )
        )
    return SimpleNamespace(folder=folder, text=text, host=str(host), acts=acts, **runs)


def test_exports_show_the_text_as_it_is(chain: SimpleNamespace, tmp_path: Path) -> None:
    for kind in ("json", "graphml", "csv", "dot", "nwk"):
        export_tree.run(
            ExportTreeConfig(
                run=chain.hier,
                acts=[chain.acts],
                model=chain.host,
                out=str(tmp_path / kind),
                format=kind,
                top_tokens=40,
            )
        )
    nodes = json.loads((tmp_path / "json").read_text())["nodes"]
    contexts = [context for node in nodes for context in node["evidence"]["contexts"]]
    assert len(contexts) > 100
    for context in contexts:
        pieces = [*context["before"], context["token"], *context["after"]]
        assert len(pieces) == len(context["activations"])
        assert context["token"] and "\ufffd" not in "".join(pieces)
    for character in "🙂שם你世ï\x00\x1b":
        assert any(character in "".join([*context["before"], context["token"]]) for context in contexts), character
    promoted = {item["token"] for node in nodes for item in node["evidence"]["promoted"]}
    assert {"\x00", "⟨e2⟩"} <= promoted
    own = [[item["token"] for item in node["evidence"]["tokens"]] for node in nodes]
    assert any("世" in tokens or "界" in tokens for tokens in own)
    keys = "{http://graphml.graphdrawing.org/xmlns}data[@key='node_tokens']"
    shown = [element.text or "" for element in ElementTree.parse(tmp_path / "graphml").iterfind(f".//{keys}")]
    assert shown == [visible(" ".join(map(token_shown, tokens))) for tokens in own if tokens]
    assert any("␣" in text for text in shown)
    names, *rows = csv.reader((tmp_path / "csv").open(newline=""))
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    assert [json.loads(text) if text else [] for text in columns["tokens"]] == own
    for kind in ("graphml", "csv", "dot", "nwk"):
        assert any(sign in (tmp_path / kind).read_text() for sign in "世界"), kind
    assert not any("\x00" in (tmp_path / kind).read_text() for kind in ("json", "graphml", "csv", "dot", "nwk"))


def test_pages_and_studies_show_the_text_as_it_is(chain: SimpleNamespace) -> None:
    pages = chain.folder / "pages"
    config = DashboardConfig(
        run=chain.hier,
        acts=[chain.acts],
        baseline=chain.batchtopk,
        model=chain.host,
        out=str(pages),
        neuronpedia=str(chain.folder / "rows"),
        device="cpu",
    )
    dashboard.run(config)
    with h5py.File(config.index_file) as file:
        assert file["vocabulary/text"].attrs["encoding"] == "json"
    assert "\x00" in IndexFile(config.index_file).token_texts.values()
    index, _ = dashboard.open_dashboard(config)
    for id in index.ids():
        for context in index.feature(id).top:
            assert "".join(context.tokens) in chain.text or "⟨" in context.tokens[0] + context.tokens[-1]
            assert context.tokens[context.focus]
    tree = chain.folder / "names.json"
    shared = {"run": chain.hier, "acts": [chain.acts], "model": chain.host}
    export_tree.run(ExportTreeConfig(out=str(tree), contexts=0, **shared))
    assert index.overview().hint == [node.name for node in load_tree(tree).nodes]
    search = index.search_token("世", 5)
    assert search.occurrences == chain.text.count("世")
    assert [hit.node.id for hit in index.token_table()["世"].hits[:3]] == [hit.node.id for hit in search.hits[:3]]
    tokens, *_ = vars(index.encode_text(chain.text[:60])).values()
    assert "".join(tokens) == chain.text[: len("".join(tokens))]
    written = "".join(Pages(index, served=False).feature(id).body for id in index.ids())
    assert not re.search("[\x00\x01\x07\x1b\u202e]", written)
    assert "‹00›" in written and "🙂" in written and "\ufffd" not in written
    out = str(chain.folder / "study")
    study.new(
        StudyNewConfig(
            run=chain.hier,
            acts=[chain.acts],
            baseline=chain.batchtopk,
            model=chain.host,
            out=out,
            tasks=("label",),
            sets=1,
            checks=1,
            device="cpu",
        )
    )
    assert "世" in json.dumps(json.loads(Path(out, "items.json").read_text()), ensure_ascii=False)


@pytest.mark.parametrize(
    "texts", [["plain", "é世🙂", ""], ["\x00", "a\x00b", '"quoted"'], ["\udc80 half", "whole"], []]
)
def test_strings_of_any_characters_are_read_as_written(tmp_path: Path, texts: list[str]) -> None:
    with h5py.File(tmp_path / "strings.h5", "w") as file:
        write_strings(file, "texts", texts)
        assert read_strings(file["texts"]) == texts
        assert ("encoding" in file["texts"].attrs) == any("\x00" in text or "\udc80" in text for text in texts)
