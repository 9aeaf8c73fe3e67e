"""A Hugging Face folder of a Llama, written as a GGUF file as llama.cpp's converter does."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.host.model import Host

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    folder: Path,
    file: Path,
    quantized: Collection[str] = (),
    without: Collection[str] = (),
    architecture: str = "llama",
) -> Path:
    """Write ``file``.

    Args:
        quantized: endings of the tensors to store as Q8_0; their rows have a multiple of 32 numbers.
        without: endings of the tensors to leave out.
        architecture: what the file says it holds.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quantize

    host = Host.load(str(folder), torch.device("cpu"))
    config = host.model.config
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    writer = GGUFWriter(file, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_tokenizer(writer, host.tokenizer)
    for name, tensor in host.model.state_dict().items():
        new = _new_name(name)
        if new.endswith(tuple(without)):
            continue
        data = tensor.numpy()
        if "attn_q" in new or "attn_k" in new:
            data = _interleaved(data, heads if "attn_q" in new else key_heads)
        if new.endswith(tuple(quantized)):
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(new, quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(new, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: Any, tokenizer: Any) -> None:
    from gguf import TokenType

    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
    writer.add_token_types([TokenType.CONTROL if id in special else TokenType.NORMAL for id in range(len(tokenizer))])
    pairs = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)


def _new_name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, _, block, part = name.split(".", 3)
    return f"blk.{block}.{_PARTS[part.removesuffix('.weight')]}.weight"


def _interleaved(data: np.ndarray, heads: int) -> np.ndarray:
    """Rows in llama.cpp's order, in which the two halves of a rotation are next to each other."""
    rows, columns = data.shape
    return np.ascontiguousarray(
        data.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )
