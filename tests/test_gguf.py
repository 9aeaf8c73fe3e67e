"""Host models in GGUF files: converted once, the same model as the folder, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import Activations
from hiersae_cli.formats.host import describe as describe_folder
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.host import gguf as module
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.cache import run as cache
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.info import run as info
from hiersae_cli.workflows.train import run as train
from hiersae_cli.workflows.tree import run as export_tree
from tests.gguf_files import write_gguf
from tests.helpers import Said, start
from tests.random_hosts import byte_host

pytest.importorskip("gguf", reason="needs the package gguf: pip install -e '.[gguf]'")

CPU = torch.device("cpu")
TEXTS = ("naïve café — the cat", "漢字 and the hat", "🙂👍🏽 sat on the mat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_host(tmp_path_factory.mktemp("original") / "llama", "llama", add_bos=False)


@pytest.fixture(scope="module")
def file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(folder, tmp_path_factory.mktemp("file") / "tiny.gguf")


@pytest.fixture(autouse=True)
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of converted models, which is empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hiersae" / "hosts"


@pytest.mark.parametrize(("quantized", "tolerance"), [((), 1e-5), (("ffn_down.weight",), 0.01)])
def test_the_model_is_the_one_that_the_file_was_written_from(
    folder: Path, tmp_path: Path, quantized: tuple[str, ...], tolerance: float
) -> None:
    host = Host.load(str(write_gguf(folder, tmp_path / "x.gguf", quantized)), CPU)
    original = Host.load(str(folder), CPU)
    tokens = original.tokenizer(TEXTS[0])["input_ids"]
    assert host.tokenizer(TEXTS[0])["input_ids"] == tokens
    tokens_BT = torch.tensor([tokens])
    x_BTd, y_BTd = (of.capture(tokens_BT, ["model.layers.3"])["model.layers.3"] for of in (host, original))
    assert torch.allclose(x_BTd, y_BTd, rtol=tolerance, atol=tolerance)
    assert host.dtype == "float32" and not hasattr(host.model.config, "quantization_config")


@pytest.mark.parametrize(("place", "number"), [(8, 2**62), (16, 2**62), (16, 2**20), (24, 2**40)])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(
    place: int, number: int, file: Path, tmp_path: Path
) -> None:
    content = file.read_bytes()
    (tmp_path / "x.gguf").write_bytes(content[:place] + number.to_bytes(8, "little") + content[place + 8 :])
    for read in (module.read_metadata, lambda path: Host.load(str(path), CPU)):
        with pytest.raises(FileError, match=r"x\.gguf: damaged GGUF file"):
            read(tmp_path / "x.gguf")


def test_a_file_is_converted_once(file: Path, hosts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    host = Host.load(str(file), CPU, console=said)
    (converted,) = hosts.iterdir()
    assert said.text == f"converting {file} once, to {converted}\n"
    assert host.name == str(file)
    assert host.fingerprint == Host.load(str(converted), CPU).fingerprint
    monkeypatch.setattr(module, "_convert", lambda *_: pytest.fail("converted again"))
    monkeypatch.setitem(sys.modules, "gguf", None)  # nor is the package needed
    assert Host.load(str(file), CPU, console=said).fingerprint == host.fingerprint
    assert said.text.count("converting") == 1


def test_the_fingerprint_follows_the_content_of_the_file_but_not_its_place(
    folder: Path, file: Path, hosts: Path, tmp_path: Path
) -> None:
    first = Host.load(str(file), CPU).fingerprint
    shutil.rmtree(hosts)
    other_place = tmp_path / "place"
    shutil.copytree(folder, other_place)
    (other_place / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "bos_token": "?"}')
    named_otherwise = shutil.copy(file, other_place / "weights.bin")
    assert Host.load(str(named_otherwise), CPU).fingerprint == first
    changed = write_gguf(folder, tmp_path / "changed.gguf", ("ffn_down.weight",))
    assert Host.load(str(changed), CPU).fingerprint != first
    assert len(list(hosts.iterdir())) == 2


def test_what_a_killed_command_left_is_removed(file: Path, hosts: Path) -> None:
    Host.load(str(file), CPU)
    (converted,) = hosts.iterdir()
    converted.rename(hosts / f".{converted.name}abc")
    Host.load(str(file), CPU)
    assert list(hosts.iterdir()) == [converted]


def test_commands_that_start_together_share_the_converted_folder(file: Path, hosts: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS) * 40)
    outs = [tmp_path / "a.h5", tmp_path / "b.h5"]
    commands = [start("cache", text, "--model", file, "--layer", 1, "-o", out) for out in outs]
    for command in commands:
        _, err = command.communicate()
        assert command.wait() == 0, err
    assert len(list(hosts.iterdir())) == 1
    fingerprints = set()
    for out in outs:
        with Activations(out) as acts:
            fingerprints.add(acts.header["host"]["fingerprint"])
            assert acts.header["host"]["name"] == str(file)
    assert len(fingerprints) == 1


@pytest.fixture
def chain(file: Path, tmp_path: Path) -> SimpleNamespace:
    """A cache made with the file, and a run on it."""
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": passage}) + "\n" for passage in TEXTS) * 100)
    acts, run = str(tmp_path / "acts.h5"), str(tmp_path / "run")
    tokenizer = Host.load(str(file), CPU).tokenizer
    longest = max(len(tokens) for tokens in tokenizer(list(TEXTS))["input_ids"])  # so that no window ends in a text
    cache.run(CacheConfig(texts=[str(text)], model=str(file), layer="2", context=longest, out=acts, device="cpu"))
    train.run(TrainConfig(acts=[acts], out=run, widths=(8, 56), k=(2, 2), tokens=30_000, batch=256, device="cpu"))
    return SimpleNamespace(acts=acts, run=run)


def test_a_tree_shows_characters_that_tokens_share(chain: SimpleNamespace, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "tree.json"
    export_tree.run(ExportTreeConfig(run=chain.run, acts=[chain.acts], model=str(file), out=str(out), device="cpu"))
    nodes = load_tree(out).nodes
    contexts = [context for node in nodes for context in node.evidence["contexts"]]
    for context in contexts:
        written = "".join([*context["before"], context["token"], *context["after"]])
        assert context["token"] and any(written in passage for passage in TEXTS)
    for character in "ïé—漢字🙂👍🏽":
        assert any(character in context["token"] for context in contexts), character
    # A token that is part of a character is named by the character where the latent fires at it most strongly.
    tokens = {item["token"] for node in nodes for item in node.evidence["tokens"]}
    assert {"é", "漢", "🙂"} & tokens and any(set(node.name) & set("ïé—漢字🙂👍🏽") for node in nodes)
    assert not any(sign in text for sign in "⟨\ufffd" for text in [*tokens, *(node.name for node in nodes)])


def test_info_describes_the_model_and_where_it_is_converted(folder: Path, file: Path, hosts: Path) -> None:
    answer, text = info(InfoConfig(path=str(file)))
    expected = describe_folder(folder, verify=False).details
    for name in ("model_type", "layers", "width", "vocabulary", "parameters", "tokenizer"):
        assert answer[name] == expected[name], name
    assert answer["converted"] is None and "not yet" in text and answer["stored_as"] == "F32"
    Host.load(str(file), CPU)
    (converted,) = hosts.iterdir()
    answer, text = info(InfoConfig(path=str(file)))
    assert answer["converted"] == str(converted) and str(converted) in text


def test_info_refuses_a_damaged_file_and_names_a_missing_package(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:100])
    with pytest.raises(FileError, match=r"cut\.gguf: damaged GGUF file"):
        info(InfoConfig(path=str(tmp_path / "cut.gguf")))
    monkeypatch.setattr(module, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match="GGUF files need the package 'gguf'") as caught:
        info(InfoConfig(path=str(file)))
    assert "pip install" in caught.value.hint


def test_an_evaluation_takes_the_file_or_its_folder(
    chain: SimpleNamespace, file: Path, hosts: Path, tmp_path: Path
) -> None:
    (converted,) = hosts.iterdir()
    losses = []
    for model in (file, converted):
        out = tmp_path / "report.json"
        config = EvalConfig(
            runs=[chain.run], acts=[chain.acts], model=str(model), out=str(out), overwrite=True, device="cpu"
        )
        evaluate.run(config, said := Said())
        assert "converting" not in said.text
        losses.append(json.loads(out.read_text())["runs"]["run"]["ce_recovered"])
    assert losses[0] == losses[1]


def test_a_file_that_cannot_be_read_is_named(folder: Path, file: Path, hosts: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    (tmp_path / "text.gguf").write_text("text")
    (tmp_path / "short.gguf").write_bytes(data[:1000])
    (tmp_path / "cut.gguf").write_bytes(data[: len(data) // 2])
    write_gguf(folder, tmp_path / "kind.gguf", architecture="never-heard-of")
    write_gguf(folder, tmp_path / "part.gguf", without=("blk.2.ffn_up.weight", "blk.3.attn_q.weight"))
    for name, problem in (
        ("text", "not a GGUF file\nDownload it again"),
        ("short", r"damaged GGUF file \(the file ends within its header\)\nDownload it again"),
        ("cut", "transformers cannot read this model .*\nIf the download is complete, name the original"),
        ("kind", "transformers cannot read this model .*never-heard-of"),
        ("part", r"lacks 2 of the model's weights, such as model\.layers\.2\.mlp\.up_proj\.weight\n.*merge"),
    ):
        with pytest.raises(FileError, match=rf"{name}\.gguf: {problem}"):
            Host.load(str(tmp_path / f"{name}.gguf"), CPU)
    assert not list(hosts.iterdir())
    with pytest.raises(UsageError, match=r"missing\.gguf: no such file"):
        Host.load(str(tmp_path / "missing.gguf"), CPU)


def test_a_missing_package_is_named(file: Path, hosts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UsageError, match=r"tiny\.gguf: GGUF files need the package 'gguf'\n.*'\.\[gguf\]'"):
        Host.load(str(file), CPU)
    assert not hosts.exists()


def test_a_disk_that_is_too_small_is_named_before_any_work(
    file: Path, hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(module, "_convert", lambda *_: pytest.fail("converted"))
    with pytest.raises(FileError, match=r"hosts/\w+: the converted model needs .*\nFree some space, or set XDG_CACHE"):
        Host.load(str(file), CPU)
    assert not list(hosts.iterdir())


def test_a_cache_folder_that_others_may_write_to_is_not_used(file: Path, hosts: Path) -> None:
    hosts.parent.mkdir(parents=True)
    hosts.parent.chmod(0o777)
    with pytest.raises(FileError, match=r"tiny\.gguf: there is no cache folder .*\nSet XDG_CACHE_HOME"):
        Host.load(str(file), CPU)
