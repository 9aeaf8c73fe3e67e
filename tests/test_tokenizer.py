"""The tokenizer of a host: the text of every token, and that another one is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import Activations, ActivationSet
from hiersae_cli.formats.run import load_run
from hiersae_cli.host.loading import load_tokenizer
from hiersae_cli.host.model import Host
from hiersae_cli.host.tokenizer import fingerprint, token_text
from hiersae_cli.workflows.common.inputs import load_host
from hiersae_cli.workflows.dashboard import run as dashboard
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.tree import run as export_tree
from tests.random_hosts import byte_tokenizer

CPU = torch.device("cpu")


def test_every_token_of_a_byte_level_vocabulary_has_a_text_of_its_own() -> None:
    tokenizer = byte_tokenizer(False)
    texts = [token_text(tokenizer, token) for token in range(len(tokenizer))]
    assert len(set(texts)) == len(texts) and "\ufffd" not in "".join(texts)
    assert {"\x00", "⟨80⟩", "⟨e2⟩", "a", " the"} <= set(texts)


def test_a_fingerprint_is_of_what_a_tokenizer_does(tmp_path: Path, tiny_host: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_host))
    shutil.copytree(tiny_host, tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert fingerprint(load_tokenizer(str(tmp_path / "saved"))) == fingerprint(tokenizer)
    assert fingerprint(tokenizer) != fingerprint(byte_tokenizer(False))
    state = json.loads(byte_tokenizer(False).backend_tokenizer.to_str())
    state["model"]["merges"].pop()  # the same vocabulary, cut differently
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    assert other.get_vocab() == byte_tokenizer(False).get_vocab()
    assert fingerprint(other) != fingerprint(byte_tokenizer(False))


@pytest.fixture
def swapped(tiny_host: Path, tmp_path: Path) -> Path:
    """The host with two letters of its tokenizer exchanged."""
    folder = tmp_path / "swapped"
    shutil.copytree(tiny_host, folder)
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    vocabulary = state["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    file.write_text(json.dumps(state))
    return folder


def test_a_cache_knows_its_tokenizer(tiny_acts: Path, tiny_host: Path, tiny_text: Path) -> None:
    host = Host.load(str(tiny_host), CPU)
    with Activations(tiny_acts) as acts:
        assert acts.header["host"]["tokenizer"] == host.tokenizer_fingerprint
        assert acts.header["sample"]["text"] == tiny_text.read_text()[: len(acts.header["sample"]["tokens"])]


def test_another_tokenizer_of_the_same_size_is_refused(
    tiny_acts: Path, tiny_hier: Path, swapped: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    common = {"acts": [str(tiny_acts)], "model": str(swapped), "device": "cpu"}
    for attempt in (
        lambda: evaluate.run(EvalConfig(runs=[str(tiny_hier)], out=f"{out}.json", **common)),
        lambda: export_tree.run(ExportTreeConfig(run=str(tiny_hier), out=f"{out}.json", **common)),
        lambda: dashboard.open_dashboard(DashboardConfig(run=str(tiny_hier), index=f"{out}.h5", **common)),
    ):
        with pytest.raises(FileError, match=r"swapped: its tokenizer is not the one that .* was made with"):
            attempt()
    assert not list(tmp_path.glob("out*"))


def test_the_text_says_what_is_wrong_and_an_older_cache_is_read(
    tiny_acts: Path, tiny_hier: Path, swapped: Path
) -> None:
    run, acts = load_run(tiny_hier), ActivationSet([str(tiny_acts)])
    assert run.header["host"].pop("tokenizer")
    with pytest.raises(FileError, match=r"it reads '.*', but the text is '.*'"):
        load_host(str(swapped), run, acts, CPU)
    del acts.caches[0].header["host"]["tokenizer"]
    load_host(str(swapped), run, acts, CPU)
    acts.close()
