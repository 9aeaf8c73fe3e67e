"""A model whose last level is split over ranks: what each rank has, and how the parts make one model again.

Every rank has all latents of the levels before the last, so each latent is on a rank that has its parent. A flat
dictionary has only a last level.

Legend of shapes: F latents of this rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from itertools import accumulate

import torch

from hiersae_cli.config.architectures import ARCHITECTURES
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.distributed.ranks import Mesh, Ranks
from hiersae_cli.errors import UsageError
from hiersae_cli.sae import build
from hiersae_cli.sae.base import SparseAutoencoder
from hiersae_cli.sae.training import Trainer

Runs = list[tuple[int, int]]  # the first row of each part of a tensor of the whole model, and the one past its last


class Split:
    """Which latents of a model one of several ranks has.

    Args:
        config: of the whole model.
        ranks: the ranks that the last level is split over.

    Attributes:
        runs: the latents of this rank, as the whole model numbers them.
        shared: the latents that every rank has: those before this one.
        widths: ``config.widths`` as far as they are on this rank.

    Raises ``UsageError`` for options that need the whole model on every rank.
    """

    def __init__(self, config: TrainConfig, ranks: Ranks):
        self.ranks = ranks
        ends = list(accumulate(config.widths))
        whole_levels = len(ends) - 1 if ARCHITECTURES[config.arch].levels else 0
        self.shared = ends[whole_levels - 1] if whole_levels else 0
        self.runs: Runs = [(0, self.shared)] if whole_levels else []
        self.widths = config.widths[:whole_levels]
        for end, width in zip(ends[whole_levels:], config.widths[whole_levels:], strict=True):
            part = ranks.part(width)
            self.runs.append((end - width + part.start, end - width + part.stop))
            self.widths += (part.stop - part.start,)
        if ranks.count > min(config.widths[whole_levels:]):
            raise UsageError(f"--parallel tree: {ranks.count} ranks cannot share {config.widths[-1]} latents")
        if ARCHITECTURES[config.arch].levels and (config.relevel or config.phases.closed >= 1):
            what = "--relevel" if config.relevel else "--curriculum closed=1"
            raise UsageError(f"{what}: not with --parallel tree", "Use --parallel data.")

    def runs_of(self, name: str, trainer: Trainer) -> Runs | None:
        """The rows of a tensor of ``Trainer.state`` that this rank has; None if every rank has the whole tensor."""
        group, _, member = name.partition(".")
        counts = f"counts.{len(self.widths) - 2}."
        if group == "model" and member in (counts + "child_F", counts + "both_FP"):
            return [(start - self.shared, stop - self.shared) for start, stop in self.runs[1:]]
        if group == "adam":
            number, slot = member.split(".")
            parameter = trainer.optimizer.param_groups[0]["params"][int(number)]
            by_latent = slot != "step" and any(parameter is other for other in trainer.model.per_latent())
        else:
            matrices = member.endswith(("_F", "_FD")) and "counts." not in member
            by_latent = name == "silent" or (group == "model" and matrices) or (group == "rows" and member != "steps")
        return self.runs if by_latent else None

    def pieces(self, tensors: Mapping[str, torch.Tensor], trainer: Trainer) -> dict[str, torch.Tensor]:
        """What this rank adds to a checkpoint: its rows of every tensor, by the tensor's name and ``[first:end]``.

        Tensors and rows that all ranks have are only among those of the first rank.
        """
        named: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            runs, row = self.runs_of(name, trainer), 0
            if runs is None:
                named |= {name: tensor} if self.ranks.rank == 0 else {}
                continue
            for start, stop in runs:
                if self.ranks.rank == 0 or start >= self.shared or "counts." in name:
                    named[f"{name}[{start}:{stop}]"] = tensor[row : row + stop - start]
                row += stop - start
        return named


def build_part(config: TrainConfig, width: int, mesh: Mesh) -> tuple[SparseAutoencoder, Split | None]:
    """The untrained model of this rank, and which latents it has; None if it has all."""
    if mesh.latents.count == 1:
        model, split = build(config, width), None
    else:
        split = Split(config, mesh.latents)
        options = copy(config)
        options.widths = split.widths
        model = build(options, width)
        model.place_F = torch.cat([torch.arange(*run) for run in split.runs])
        model.whole_width = config.widths[-1] if ARCHITECTURES[config.arch].levels else sum(config.widths)
        model.whole_latents = sum(config.widths)
    model.mesh = mesh
    return model, split
