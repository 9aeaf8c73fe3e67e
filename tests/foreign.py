"""Dictionaries as other tools save them, with random weights, and what such a tool computes from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LATENTS, K = 48, 5
SAELENS_VERSION = "6.54.0"


@dataclass
class Foreign:
    """A dictionary of another tool: its folder, and what it computes, as its authors define it.

    ``arch`` is the architecture that a run of ours has for it.
    """

    path: Path
    arch: str
    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Weights:
    """Random ones, rows of the decoder of any length: (D, F), (F,), (F, D), (D,), and thresholds (F,)."""

    encoder_DF: torch.Tensor
    encoder_bias_F: torch.Tensor
    decoder_FD: torch.Tensor
    decoder_bias_D: torch.Tensor
    threshold_F: torch.Tensor

    def saelens(self) -> dict[str, torch.Tensor]:
        return {
            "W_enc": self.encoder_DF,
            "b_enc": self.encoder_bias_F,
            "W_dec": self.decoder_FD,
            "b_dec": self.decoder_bias_D,
        }


def weights(x_ND: torch.Tensor, seed: int = 0) -> Weights:
    """Such that latents fire on activations like ``x_ND`` in a part of the rows."""
    generator = torch.Generator().manual_seed(seed)
    width = x_ND.shape[1]
    decoder_FD = torch.randn(LATENTS, width, generator=generator) * torch.rand(LATENTS, 1, generator=generator)
    encoder_FD = decoder_FD / x_ND.std()
    pre_NF = (x_ND - x_ND.mean(0)) @ encoder_FD.T
    return Weights(
        encoder_FD.T.contiguous(),
        0.1 * torch.randn(LATENTS, generator=generator),
        decoder_FD,
        x_ND.mean(0),
        pre_NF.quantile(0.8, dim=0).clamp_min(0),
    )


def top(pre_BF: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest of each row, the others 0."""
    values, places = pre_BF.topk(k, dim=1)
    return torch.zeros_like(pre_BF).scatter(1, places, values)


def saelens_folder(path: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """A folder of SAELens; ``config`` on top of what its files say at least."""
    path.mkdir(parents=True)
    latents, width = tensors["W_dec"].shape
    metadata = {"sae_lens_version": SAELENS_VERSION} | config.pop("metadata", {})
    config = {"architecture": "standard", "d_in": width, "d_sae": latents, "dtype": "float32", **config}
    (path / "cfg.json").write_text(json.dumps({**config, "metadata": metadata}))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "sae_weights.safetensors")
    return path


def sparsify_folder(path: Path, made: Weights, **config: Any) -> Foreign:
    """A folder of sparsify."""
    path.mkdir(parents=True)
    config = {"activation": "topk", "expansion_factor": 32, "num_latents": LATENTS, "k": K, **config}
    (path / "cfg.json").write_text(json.dumps({**config, "d_in": len(made.decoder_bias_D)}))
    tensors = {
        "encoder.weight": made.encoder_DF.T,
        "encoder.bias": made.encoder_bias_F,
        "W_dec": made.decoder_FD,
        "b_dec": made.decoder_bias_D,
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "sae.safetensors")

    def encode(x_BD: torch.Tensor) -> torch.Tensor:
        return top(((x_BD - made.decoder_bias_D) @ made.encoder_DF + made.encoder_bias_F).relu(), K)

    return Foreign(path, "topk", encode, lambda code_BF: code_BF @ made.decoder_FD + made.decoder_bias_D)


DICTIONARY_CLASSES = {
    "AutoEncoder": "jumprelu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
}
GROUPS = [8, 16, 24]


def dictionary_state(name: str, made: Weights) -> dict[str, torch.Tensor]:
    """The state dictionary of a class of dictionary_learning."""
    threshold = made.threshold_F.median()
    if name in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        state = made.saelens()
    else:
        state = {
            "encoder.weight": made.encoder_DF.T.contiguous(),
            "encoder.bias": made.encoder_bias_F,
            "decoder.weight": made.decoder_FD.T.contiguous(),
            "bias" if name == "AutoEncoder" else "b_dec": made.decoder_bias_D,
        }
    if name == "JumpReluAutoEncoder":
        state["threshold"] = made.threshold_F
    elif name != "AutoEncoder":
        state |= {"k": torch.tensor(K, dtype=torch.int), "threshold": threshold}
    if name == "MatryoshkaBatchTopKSAE":
        state["group_sizes"] = torch.tensor(GROUPS)
    return state


def dictionary_folder(path: Path, name: str, made: Weights, **trainer: Any) -> Foreign:
    """A folder of dictionary_learning."""
    path.mkdir(parents=True)
    state = dictionary_state(name, made)
    torch.save(state, path / "ae.pt")
    config = {"dict_class": name, "activation_dim": len(made.decoder_bias_D), "dict_size": LATENTS, **trainer}
    (path / "config.json").write_text(json.dumps({"trainer": config}))

    def encode(x_BD: torch.Tensor) -> torch.Tensor:
        # Of JumpReluAutoEncoder the bias is not taken from the input.
        centred_BD = x_BD if name == "JumpReluAutoEncoder" else x_BD - made.decoder_bias_D
        pre_BF = (centred_BD @ made.encoder_DF + made.encoder_bias_F).relu()
        if name == "AutoEncoderTopK":
            return top(pre_BF, K)
        return pre_BF if name == "AutoEncoder" else pre_BF * (pre_BF > state["threshold"])

    return Foreign(
        path, DICTIONARY_CLASSES[name], encode, lambda code_BF: code_BF @ made.decoder_FD + made.decoder_bias_D
    )
