"""SAELens' folders (version 6): ``cfg.json`` and ``sae_weights.safetensors``. Legend of shapes: see ``base``.

A hierarchical model is written as the architecture ``hiersae``: ``hiersae_cli.saelens`` makes SAELens know it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import write_json
from hiersae_cli.formats.dictionaries.base import (
    ForeignDictionary,
    activation_below,
    check_finite,
    damaged,
    flat_tensors,
    jump_thresholds,
    read_config,
    read_tensors,
    unsupported,
)
from hiersae_cli.formats.places import hook_name
from hiersae_cli.formats.run import Run
from hiersae_cli.formats.tensors import save_tensors
from hiersae_cli.levels import MOST_LEVELS, Levels
from hiersae_cli.sae import HierarchicalSAE
from hiersae_cli.version import __version__

TOOL, WEIGHTS = "SAELens", "sae_weights.safetensors"
ARCHITECTURE = "hiersae"
VERSION = "6.54.0"  # of the files that are read and written
# Tensors of ``hiersae`` that other architectures lack: our names, and their names in SAELens.
OWN_TENSORS = {
    "threshold_L": "threshold",
    "price_on_F": "price_on",
    "price_off_F": "price_off",
    "refine_F": "refine",
    "b_refine_F": "b_refine",
    "threshold_first_L": "threshold_first",
}
_CONFIG, _SCALE = "cfg.json", "activation_scaler.json"
_READ = ("standard", "topk", "jumprelu", ARCHITECTURE)
_TRAINING = ("batchtopk", "matryoshka_batchtopk")  # architectures that only training checkpoints have


def read(path: Path) -> ForeignDictionary:
    """A dictionary of SAELens; raises ``FileError`` if a run cannot hold it, and for versions before 6."""
    config, file = read_config(path / _CONFIG), path / WEIGHTS
    metadata = config.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    architecture, version = str(config.get("architecture")), str(metadata.get("sae_lens_version") or "")
    _check(path / _CONFIG, config, architecture, version)
    tensors = read_tensors(file)
    try:
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        encoder_FD, decoder_FD = tensors["W_enc"].t(), tensors["W_dec"]
        encoder_bias_F, decoder_bias_D = tensors["b_enc"], tensors["b_dec"]
        if config.get("rescale_acts_by_decoder_norm"):
            norm_F = decoder_FD.norm(dim=-1)
            encoder_FD, encoder_bias_F = encoder_FD * norm_F[:, None], encoder_bias_F * norm_F
            decoder_FD = decoder_FD / norm_F[:, None]
        # SAELens multiplies its input by the scale and divides its output by it; the weights take over both.
        scale = _scale(path, config)
        weights = flat_tensors(
            file,
            encoder_FD=encoder_FD * scale,
            encoder_bias_F=encoder_bias_F,
            decoder_FD=decoder_FD / scale,
            decoder_bias_D=decoder_bias_D / scale,
            centred=bool(config.get("apply_b_dec_to_input", True)),
        )
        arch, widths, k, selection = _selection(path, architecture, config, metadata, tensors)
    except KeyError as error:
        raise damaged(file, f"it has no {error.args[0]}") from None
    except RuntimeError as error:
        raise damaged(file, str(error)) from None
    weights |= selection
    check_finite(file, weights)
    return ForeignDictionary(
        TOOL,
        version,
        architecture,
        arch,
        widths,
        k,
        weights,
        model=str(metadata.get("model_name") or ""),
        module=str(metadata.get("hook_name") or ""),
        weights=file,
        refine=arch == "hier" and bool(config.get("refine")),
        sibling_weight=_sibling_weight(path, config) if arch == "hier" else 1.0,
    )


def _sibling_weight(path: Path, config: dict[str, Any]) -> float:
    weight = config.get("sibling_weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 1 <= weight < math.inf:
        raise damaged(path, f"sibling_weight cannot be {weight!r}")
    return float(weight)


def write(folder: Path, run: Run) -> None:
    """Write a run: ``topk`` as ``topk``, other flat ones as ``jumprelu``, ``hier`` as ``hiersae``.

    Raises ``UsageError`` if SAELens has no such architecture, as for a flat run of two passes.
    """
    if run.config.refine and run.config.arch != "hier":
        what = f"{run.path}: {run.config.arch} with --refine; SAELens has no architecture of two passes"
        raise UsageError(what, "Train without --refine.")
    tensors = {name: tensor.cpu() for name, tensor in run.model.state_dict().items()}
    weights = {
        "W_enc": tensors["W_enc_FD"].t(),
        "b_enc": tensors["b_enc_F"],
        "W_dec": tensors["W_dec_FD"],
        "b_dec": tensors["b_dec_D"],
    }
    config: dict[str, Any] = {
        "architecture": "jumprelu",
        "d_in": run.model.width,
        "d_sae": run.model.latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": _metadata(run),
    }
    if isinstance(run.model, HierarchicalSAE):
        config |= {"architecture": ARCHITECTURE, "refine": run.config.refine, "hard": bool(run.model.hard)}
        config["sibling_weight"] = run.config.sibling_weight
        weights |= {theirs: tensors[ours] for ours, theirs in OWN_TENSORS.items() if ours in tensors}
    elif run.config.arch == "topk":
        config |= {"architecture": "topk", "k": int(run.config.k[0]), "rescale_acts_by_decoder_norm": False}
    elif run.config.arch == "jumprelu":
        weights["threshold"] = tensors["threshold_F"]
    elif run.config.arch in ("batchtopk", "matryoshka"):
        weights["threshold"] = torch.full_like(tensors["b_enc_F"], activation_below(float(tensors["threshold_L"])))
    else:
        raise UsageError(f"{run.path}: SAELens has no architecture for {run.config.arch}", "Write it for another tool.")
    save_tensors(folder / WEIGHTS, weights, {})
    write_json(folder / _CONFIG, config)


def _check(path: Path, config: dict[str, Any], architecture: str, version: str) -> None:
    """Raise ``FileError`` if the configuration shows that a dictionary cannot be converted."""
    major = re.match(r"\d+", version)
    if not (major and int(major[0]) >= 6) and not _has_layout_of_6(config):
        origin = f"comes from SAELens {ascii(version)[1:-1]}" if version else "does not say its version of SAELens"
        raise FileError(f"{path}: {origin}; versions from 6 on are read", "Load it with SAELens 6 and save it again.")
    if architecture in _TRAINING:
        raise unsupported(
            path, f"it is a checkpoint of training {architecture}", "Save it with save_inference_model of SAELens."
        )
    if architecture not in _READ:
        known = ", ".join(_READ)
        raise unsupported(path, f"its architecture is {architecture}", f"Supported architectures: {known}.")
    if (reshape := config.get("reshape_activations", "none")) != "none":
        raise unsupported(path, f"it reshapes activations ({reshape})", "Its input is not a module's plain output.")
    norm = config.get("normalize_activations", "none")
    if norm not in ("none", "expected_average_only_in"):
        raise unsupported(path, f"it normalises activations ({norm})", "Only a constant scale can be converted.")


def _has_layout_of_6(config: dict[str, Any]) -> bool:
    """Whether the fields have the layout of version 6, which saves an older dictionary with its old version number."""
    metadata = config.get("metadata")
    says_more = isinstance(metadata, dict) and any(
        value is not None for name, value in metadata.items() if name != "sae_lens_version"
    )
    return says_more and not any(name in config for name in ("hook_name", "hook_point", "activation_fn_str"))


def _scale(path: Path, config: dict[str, Any]) -> float:
    """The factor by which SAELens multiplies activations."""
    if config.get("normalize_activations", "none") == "none":
        return 1.0
    file = path / _SCALE
    scale = read_config(file).get("scaling_factor") if file.exists() else None
    if not isinstance(scale, (int, float)) or scale <= 0:
        raise FileError(
            f"{path / _CONFIG}: it scales activations by a factor that the folder does not hold",
            f"Put {_SCALE} of its training next to it, or fold the factor with "
            "fold_activation_norm_scaling_factor of SAELens and save it again.",
        )
    return float(scale)


def _selection(
    path: Path, architecture: str, config: dict[str, Any], metadata: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> tuple[str, tuple[int, ...], tuple[float, ...] | None, dict[str, torch.Tensor]]:
    """Architecture, widths and k of our model, and the tensors that decide which latents are active."""
    latents = len(tensors["b_enc"])
    if architecture == ARCHITECTURE:
        return _hierarchy(path, config, metadata, tensors)
    if architecture == "topk":
        k = config.get("k")
        if not isinstance(k, int) or not 0 < k <= latents:
            raise damaged(path / _CONFIG, f"k is {k!r}, of {latents:,} latents")
        return "topk", (latents,), (k,), {}
    if architecture == "standard":
        return "jumprelu", (latents,), None, {"threshold_F": torch.zeros(latents)}
    # BatchTopK and Matryoshka are saved as jumprelu, with their target L0.
    details = metadata.get("training_architecture_details")
    target = details.get("k") if isinstance(details, dict) else None
    k = (target,) if isinstance(target, (int, float)) and 0 < target <= latents else None
    threshold_F = jump_thresholds(path / WEIGHTS, tensors["threshold"], latents)
    return "jumprelu", (latents,), k, {"threshold_F": threshold_F}


def _hierarchy(
    path: Path, config: dict[str, Any], metadata: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> tuple[str, tuple[int, ...], tuple[float, ...], dict[str, torch.Tensor]]:
    """The same for a hierarchical model that ``write`` wrote."""
    try:
        widths, parents = (tuple(map(int, metadata["tree"][name])) for name in ("widths", "parent"))
        k = tuple(metadata["hiersae"]["k"])
    except (KeyError, TypeError, ValueError):
        raise damaged(path / _CONFIG, "its metadata holds no tree") from None
    fitting = sum(widths) == len(parents) == len(tensors["b_enc"]) and len(k) == len(widths) <= MOST_LEVELS
    if not fitting or Levels.of(widths).misplaced(parents) is not None:
        raise damaged(path / _CONFIG, "its tree does not fit its latents")
    selection = {ours: tensors[theirs] for ours, theirs in OWN_TENSORS.items() if theirs in tensors}
    selection |= {"parent_F": torch.tensor(parents), "hard": torch.tensor(bool(config.get("hard")))}
    return "hier", widths, k, selection


def _metadata(run: Run) -> dict[str, Any]:
    """The activations in SAELens' words, and the run; for a hierarchical run also the tree."""
    host = run.header["host"]
    model_class, hook = hook_name(run.module, host)
    metadata: dict[str, Any] = {
        "sae_lens_version": VERSION,
        "sae_lens_training_version": None,
        "model_name": host["name"],
        "model_class_name": model_class,
        "hook_name": hook,
        "hf_hook_name": run.module,
        "hook_head_index": None,
        "context_size": host.get("context"),
        "prepend_bos": host.get("bos") is not None,
        "hiersae": {
            "version": __version__,
            "run": run.name,
            "sha256": run.sha256,
            "arch": run.config.arch,
            "widths": list(run.config.widths),
            "k": list(run.config.k),
        },
    }
    if isinstance(run.model, HierarchicalSAE):
        metadata["tree"] = {"widths": list(run.config.widths), "parent": run.model.parent_F.tolist()}
    return metadata
