"""sparsify's folders: ``cfg.json`` and ``sae.safetensors``, one dictionary of top-k latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hiersae_cli.errors import UsageError
from hiersae_cli.formats.atomic import write_json
from hiersae_cli.formats.dictionaries.base import (
    ForeignDictionary,
    damaged,
    flat_tensors,
    read_config,
    read_tensors,
    unsupported,
)
from hiersae_cli.formats.run import Run
from hiersae_cli.formats.tensors import save_tensors

TOOL, WEIGHTS = "sparsify", "sae.safetensors"
_CONFIG = "cfg.json"


def read(path: Path) -> ForeignDictionary:
    """A sparse coder; raises ``FileError`` for transcoders, skip connections and activations other than top-k."""
    config, file = read_config(path / _CONFIG), path / WEIGHTS
    for key in ("transcode", "skip_connection", "signed"):
        if config.get(key):
            raise unsupported(path / _CONFIG, f"it has {key}", "Only autoencoders of top-k latents can be converted.")
    if (activation := config.get("activation", "topk")) != "topk":
        raise unsupported(path / _CONFIG, f"its activation is {activation}", "Only topk can be converted.")
    tensors = read_tensors(file)
    try:
        weights = flat_tensors(
            file,
            encoder_FD=tensors["encoder.weight"],
            encoder_bias_F=tensors["encoder.bias"],
            decoder_FD=tensors["W_dec"],
            decoder_bias_D=tensors["b_dec"],
        )
    except KeyError as error:
        raise damaged(file, f"it has no {error.args[0]}") from None
    latents, k = len(weights["b_enc_F"]), config.get("k")
    if not isinstance(k, int) or not 0 < k <= latents:
        raise damaged(path / _CONFIG, f"k is {k!r}, of {latents:,} latents")
    # A folder has the name of its module.
    module = path.resolve().name if "." in path.resolve().name else ""
    return ForeignDictionary(TOOL, "", "topk", "topk", (latents,), (k,), weights, "", module, file)


def write(folder: Path, run: Run) -> None:
    """Write a run; raises ``UsageError`` for architectures other than ``topk`` and for two passes."""
    config, tensors = run.config, run.model.state_dict()
    if config.arch != "topk" or config.refine:
        what = f"{run.path}: {config.arch}{' with --refine' * config.refine}; sparsify knows top-k latents of one pass"
        raise UsageError(what, "Write it with --to sae-lens, or train with --arch topk.")
    latents, width = tensors["W_dec_FD"].shape
    unit = bool(torch.allclose(tensors["W_dec_FD"].norm(dim=1), torch.ones(latents), atol=1e-4))
    described: dict[str, Any] = {
        "activation": "topk",
        "expansion_factor": max(1, latents // width),
        "normalize_decoder": unit,
        "num_latents": latents,
        "k": int(config.k[0]),
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": width,
    }
    weights = {
        "encoder.weight": tensors["W_enc_FD"],
        "encoder.bias": tensors["b_enc_F"],
        "W_dec": tensors["W_dec_FD"],
        "b_dec": tensors["b_dec_D"],
    }
    save_tensors(folder / WEIGHTS, weights, {})
    write_json(folder / _CONFIG, described)
