"""dictionary_learning's folders: ``ae.pt``, a state dictionary, and ``config.json``. Read, not written."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from hiersae_cli.formats.dictionaries.base import (
    ForeignDictionary,
    check_finite,
    damaged,
    energy_above,
    flat_tensors,
    jump_thresholds,
    read_config,
    unsupported,
)

TOOL, WEIGHTS = "dictionary_learning", "ae.pt"
_CONFIG = "config.json"
_CLASSES = ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")


def read(path: Path) -> ForeignDictionary:
    """A dictionary of one of ``_CLASSES``; raises ``FileError`` for others, and if thresholds were never set."""
    file = path / WEIGHTS
    config = read_config(path / _CONFIG)
    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or "dict_class" not in trainer:
        raise damaged(path / _CONFIG, "it does not say trainer.dict_class")
    name = trainer["dict_class"]
    if name not in _CLASSES:
        raise unsupported(path / _CONFIG, f"its class is {name}", f"Supported classes: {', '.join(_CLASSES)}.")
    state = _state(file)
    try:
        arch, widths, k, tensors = _converted(file, name, state, trainer)
    except KeyError as error:
        raise damaged(file, f"it has no {error.args[0]}, which {name} has") from None
    except RuntimeError as error:
        raise damaged(file, str(error)) from None
    check_finite(file, tensors)
    module = trainer.get("submodule_name") or (f"layer {trainer['layer']}" if "layer" in trainer else "")
    model = str(trainer.get("lm_name") or "")
    return ForeignDictionary(TOOL, "", name, arch, widths, k, tensors, model, str(module), file)


def _state(file: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # Anything else in a pickle is refused, with a message of many lines.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise damaged(file, f"not a state dictionary of only tensors ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise damaged(file, "not a state dictionary of only tensors")
    return state


def _converted(
    file: Path, name: str, state: dict[str, torch.Tensor], trainer: dict[str, Any]
) -> tuple[str, tuple[int, ...], tuple[float, ...] | None, dict[str, torch.Tensor]]:
    """Architecture, widths, k and tensors of our model."""
    if name in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        encoder_FD, encoder_bias_F, decoder_FD = state["W_enc"].t(), state["b_enc"], state["W_dec"]
    else:
        encoder_FD, encoder_bias_F = state["encoder.weight"], state["encoder.bias"]
        decoder_FD = state["decoder.weight"].t()
    tensors = flat_tensors(
        file,
        encoder_FD=encoder_FD,
        encoder_bias_F=encoder_bias_F,
        decoder_FD=decoder_FD,
        decoder_bias_D=state["bias" if name == "AutoEncoder" else "b_dec"],
        centred=name != "JumpReluAutoEncoder",
    )
    latents = len(tensors["b_enc_F"])
    if name in ("AutoEncoder", "JumpReluAutoEncoder"):
        threshold = state["threshold"] if name == "JumpReluAutoEncoder" else torch.zeros(())
        return "jumprelu", (latents,), None, {**tensors, "threshold_F": jump_thresholds(file, threshold, latents)}
    k = int(state["k"]) if "k" in state else trainer["k"]
    if not 0 < k <= latents:
        raise damaged(file, f"k is {k}, of {latents:,} latents")
    if name == "AutoEncoderTopK":
        return "topk", (latents,), (k,), tensors
    least = float(state["threshold"])
    if least < 0:
        hint = "Train it past the step threshold_start_step: before that it has no threshold."
        raise unsupported(file, "its threshold was never set", hint)
    tensors["threshold_L"] = torch.tensor([energy_above(least)])
    if name == "BatchTopKSAE":
        return "batchtopk", (latents,), (k,), tensors
    groups = tuple(int(size) for size in state["group_sizes"])
    if sum(groups) != latents or min(groups) < 1:
        raise damaged(file, f"its groups {groups} do not add up to {latents:,} latents")
    if len(groups) == 1:
        return "batchtopk", groups, (k,), tensors
    return "matryoshka", groups, (k,), tensors
