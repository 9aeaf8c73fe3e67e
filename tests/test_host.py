"""The host model: what is captured, what is computed for it, what is spliced, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats.activations import Activations
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.cache.run import run
from tests.random_hosts import CONFIGS, CONTEXT, LAYERS, byte_host, character_host, prose

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return character_host(tmp_path_factory.mktemp("host") / "gpt2")


@pytest.fixture(scope="module")
def host(folder: Path) -> Host:
    return Host.load(str(folder), CPU)


@pytest.fixture
def tokens_BT() -> torch.Tensor:
    return torch.arange(60).reshape(3, 20) % 29


def calls(host: Host, paths: list[str]) -> tuple[dict[str, int], list[torch.utils.hooks.RemovableHandle]]:
    counts = dict.fromkeys(paths, 0)

    def count(path: str) -> object:
        def note(*_: object) -> None:
            counts[path] += 1

        return note

    return counts, [host.module(path).register_forward_pre_hook(count(path)) for path in paths]  # type: ignore[arg-type]


def test_nothing_after_the_last_hooked_module_is_computed(host: Host, tokens_BT: torch.Tensor) -> None:
    counts, handles = calls(host, [*(f"transformer.h.{n}" for n in range(LAYERS)), "transformer.ln_f", "lm_head"])
    host.capture(tokens_BT, ["transformer.h.1", "transformer.h.0"])
    for handle in handles:
        handle.remove()
    assert list(counts.values()) == [1, 1, 0, 0, 0, 0]


def test_blocks_and_other_modules_are_captured_in_one_pass(host: Host, tokens_BT: torch.Tensor) -> None:
    paths = ["transformer.h.2", "transformer.h.0.attn", "transformer.h.1.mlp.act", "transformer.wte"]
    found = host.capture(tokens_BT, paths)
    assert {path: x.shape[2] for path, x in found.items()} == dict(zip(paths, (16, 16, 64, 16), strict=True))
    with torch.inference_mode():
        states = host.model(tokens_BT, output_hidden_states=True).hidden_states
    assert torch.equal(found["transformer.h.2"], states[3])
    assert torch.equal(found["transformer.wte"], host.model.get_input_embeddings()(tokens_BT))


def test_layer_numbers_count_blocks_from_zero(host: Host) -> None:
    assert host.layer_path(2) == "transformer.h.2"
    for wrong in (LAYERS, -1):
        with pytest.raises(UsageError, match=rf"--layer {wrong}: .* has 4 blocks, 0 to 3"):
            host.layer_path(wrong)


def test_a_wrong_module_is_answered_with_candidates(host: Host, tokens_BT: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="no such module") as caught:
        host.capture(tokens_BT, ["transformer.h.1.mpl"])
    candidates = caught.value.hint.split()
    assert candidates[1] == "transformer.h.1.mlp"
    assert {"transformer.h.3", "transformer.h.0.attn"} <= set(candidates)
    assert all(host.module(path) for path in candidates[1:])


@pytest.mark.parametrize(("path", "problem"), [("transformer.h", "not used"), ("transformer", "not one vector")])
def test_a_module_without_a_vector_per_token_is_refused(
    host: Host, tokens_BT: torch.Tensor, path: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=f"--module {path}: .*{problem}"):
        host.capture(tokens_BT, [path])


def test_a_gated_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it at https://…")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    with pytest.raises(UsageError, match=r"google/gemma-2-2b: .* accepted its licence") as refused:
        Host.load("google/gemma-2-2b", torch.device("cpu"))
    assert "huggingface.co/google/gemma-2-2b" in refused.value.hint
    assert "hf auth login" in refused.value.hint and "HF_TOKEN" in refused.value.hint


def hooks(host: Host) -> int:
    """How many there are; transformers has some of its own."""
    return sum(len(module._forward_hooks) for module in host.model.modules())


def test_hooks_are_gone_after_capturing_even_where_it_fails(host: Host, tokens_BT: torch.Tensor) -> None:
    before = hooks(host)
    host.capture(tokens_BT, ["transformer.h.1"])
    with pytest.raises(UsageError):
        host.capture(tokens_BT, ["transformer.h.1", "transformer"])
    assert hooks(host) == before


@pytest.mark.parametrize("path", ["transformer.h.1", "transformer.h.1.attn", "transformer.h.1.mlp"])
def test_splicing(host: Host, tokens_BT: torch.Tensor, path: str) -> None:
    plain, before = host.log_probabilities(tokens_BT), hooks(host)
    seen: list[torch.Tensor] = []

    def same(x_BTD: torch.Tensor) -> torch.Tensor:
        seen.append(x_BTD)
        return x_BTD

    with host.spliced(path, same):
        assert torch.equal(host.log_probabilities(tokens_BT), plain)
    assert torch.equal(seen[0], host.capture(tokens_BT, [path])[path])
    with host.spliced(path, torch.zeros_like):
        assert not torch.allclose(host.log_probabilities(tokens_BT), plain)
    with pytest.raises(ZeroDivisionError), host.spliced(path, lambda x: x):
        raise ZeroDivisionError
    assert torch.equal(host.log_probabilities(tokens_BT), plain)
    assert hooks(host) == before


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("add_bos", [True, False])
def test_cached_rows_are_the_hidden_states_of_their_windows_alone(
    tmp_path: Path, architecture: str, add_bos: bool
) -> None:
    """Also: windows of different lengths in one batch do not change each other, and the tokenizer's bos is followed."""
    folder = byte_host(tmp_path / "host", architecture, add_bos)
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": prose(length, length)}) + "\n" for length in (150, 7, 60, 1, 33))
    )
    out = tmp_path / "acts.h5"
    run(CacheConfig(texts=[str(tmp_path / "texts.jsonl")], model=str(folder), layer="0,2", out=str(out), batch=4))
    model = Host.load(str(folder), CPU).model
    with Activations(out) as acts:
        tokens, position = acts.column("tokens"), acts.column("position")
        starts = [*np.flatnonzero(position == 0), acts.rows]
        assert set(np.diff(starts)) > {CONTEXT}
        rows = {int(path.split(".")[-1]): acts.read(path) for path in acts.modules}
        assert sorted(rows) == [0, 2]
    assert all((tokens[start] == 0) == add_bos for start in starts[:-1])
    for start, stop in pairwise(starts):
        window = torch.from_numpy(tokens[start:stop]).long()[None]
        with torch.inference_mode():
            states = model(window, output_hidden_states=True).hidden_states
        for layer, x in rows.items():
            torch.testing.assert_close(x[start:stop], states[layer + 1][0], rtol=1e-4, atol=1e-5)


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_model_in_pickle_is_never_loaded(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "sprung",)

    bad = copied(folder, tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Trap()}, bad / "pytorch_model.bin")
    with pytest.raises(FileError, match=r"bad: this model cannot be loaded .*safetensors"):
        Host.load(str(bad), CPU)
    assert not (tmp_path / "sprung").exists()


def test_code_that_a_model_brings_along_is_not_run_nor_asked_about(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = copied(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    config |= {
        "model_type": "trap",
        "auto_map": {"AutoConfig": "trap.TrapConfig", "AutoModelForCausalLM": "trap.TrapModel"},
    }
    (bad / "config.json").write_text(json.dumps(config))
    (bad / "trap.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'sprung')!r}).touch()")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    with pytest.raises(FileError, match="bad: this model cannot be loaded"):
        Host.load(str(bad), CPU)
    assert not (tmp_path / "sprung").exists()


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "bad")
    data = (bad / "model.safetensors").read_bytes()
    for length in (0, 5, 200, len(data) - 1):
        (bad / "model.safetensors").write_bytes(data[:length])
        with pytest.raises(FileError, match="bad: this model cannot be loaded"):
            Host.load(str(bad), CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_max_length": "=1+1"}, "bad: this model cannot be loaded"),
        ({"unk_token": ""}, "bad: the tokenizer's unk_token '' is not in its vocabulary"),
    ],
)
def test_damaged_settings_of_a_tokenizer_are_refused(
    settings: dict[str, str], message: str, folder: Path, tmp_path: Path
) -> None:
    bad = copied(folder, tmp_path / "bad")
    file = bad / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    with pytest.raises(FileError, match=message):
        Host.load(str(bad), CPU)


def test_more_layers_than_tensors_are_refused_before_they_are_made(folder: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "n_layer": 2**31, "num_hidden_layers": 2**31}))
    with pytest.raises(FileError, match=r"2,147,483,648 layers in config\.json, but only \d+ tensors"):
        Host.load(str(bad), torch.device("cpu"))


def test_an_impossible_token_in_the_configuration_is_refused(folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "bad")
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "pad_token_id": 10**25}))
    with pytest.raises(FileError, match="int too big"):
        Host.load(str(bad), CPU)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "bad")
    (bad / name).unlink()
    os.mkfifo(bad / name)
    with pytest.raises(FileError, match="this is a pipe"):
        Host.load(str(bad), CPU)


def test_missing_weights_are_not_filled_with_random_ones(folder: Path, tmp_path: Path) -> None:
    bad = copied(folder, tmp_path / "bad")
    weights = load_file(bad / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileError, match=r"lack 1 of the model's weights: transformer\.h\.1\.mlp\.c_fc\.weight"):
        Host.load(str(bad), CPU)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name, problem in (
        ("empty", "no config.json in this folder"),
        ("file", "a file; a Hugging Face model is a folder"),
        ("broken", "this model cannot be loaded"),
        ("missing", "no such folder"),
    ):
        with pytest.raises(HierSAEError, match=f"{name}: {problem}"):
            Host.load(str(tmp_path / name), CPU)


def test_the_fingerprint_follows_weights_and_configuration_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = Host.load(str(folder), CPU).fingerprint
    assert Host.load(str(copied(folder, tmp_path / "same")), CPU).fingerprint == first
    assert Host.load(str(character_host(tmp_path / "other", seed=1)), CPU).fingerprint != first


def test_a_model_runs_in_the_type_asked_for(folder: Path, tokens_BT: torch.Tensor) -> None:
    host = Host.load(str(folder), CPU, "bfloat16")
    assert host.dtype == "bfloat16"
    assert host.capture(tokens_BT, ["transformer.h.0"])["transformer.h.0"].dtype == torch.bfloat16
