"""Many architectures: the logit lens through their own last layers, their blocks, their padding; what is no host."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
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
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import Activations
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.cache.run import run
from tests.random_hosts import CONTEXT, FAMILIES, LAYERS, WIDTH, byte_tokenizer, llama, prose, random_model, save

VOCABULARY = 61
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
    first = 0 if family in ("mamba", "rwkv") else 1  # the others begin with the embeddings
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
