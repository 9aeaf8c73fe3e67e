"""Common parts of the readers of other tools' dictionaries. Legend of shapes: D width, F latents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.errors import FileError
from hiersae_cli.formats import tensors as tensor_files
from hiersae_cli.formats.atomic import read_json

HINT = "Copy it again from where it was made."


@dataclass(frozen=True)
class ForeignDictionary:
    """A dictionary of another tool, as a model of ours.

    Attributes:
        tool, version, architecture: the tool, and its name for the architecture; the version is "" if it is not given.
        arch, widths, refine, sibling_weight: the configuration of our model that computes the same.
        k: its target L0, by level; None if it is not given.
        tensors: the weights of that model.
        model, module: the activations it reads, in the tool's words; "" if they are not given.
        weights: the file that the tensors come from.
    """

    tool: str
    version: str
    architecture: str
    arch: str
    widths: tuple[int, ...]
    k: tuple[float, ...] | None
    tensors: dict[str, torch.Tensor]
    model: str
    module: str
    weights: Path
    refine: bool = False
    sibling_weight: float = 1.0

    @property
    def width(self) -> int:
        """D."""
        return len(self.tensors["b_dec_D"])


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises ``FileError`` for any other content."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise damaged(path, "not a JSON object")
    try:
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise damaged(path, "it has half of a surrogate pair, which is not valid text") from None
    return config


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; raises ``FileError`` if it is damaged."""
    return tensor_files.read_tensors(path, HINT)


def flat_tensors(
    path: Path,
    *,
    encoder_FD: torch.Tensor,
    encoder_bias_F: torch.Tensor,
    decoder_FD: torch.Tensor,
    decoder_bias_D: torch.Tensor,
    centred: bool = True,
) -> dict[str, torch.Tensor]:
    """Weights under our names, in float32; raises ``FileError`` if they do not fit together or are not finite.

    Rows of the decoder keep their length, so that codes stay the same. If the tool does not subtract the decoder's bias
    from the input (not ``centred``), it goes into the encoder's bias.
    """
    tensors = {
        "W_enc_FD": encoder_FD.float().contiguous(),
        "b_enc_F": encoder_bias_F.float(),
        "W_dec_FD": decoder_FD.float().contiguous(),
        "b_dec_D": decoder_bias_D.float(),
        "threshold_L": torch.zeros(1),
    }
    latents, width = tensors["W_dec_FD"].shape if tensors["W_dec_FD"].dim() == 2 else (0, 0)
    shapes = {"W_enc_FD": (latents, width), "b_enc_F": (latents,), "W_dec_FD": (latents, width), "b_dec_D": (width,)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape or not latents:
            raise damaged(path, f"its weights do not fit together: {name} has the shape {tuple(tensors[name].shape)}")
    if not centred:
        shift_F = tensors["W_enc_FD"].double() @ tensors["b_dec_D"].double()
        tensors["b_enc_F"] = (tensors["b_enc_F"].double() + shift_F).float()
    check_finite(path, tensors)
    return tensors


def check_finite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ``FileError`` if a number is not finite."""
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise damaged(path, f"{name} is not finite")


def jump_thresholds(path: Path, threshold: torch.Tensor, latents: int) -> torch.Tensor:
    """Thresholds (F,) of ``jumprelu`` from one or (F,) of them; a threshold below 0 acts as ReLU does."""
    if threshold.shape not in ((), (1,), (latents,)):
        raise damaged(path, f"the threshold has the shape {tuple(threshold.shape)}")
    return threshold.float().clamp_min(0).expand(latents).clone()


def energy_above(activation: float) -> float:
    """The least t in float32 such that z^2 >= t exactly if z exceeds ``activation``."""
    return float(np.square(np.nextafter(np.float32(activation), np.float32(np.inf))))


def activation_below(energy: float) -> float:
    """The largest t in float32 such that z > t exactly if z^2 >= ``energy``."""
    least = np.sqrt(np.float32(energy))
    while least > 0 and np.square(np.nextafter(least, np.float32(0))) >= np.float32(energy):
        least = np.nextafter(least, np.float32(0))
    while np.square(least) < np.float32(energy):
        least = np.nextafter(least, np.float32(np.inf))
    return float(np.nextafter(least, np.float32(0)))


def damaged(path: Path, what: str) -> FileError:
    """The error for weights that cannot be read."""
    return FileError(f"{path}: damaged: {what}", HINT)


def unsupported(path: Path, what: str, hint: str) -> FileError:
    """The error for a dictionary that a run cannot hold."""
    return FileError(f"{path}: {what}, which a run cannot hold", hint)
