"""Many architectures: the logit lens through their own last layers, their blocks, their padding; what is no host."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    ElectraConfig,
    Gemma3TextConfig,
    Phi3Config,
    PretrainedConfig,
    RobertaConfig,
    T5Config,
    T5EncoderModel,
)

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import Activations
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.cache.run import run
from hiersae_cli.workflows.eval.run import run as evaluate
from hiersae_cli.workflows.train.run import run as train
from tests.random_hosts import (
    CONTEXT,
    FAMILIES,
    LAYERS,
    WIDTH,
    byte_tokenizer,
    gemma3n,
    llama,
    prose,
    random_model,
    save,
)

VOCABULARY = 61
# Families that go through cache, train and eval.
CHAINED = (
    "llama", "gpt_neox", "gemma", "gemma2", "gemma3", "gemma3_with_images", "qwen2", "qwen3", "opt", "mamba", "mamba2"
)  # fmt: skip
CPU = torch.device("cpu")


def host_of(family: str, dtype: torch.dtype = torch.float32) -> Host:
    return Host(family, "", random_model(family, VOCABULARY, dtype), None)


def last_block(host: Host) -> str:
    return host.layer_path(LAYERS - 1)


def directions(count: int = 12) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))


def logits_of_the_host(host: Host, x_FD: torch.Tensor) -> torch.Tensor:
    """What the host itself makes of a residual stream after its last block, (F, V)."""
    with host.spliced(last_block(host), lambda _: x_FD[:, None]), torch.inference_mode():
        return host.model(torch.zeros(len(x_FD), 1, dtype=torch.long), use_cache=False).logits[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_logits_are_what_the_host_itself_makes_of_a_direction(family: str) -> None:
    """A large step along the direction and one against it: biases cancel, and the norm's division is a factor."""
    host, x_FD = host_of(family), directions()
    expected_FV = (logits_of_the_host(host, 1000 * x_FD) - logits_of_the_host(host, -1000 * x_FD)) / 2
    if family == "gemma2":  # its soft cap, undone
        expected_FV = 30 * torch.atanh(expected_FV / 30)
    found_FV = host.direct_logits(x_FD)
    cosine_F = torch.cosine_similarity(found_FV, expected_FV)
    assert cosine_F.min() > 0.9999
    assert torch.equal(found_FV.topk(10).indices, expected_FV.topk(10).indices)


@pytest.mark.parametrize(
    ("family", "norm", "added", "centred"),
    [
        ("llama", "model.norm", 0, False),
        ("qwen2", "model.norm", 0, False),
        ("gemma2", "model.norm", 1, False),
        ("gemma3", "model.norm", 1, False),
        ("gpt2", "transformer.ln_f", 0, True),
        ("gpt_neox", "gpt_neox.final_layer_norm", 0, True),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_direct_logits_by_the_formula_of_the_norm(
    family: str, norm: str, added: int, centred: bool, dtype: torch.dtype
) -> None:
    host, x_FD = host_of(family, dtype), directions()
    gain_D = host.module(norm).weight.float() + added
    expected_FV = (
        (x_FD - centred * x_FD.mean(1, keepdim=True)) * gain_D
    ) @ host.model.get_output_embeddings().weight.float().T
    torch.testing.assert_close(host.direct_logits(x_FD), expected_FV, rtol=1e-4, atol=1e-4)


def test_a_gain_that_begins_at_0_is_no_gain_of_0() -> None:
    """Gemma multiplies by 1 + weight: with weights of 0 every direction used to have the same list."""
    host = host_of("gemma2")
    host.model.model.norm.weight.zero_()
    found_FV = host.direct_logits(directions())
    assert len({tuple(row.tolist()) for row in found_FV.topk(5).indices}) == len(found_FV)


def test_a_scale_behind_the_unembedding_and_its_bias() -> None:
    granite, plain = host_of("granite"), host_of("granite")
    plain.model.config.logits_scaling = 1.0
    torch.testing.assert_close(4 * granite.direct_logits(directions()), plain.direct_logits(directions()))
    phi = host_of("phi")
    before = phi.direct_logits(directions())
    phi.model.lm_head.bias += 7
    torch.testing.assert_close(phi.direct_logits(directions()), before, rtol=1e-4, atol=1e-4)


def test_a_host_without_a_final_norm() -> None:
    host, x_FD = host_of("llama"), directions()
    host.model.model.norm = torch.nn.Identity()
    torch.testing.assert_close(host.direct_logits(x_FD), x_FD @ host.model.lm_head.weight.T, rtol=1e-4, atol=1e-4)


def test_last_layers_that_are_not_linear_are_refused() -> None:
    host = host_of("llama")
    host.model.model.norm = torch.nn.GELU()
    with pytest.raises(FileError, match="llama: cannot tell which tokens a direction promotes"):
        host.direct_logits(directions())


@pytest.mark.parametrize("family", FAMILIES)
def test_block_outputs_are_the_hidden_states(family: str) -> None:
    host = host_of(family)
    tokens_BT = torch.arange(40).reshape(2, 20) % VOCABULARY
    paths = [host.layer_path(layer) for layer in range(LAYERS - 1)]
    found = host.capture(tokens_BT, paths)
    with torch.inference_mode():
        states = host.model(tokens_BT, output_hidden_states=True, use_cache=False).hidden_states
    first = 0 if family in ("mamba", "mamba2", "rwkv") else 1  # the others begin with the embeddings
    for number, path in enumerate(paths, first):
        torch.testing.assert_close(found[path], states[number], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_module_captured_with_others_is_as_it_is_alone(family: str) -> None:
    """Some models add to a module's output in place, once the hook has seen it."""
    host = host_of(family)
    tokens_BT = torch.arange(40).reshape(2, 20) % VOCABULARY
    alone = {}
    for path, module in host.model.named_modules():
        if path.startswith(host.layer_path(1)) and not isinstance(module, torch.nn.ModuleList):
            with contextlib.suppress(UsageError):  # no vector per token, or not used
                alone[path] = host.capture(tokens_BT, [path])[path].clone()
    assert len(alone) > 3
    last = host.layer_path(LAYERS - 1)
    together = host.capture(tokens_BT, [*alone, last])
    for path, x_BTd in alone.items():
        assert torch.equal(together[path], x_BTd), path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_perfect_reconstruction_of_a_block_costs_the_host_nothing(family: str) -> None:
    host = host_of(family)
    tokens_BT = torch.arange(40).reshape(2, 20) % VOCABULARY
    plain = host.log_probabilities(tokens_BT)
    with host.spliced(host.layer_path(1), torch.clone):
        assert torch.equal(host.log_probabilities(tokens_BT), plain)
    with host.spliced(host.layer_path(1), torch.zeros_like):
        assert not torch.allclose(host.log_probabilities(tokens_BT), plain)


def encoder(kind: type[PretrainedConfig], **more: object) -> PretrainedConfig:
    return kind(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        **more,
    )


@pytest.mark.parametrize(
    "config",
    [
        encoder(BertConfig),
        encoder(RobertaConfig),
        encoder(ElectraConfig, embedding_size=WIDTH),
        llama(300, Gemma3TextConfig, num_key_value_heads=1, head_dim=8, use_bidirectional_attention=True),
    ],
    ids=lambda config: config.model_type,
)
def test_an_encoder_is_refused(tmp_path: Path, config: PretrainedConfig) -> None:
    folder = save(tmp_path / "encoder", config, byte_tokenizer(False))
    with pytest.raises(FileError, match=r"encoder: not a causal language model .* depends on the tokens after it"):
        run(CacheConfig(texts=[], model=str(folder), layer="0", out=str(tmp_path / "acts.h5")))
    assert not list(tmp_path.glob("acts*"))


def test_an_architecture_that_predicts_no_next_token_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=300, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(tmp_path / "t5")
    byte_tokenizer(False).save_pretrained(tmp_path / "t5")
    with pytest.raises(FileError, match=r"t5: not a causal language model \(T5EncoderModel\)"):
        Host.load(str(tmp_path / "t5"), CPU)


def longrope(vocabulary: int) -> PretrainedConfig:
    """It rotates by other angles where a sequence is longer than 12."""
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10_000.0}
    scaling["original_max_position_embeddings"] = 12
    return llama(vocabulary, Phi3Config, rope_parameters=scaling, original_max_position_embeddings=12, pad_token_id=0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "bloom", "mixtral", "mamba", "rwkv", "longrope"])
def test_padding_changes_no_row(tmp_path: Path, family: str) -> None:
    tokenizer = byte_tokenizer(True)
    config = longrope(len(tokenizer)) if family == "longrope" else FAMILIES[family](len(tokenizer))
    folder = save(tmp_path / "host", config, tokenizer)
    lengths = (150, 7, 60, 1, 33, 12, 25, 90)
    (tmp_path / "texts").mkdir()
    for number, length in enumerate(lengths):
        (tmp_path / "texts" / f"{number}.txt").write_text(prose(length, length))
    rows = []
    for batch in (1, 16):
        out = str(tmp_path / f"{batch}.h5")
        run(
            CacheConfig(
                texts=[str(tmp_path / "texts")], model=str(folder), layer="2", out=out, batch=batch, context=CONTEXT
            )
        )
        with Activations(out) as acts:
            rows.append((acts.column("tokens"), acts.read(acts.modules[0])))
    assert np.array_equal(rows[0][0], rows[1][0])
    torch.testing.assert_close(rows[0][1], rows[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CHAINED)
def test_a_dictionary_is_made_of_a_block_and_spliced_back_into_it(tmp_path: Path, family: str) -> None:
    tokenizer = byte_tokenizer(True)
    folder = save(tmp_path / "host", FAMILIES[family](len(tokenizer)), tokenizer)
    (tmp_path / "text.txt").write_text(prose(3000))
    acts, out = str(tmp_path / "acts.h5"), str(tmp_path / "run")
    run(
        CacheConfig(
            texts=[str(tmp_path / "text.txt")], model=str(folder), layer="2", out=acts, document_tokens=64, held_out=0.3
        )
    )
    with Activations(acts) as cache:
        assert cache.modules[0].endswith(".2") and cache.width(cache.modules[0]) == WIDTH
        window = torch.from_numpy(cache.column("tokens")[: cache.header["host"]["context"]]).long()[None]
        states = Host.load(str(folder), CPU).model(window, output_hidden_states=True, use_cache=False).hidden_states
        state = states[2 if family.startswith("mamba") else 3][0]
        torch.testing.assert_close(cache.read(cache.modules[0])[: len(state)], state, rtol=1e-4, atol=1e-5)
    train(TrainConfig(acts=[acts], out=out, arch="batchtopk", widths=(32,), k=(WIDTH,), tokens=20_000, batch=256))
    report = evaluate(
        EvalConfig(runs=[out], acts=[acts], model=str(folder), controls=False, resamples=100), Console.silent()
    )
    figures = report["runs"]["run"]
    assert figures["ce_recovered"]["n"] > 0 and figures["kl"]["value"] > 0


@pytest.mark.parametrize(
    ("path", "shape", "instead"),
    [
        ("model.layers.1", "(4, 2, 3, 16)", "model.layers.1.mlp"),
        ("model.layers.2.self_attn.q_norm", "(2, 3, 2, 8)", "model.layers.2.self_attn.q_proj"),
        ("model.rotary_emb", "(1, 3, 8)", "model.layers.0.mlp"),
        ("model.layers.1.altup", "", "model.layers.1.altup.modality_router"),
    ],
)
def test_a_module_that_gives_several_streams_is_refused_before_anything_is_written(
    tmp_path: Path, path: str, shape: str, instead: str
) -> None:
    tokenizer = byte_tokenizer(True)
    folder = save(tmp_path / "host", gemma3n(len(tokenizer)), tokenizer)
    (tmp_path / "text.txt").write_text(prose(600))
    flags = {"layer": "1"} if path == "model.layers.1" else {"module": [path]}
    with pytest.raises(UsageError) as caught:
        run(CacheConfig(texts=[str(tmp_path / "text.txt")], model=str(folder), out=str(tmp_path / "acts.h5"), **flags))
    problem = f"not one vector per token: its shape is {shape}" if shape else "not used in the model's forward pass"
    assert path in caught.value.message and problem in caught.value.message
    assert instead in caught.value.hint.split() and "model.layers.1" not in caught.value.hint.split()
    assert not list(tmp_path.glob("*acts*"))
    config = CacheConfig(
        texts=[str(tmp_path / "text.txt")], model=str(folder), module=[instead], out=str(tmp_path / "acts.h5")
    )
    assert run(config)["rows"]


def test_a_module_with_whole_numbers_is_refused() -> None:
    host = host_of("llama")
    host.module("model.layers.1.mlp").register_forward_hook(lambda module, inputs, output: output.long())
    with pytest.raises(UsageError, match=r"--module model\.layers\.1\.mlp: its output has whole numbers \(int64\)"):
        host.example(["model.layers.1.mlp"])


def test_of_a_module_that_is_called_twice_the_first_output_is_cached_and_replaced() -> None:
    host = host_of("llama")
    layers = host.model.model.layers
    layers[1] = layers[0]
    tokens_BT = torch.arange(40).reshape(2, 20) % VOCABULARY
    path, seen = host.layer_path(0), []
    for _ in range(2):
        with host.spliced(path, lambda x_BTD: seen.append(x_BTD) or x_BTD):
            host.log_probabilities(tokens_BT)
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], host.capture(tokens_BT, [path])[path])


def test_a_reconstruction_is_not_spliced_into_several_streams() -> None:
    host = Host("gemma3n", "", AutoModelForCausalLM.from_config(gemma3n(VOCABULARY)).eval(), None)
    with (
        pytest.raises(UsageError, match=r"--module model\.layers\.1: .* shape is \(4, 2, 20, 16\)"),
        host.spliced("model.layers.1", torch.zeros_like),
    ):
        host.log_probabilities(torch.arange(40).reshape(2, 20) % VOCABULARY)
