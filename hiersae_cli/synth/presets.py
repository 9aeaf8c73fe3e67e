"""The generator of each preset."""

from __future__ import annotations

import torch

from hiersae_cli.config.synth import Shape, resolve
from hiersae_cli.synth.generator import Generator


def generator(
    preset: str,
    shape: Shape | None = None,
    device: torch.device | str = "cpu",
    directions_ND: torch.Tensor | None = None,
) -> Generator:
    """The generator of a preset, with the sizes that ``shape`` sets.

    Rows are drawn on ``device`` if it is a CUDA device, but the truth is made on the CPU, so that it does not depend on
    the device. ``directions_ND`` may be ``Truth.features_ND`` of an earlier call for the same truth, because the
    directions of many features take long to make. Raises ``UsageError`` for an unknown preset, sizes that do not fit
    together, or a missing package.
    """
    shape = resolve(preset, shape or Shape())
    device = torch.device(device)
    if device.type != "cuda":
        device = torch.device("cpu")  # the random state of other devices cannot be saved and restored
    if preset == "toy":
        from hiersae_cli.synth.toy import ToyGenerator

        return ToyGenerator(shape, device)
    from hiersae_cli.synth.saelens import SAELensGenerator

    return SAELensGenerator(preset, shape, device, directions_ND)
