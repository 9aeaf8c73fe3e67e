"""The generator that each preset stands for."""

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
    """The generator of a preset, with the sizes of ``shape`` where it gives any.

    The truth is made on the CPU, so that it does not depend on ``device``, on which rows are drawn if it is a CUDA
    device. ``directions_ND`` is ``Truth.features_ND`` of an earlier call for the same truth: of many features
    the directions take long to make. Raises ``UsageError`` for an unknown preset, sizes that do not fit together, or a
    missing package.
    """
    shape = resolve(preset, shape or Shape())
    device = torch.device(device)
    if device.type != "cuda":
        device = torch.device("cpu")  # other devices have random states that cannot be set apart
    if preset == "toy":
        from hiersae_cli.synth.toy import ToyGenerator

        return ToyGenerator(shape, device)
    from hiersae_cli.synth.saelens import SAELensGenerator

    return SAELensGenerator(preset, shape, device, directions_ND)
