"""Reconstruction and sparsity, from sums for each block of documents.

Legend of shapes: B rows of a batch, D width, F latents, E edges and P parents of a tree, K blocks, n weightings of the
blocks.

Definitions:
    FVU = sum ||x - x_hat||^2 / (sum ||x||^2 - ||sum x||^2 / N), a ratio of sums over the whole sample;
    EV = 1 - FVU; L0 = active latents per row; dead = share of latents never active in the sample (see docs/metrics.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import NONE, Firings, add_by_block
from hiersae_cli.sae.kernels.sparse import Pattern, dots

Statistic = Callable[[np.ndarray], np.ndarray]


class DataSums:
    """Sums over the activations, which do not depend on the model: all runs of a report share them."""

    summed = ("rows_K", "square_K", "sum_KD")  # here and below: see ``workflows.common.sharing``

    def __init__(self, blocks: int, width: int):
        self.rows_K = np.zeros(blocks)
        self.square_K = np.zeros(blocks)
        self.sum_KD = np.zeros((blocks, width))

    def add(self, x_BD: torch.Tensor, block_B: torch.Tensor) -> None:
        """Add a batch whose rows belong to the blocks ``block_B``."""
        self.rows_K += by_block(torch.ones_like(block_B, dtype=torch.float64), block_B, len(self.rows_K))
        x_BD = x_BD.double()
        self.square_K += by_block(x_BD.square().sum(1), block_B, len(self.rows_K))
        self.sum_KD += by_block(x_BD, block_B, len(self.rows_K))

    def variance(self, weights_nK: np.ndarray) -> np.ndarray:
        """Summed squared deviation from the mean, for each weighting of the blocks, (n,)."""
        rows = weights_nK @ self.rows_K
        return weights_nK @ self.square_K - np.square(weights_nK @ self.sum_KD).sum(1) / rows


class Moments:
    """Mean and covariance of the activations.

    Args:
        centre_D: a point near the mean, subtracted before squaring, for precision.
    """

    summed = ("rows", "sum_D", "square_DD")

    def __init__(self, centre_D: torch.Tensor):
        self.centre_D = centre_D
        self.rows = 0
        self.sum_D = torch.zeros(len(centre_D), dtype=torch.float64)
        self.square_DD = torch.zeros(len(centre_D), len(centre_D), dtype=torch.float64)

    def add(self, x_BD: torch.Tensor) -> None:
        """Add a batch."""
        y_BD = x_BD - self.centre_D.to(x_BD)
        self.rows += len(y_BD)
        self.sum_D += y_BD.sum(0).cpu()
        self.square_DD += (y_BD.T @ y_BD).cpu()

    @property
    def mean_D(self) -> torch.Tensor:
        """The mean, float64."""
        return self.centre_D.double() + self.sum_D / self.rows

    @property
    def covariance_DD(self) -> torch.Tensor:
        """The covariance, float64."""
        mean_D = self.sum_D / self.rows
        return self.square_DD / self.rows - torch.outer(mean_D, mean_D)


class CodeSums:
    """Sums over the codes and reconstructions of a model."""

    summed = ("error_K", "fired_KF")

    def __init__(self, blocks: int, widths: tuple[int, ...]):
        self.levels = Levels.of(widths)
        self.error_K = np.zeros(blocks)
        self.fired_KF = np.zeros((blocks, self.levels.latents), np.float32)

    def add(self, x_BD: torch.Tensor, firings: Firings, reconstruction_BD: torch.Tensor, block_B: torch.Tensor) -> None:
        """Add a batch."""
        self.error_K += by_block((x_BD - reconstruction_BD).double().square().sum(1), block_B, len(self.error_K))
        add_by_block(self.fired_KF, block_B.cpu().numpy()[firings.row_n], firings.latent_n)

    def statistics(self, data: DataSums) -> dict[str, Statistic]:
        """Every metric of the codes by name, as a function of the weightings of the blocks, (n, K) to (n,)."""
        levels = range(len(self.levels.widths)) if len(self.levels.widths) > 1 else ()
        return {
            "fvu": partial(self.fvu, data),
            "ev": lambda weights_nK: 1 - self.fvu(data, weights_nK),
            "l0": partial(self.l0, data),
            **{f"l0_level_{level}": partial(self.l0, data, level=level) for level in levels},
        }

    def dead(self) -> int:
        """The number of latents that never fired."""
        return int((self.fired_KF.sum(0) == 0).sum())

    def fvu(self, data: DataSums, weights_nK: np.ndarray) -> np.ndarray:
        """FVU for each weighting of the blocks, (n,)."""
        return (weights_nK @ self.error_K) / data.variance(weights_nK)

    def l0(self, data: DataSums, weights_nK: np.ndarray, level: int | None = None) -> np.ndarray:
        """L0 of a level, or of all levels, for each weighting of the blocks, (n,)."""
        part = slice(None) if level is None else self.levels.slices[level]
        return (weights_nK @ self.fired_KF[:, part].sum(1, dtype=float)) / (weights_nK @ data.rows_K)


class EdgeSums:
    """Counts for a fixed tree: firings of each child together with its parent, and of any child of a parent.

    Args:
        blocks: K.
        parent_F: index of each latent's parent, or ``NONE``.

    Attributes:
        child_E, parent_E: the latents at the ends of each edge.
        parent_P, place_E: the latents that are parents, ascending, and the place of each edge's parent among them.
        both_KE: rows in which both ends fire.
        any_KP: rows in which at least one child of a parent fires.
        covered_KP: those of these rows in which the parent fires too.
    """

    summed = ("both_KE", "any_KP", "covered_KP")

    def __init__(self, blocks: int, parent_F: np.ndarray):
        self.child_E = np.flatnonzero(parent_F != NONE)
        self.parent_E = parent_F[self.child_E]
        self.parent_P, self.place_E = np.unique(self.parent_E, return_inverse=True)
        self.both_KE = np.zeros((blocks, len(self.child_E)), np.float32)
        self.any_KP, self.covered_KP = np.zeros((2, blocks, len(self.parent_P)), np.float32)
        self._edge_F = np.full(len(parent_F), NONE)
        self._edge_F[self.child_E] = np.arange(len(self.child_E))

    def add(self, firings: Firings, block_B: torch.Tensor) -> None:
        """Add a batch."""
        block_b = block_B.cpu().numpy()
        edge_n = self._edge_F[firings.latent_n]
        has_parent = edge_n != NONE
        row_m, edge_m = firings.row_n[has_parent], edge_n[has_parent]
        both_m = firings.among(row_m, self.parent_E[edge_m])
        add_by_block(self.both_KE, block_b[row_m[both_m]], edge_m[both_m])
        parents = max(len(self.parent_P), 1)
        family, first = np.unique(row_m * parents + self.place_E[edge_m], return_index=True)
        row, place = np.divmod(family, parents)
        covered = both_m[first]
        add_by_block(self.any_KP, block_b[row], place)
        add_by_block(self.covered_KP, block_b[row[covered]], place[covered])


def error_without(
    x_BD: torch.Tensor, reconstruction_BD: torch.Tensor, firings: Firings, decoder_FD: torch.Tensor
) -> np.ndarray:
    """By how much the summed squared error grows if a latent is removed from the codes, for each latent, (F,).

    For e = x - x_hat and a firing with activation z and decoder row w: ||e + z w||^2 - ||e||^2 = 2 z e.w + z^2 ||w||^2.
    Divided by the rows' summed squared deviation from their mean, it is the growth of FVU. Negative if a latent does
    harm.
    """
    row_n, latent_n, value_n = (
        torch.from_numpy(column).to(x_BD.device) for column in (firings.row_n, firings.latent_n, firings.value_n)
    )
    pattern = Pattern(len(x_BD), len(decoder_FD), row_n, latent_n)
    along_n = dots(pattern, x_BD - reconstruction_BD, decoder_FD)
    growth_n = 2 * value_n * along_n + value_n.square() * decoder_FD.square().sum(1)[latent_n]
    growth_F: np.ndarray = np.bincount(firings.latent_n, growth_n.cpu().numpy(), minlength=len(decoder_FD))
    return growth_F


def by_block(values: torch.Tensor, block_B: torch.Tensor, blocks: int) -> np.ndarray:
    """Sums (K, ...) of values (B, ...) over the rows of each block, with the type of the values."""
    sums = torch.zeros(blocks, *values.shape[1:], dtype=values.dtype, device=values.device)
    return sums.index_add_(0, block_B, values).cpu().numpy()
