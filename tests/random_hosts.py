"""Tiny language models with random weights, of several architectures, as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM as AutoModel
from transformers import (
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoConfig,
    OpenAIGPTConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RwkvConfig,
)

from hiersae_cli.host.charlm import character_tokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz ,.\n"
CONTEXT = 32
_RHYME = "the cat and the hat sat on the mat, then the other"
LAYERS = 4
WIDTH = 16


def prose(characters: int, seed: int = 0) -> str:
    """Text over ``ALPHABET`` that does not repeat."""
    generator = torch.Generator().manual_seed(seed)
    return "".join(ALPHABET[i] for i in torch.randint(len(ALPHABET), (characters,), generator=generator).tolist())


def byte_tokenizer(add_bos: bool, text: str = _RHYME) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ``<s>``, which it puts ahead of every text if ``add_bos``, trained on a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 8, trainer)
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def gpt2(vocabulary: int, width: int = WIDTH, context: int = CONTEXT) -> PretrainedConfig:
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=LAYERS,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )


def llama(vocabulary: int, kind: type[PretrainedConfig] = LlamaConfig, **more: Any) -> PretrainedConfig:
    return kind(
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        **more,
    )


CONFIGS = {
    "gpt2": gpt2,
    "llama": lambda v: llama(v, num_key_value_heads=1),
    "mistral": lambda v: llama(v, MistralConfig, num_key_value_heads=1, sliding_window=8),
    "gpt_neox": lambda v: llama(v, GPTNeoXConfig),
}


def opt(vocabulary: int, read: int = WIDTH, norm_first: bool = True) -> PretrainedConfig:
    """``read`` is the width of the embeddings: of OPT-350m it is smaller than that of the residual stream."""
    return OPTConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        ffn_dim=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        word_embed_proj_dim=read,
        do_layer_norm_before=norm_first,
    )


def gemma3_with_images(vocabulary: int) -> PretrainedConfig:
    """The language model is inside a model with as many blocks for images, which have other weights."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS}
    text = {"vocab_size": vocabulary, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": CONTEXT}
    return Gemma3Config(
        text_config={**sizes, **text, "num_attention_heads": 2},
        vision_config={**sizes, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )


def gemma3n(vocabulary: int) -> PretrainedConfig:
    """Each of its blocks returns four streams."""
    return llama(
        vocabulary,
        Gemma3nTextConfig,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size_per_layer_input=vocabulary,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        num_kv_shared_layers=0,
        layer_types=["full_attention"] * LAYERS,
        activation_sparsity_pattern=[0.0] * LAYERS,
    )


def _sized(kind: type[PretrainedConfig], **more: Any) -> Callable[[int], PretrainedConfig]:
    """Of an architecture whose sizes go by the names that the first Hugging Face models gave them."""
    return lambda v: kind(vocab_size=v, hidden_size=WIDTH, num_hidden_layers=LAYERS, **more)


# Architectures that differ in their blocks, their last norm, their unembedding or what comes after it.
FAMILIES: dict[str, Callable[[int], PretrainedConfig]] = {
    **CONFIGS,
    "gemma": lambda v: llama(v, GemmaConfig, num_key_value_heads=1, head_dim=8),
    "gemma2": lambda v: llama(v, Gemma2Config, num_key_value_heads=1, head_dim=8),
    "gemma3": lambda v: llama(v, Gemma3TextConfig, num_key_value_heads=1, head_dim=8),
    "gemma3_with_images": gemma3_with_images,
    "qwen2": lambda v: llama(v, Qwen2Config, num_key_value_heads=1),
    "qwen3": lambda v: llama(v, Qwen3Config, num_key_value_heads=1, head_dim=8),
    "mixtral": lambda v: llama(v, MixtralConfig, num_key_value_heads=1, num_local_experts=2),
    "phi": lambda v: llama(v, PhiConfig),
    "cohere": lambda v: llama(v, CohereConfig, pad_token_id=0),
    "granite": lambda v: llama(v, GraniteConfig, logits_scaling=4.0),
    "olmo": lambda v: llama(v, OlmoConfig),
    "opt": opt,
    "opt_projected": lambda v: opt(v, WIDTH // 2),
    "opt_norm_last": lambda v: opt(v, WIDTH // 2, norm_first=False),
    "bloom": _sized(BloomConfig, n_head=2),
    "falcon": _sized(FalconConfig, num_attention_heads=2),
    "mamba": _sized(MambaConfig, state_size=4),
    "mamba2": _sized(Mamba2Config, state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=16),
    "rwkv": _sized(RwkvConfig, attention_hidden_size=WIDTH, intermediate_size=2 * WIDTH, context_length=CONTEXT),
    "bigcode": lambda v: GPTBigCodeConfig(vocab_size=v, n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=CONTEXT),
    "openai_gpt": lambda v: OpenAIGPTConfig(vocab_size=v, n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=CONTEXT),
}


def random_model(family: str, vocabulary: int, dtype: torch.dtype = torch.float32) -> Any:
    """A model of ``FAMILIES`` with random weights, gains and biases of norms too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(FAMILIES[family](vocabulary)).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
            else:
                parameter.copy_(0.15 * torch.randn_like(parameter))
    return model.to(dtype)


def save(folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Path:
    """A model of ``config`` with random weights and its tokenizer, in ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_host(folder: Path, architecture: str, add_bos: bool = True) -> Path:
    """A model of any architecture of ``CONFIGS`` over bytes."""
    tokenizer = byte_tokenizer(add_bos)
    return save(folder, CONFIGS[architecture](len(tokenizer)), tokenizer)


def character_host(folder: Path, seed: int = 0, width: int = WIDTH, context: int = CONTEXT) -> Path:
    """A GPT-2 over ``ALPHABET``."""
    tokenizer = character_tokenizer(ALPHABET, context)
    return save(folder, gpt2(len(tokenizer), width, context), tokenizer, seed)
