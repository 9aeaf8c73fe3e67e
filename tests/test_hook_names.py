"""Hook names of TransformerLens and nnsight: the modules that they mean in hosts of several families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, GPT2LMHeadModel, LlamaConfig

from hiersae_cli import load_acts, load_run
from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import UsageError
from hiersae_cli.host.hook_names import module_path
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.cache.run import run as cache
from hiersae_cli.workflows.train.run import run as train

_SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
HOSTS = {
    "gpt2": GPT2Config(vocab_size=20, n_positions=16, n_embd=16, n_layer=3, n_head=2),
    "llama": LlamaConfig(vocab_size=20, num_key_value_heads=2, **_SIZES),
    "gemma2": Gemma2Config(vocab_size=20, num_key_value_heads=2, head_dim=8, **_SIZES),
}
BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers", "gemma2": "model.layers"}


def host_of(family: str) -> Host:
    model = AutoModelForCausalLM.from_config(HOSTS[family]).eval()
    return Host(family, "", model, None)


@pytest.mark.parametrize("family", HOSTS)
def test_residual_streams_are_outputs_of_blocks(family: str) -> None:
    host, blocks = host_of(family), BLOCKS[family]
    names = ("blocks.1.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.1.hook_out", "blocks.2.hook_in")
    names += (f"{blocks}.1.output", f"{blocks}[1].output[0]", f"{blocks}[2].input", f"model.{blocks}[1].output")
    names += (f"{blocks}.1", f"{blocks}[1]")
    assert {module_path(host, name) for name in names} == {f"{blocks}.1"}
    tokens_BT = torch.arange(5)[None]
    states = host.model(tokens_BT, output_hidden_states=True).hidden_states
    assert torch.equal(host.capture(tokens_BT, [f"{blocks}.1"])[f"{blocks}.1"], states[2])


def test_parts_of_a_block_come_after_their_norms() -> None:
    gpt2, llama, gemma2 = (host_of(family) for family in HOSTS)
    for name, paths in {
        "blocks.1.hook_attn_out": ("h.1.attn", "layers.1.self_attn", "layers.1.post_attention_layernorm"),
        "blocks.1.hook_mlp_out": ("h.1.mlp", "layers.1.mlp", "layers.1.post_feedforward_layernorm"),
        "blocks.1.attn.hook_out": ("h.1.attn", "layers.1.self_attn", "layers.1.self_attn"),
        "blocks.1.mlp.hook_out": ("h.1.mlp", "layers.1.mlp", "layers.1.mlp"),
    }.items():
        found = [module_path(host, name).partition(".")[2] for host in (gpt2, llama, gemma2)]
        assert found == list(paths), name
    assert module_path(gpt2, "transformer.h.1.mlp.output") == "transformer.h.1.mlp"


@pytest.mark.parametrize(
    ("name", "problem"),
    {
        "blocks.0.hook_resid_pre": "the sum of the embeddings is no module's output",
        "blocks.1.attn.hook_pattern": "no module of gpt2 has this output",
        "blocks.1.mlp.hook_post": "no module of gpt2 has this output",
        "blocks.3.hook_resid_post": "gpt2 has 3 blocks, 0 to 2",
        "transformer.h[0].input": "only the input of a block from 1 on",
        "transformer.h[1].mlp.input": "only the input of a block from 1 on",
    }.items(),
)
def test_what_is_no_output_of_a_module_is_refused(name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        module_path(host_of("gpt2"), name)


def test_a_name_that_is_none_of_these_is_left_to_the_error_with_candidates() -> None:
    assert module_path(host_of("gpt2"), "transformer.h.1.mpl") == "transformer.h.1.mpl"
    with pytest.raises(UsageError, match="write block numbers"):
        CacheConfig(texts=["a.txt"], model="host", layer="two")


def test_cache_and_train_understand_hook_names(tiny_text: Path, tiny_host: Path, tmp_path: Path) -> None:
    acts = tmp_path / "acts.h5"
    cache(
        CacheConfig(
            texts=[str(tiny_text)],
            model=str(tiny_host),
            layer="0,blocks.1.hook_resid_post",
            module=["transformer.h[1].output[0]", "blocks.2.hook_mlp_out"],
            tokens=1000,
            out=str(acts),
            device="cpu",
        )
    )
    with load_acts(acts) as written:
        assert sorted(written.modules) == ["transformer.h.0", "transformer.h.1", "transformer.h.2.mlp"]
    sizes = {"widths": (4, 12), "k": (1, 1), "tokens": 256, "batch": 64}
    config = TrainConfig(
        acts=[str(acts)], module="blocks.1.hook_resid_post", out=str(tmp_path / "run"), device="cpu", **sizes
    )
    train(config)
    assert load_run(tmp_path / "run").module == "transformer.h.1"


def test_the_names_are_those_of_transformer_lens(tiny_host: Path) -> None:
    """The same activations under the same names, in TransformerLens' own wrapper of a Hugging Face model."""
    bridge = pytest.importorskip("transformer_lens.model_bridge", reason="TransformerLens 3 is not installed")
    model = bridge.TransformerBridge.boot_transformers(str(tiny_host))
    tokens_BT = torch.arange(10)[None]
    _, theirs = model.run_with_cache(tokens_BT)
    host = Host.load(str(tiny_host), torch.device("cpu"))
    assert isinstance(host.model, GPT2LMHeadModel)
    for hook in ("hook_resid_post", "hook_resid_pre", "hook_attn_out", "hook_mlp_out"):
        path = module_path(host, f"blocks.1.{hook}")
        ours_BTD = host.capture(tokens_BT, [path])[path]
        assert torch.allclose(ours_BTD, theirs[f"blocks.1.{hook}"], atol=1e-5), hook


@pytest.mark.filterwarnings("ignore")  # newer versions of nnsight prefer another name for LanguageModel
def test_the_names_are_those_of_nnsight(tiny_host: Path) -> None:
    """The same activations under the names with which nnsight gets at them."""
    nnsight = pytest.importorskip("nnsight", reason="nnsight is not installed")
    host = Host.load(str(tiny_host), torch.device("cpu"))
    tokens_BT = torch.arange(10)[None]
    model = nnsight.LanguageModel(host.model, tokenizer=host.tokenizer)
    with torch.no_grad(), model.trace(tokens_BT):
        block_input = model.transformer.h[1].input.save()
        attention = model.transformer.h[1].attn.output[0].save()
        mlp = model.transformer.h[1].mlp.output.save()
        block = model.transformer.h[1].output.save()
    theirs = {
        "transformer.h[1].input": block_input,
        "transformer.h[1].attn.output[0]": attention,
        "transformer.h[1].mlp.output": mlp,
        "transformer.h[1].output": block if isinstance(block, torch.Tensor) else block[0],
    }
    for name, theirs_BTD in theirs.items():
        path = module_path(host, name)
        assert torch.allclose(host.capture(tokens_BT, [path])[path], theirs_BTD, atol=1e-5), name
