"""Reconstruction and sparsity, from sums that are kept for each block of documents.

Legend of shapes: B rows of a batch, D width, F latents, K blocks, n weightings of the blocks.

Definitions:
    FVU = sum ||x - x_hat||^2 / (sum ||x||^2 - ||sum x||^2 / N), ratio of sums over the whole sample;
    EV = 1 - FVU; L0 = active latents a row; dead = share of latents never active in the sample.
"""

from __future__ import annotations

import numpy as np
import torch


class DataSums:
    """What is summed over the activations themselves, whatever the model: shared by all runs of a report."""

    def __init__(self, blocks: int, width: int):
        self.rows_K = np.zeros(blocks)
        self.square_K = np.zeros(blocks)
        self.sum_KD = np.zeros((blocks, width))

    def add(self, x_BD: torch.Tensor, block_B: torch.Tensor) -> None:
        """Take in a batch whose rows belong to blocks ``block_B``."""
        self.rows_K += by_block(torch.ones_like(block_B, dtype=torch.float64), block_B, len(self.rows_K))
        self.square_K += by_block(x_BD.double().square().sum(1), block_B, len(self.rows_K))
        self.sum_KD += by_block(x_BD.double(), block_B, len(self.rows_K))

    def variance(self, weights_nK: np.ndarray) -> np.ndarray:
        """Summed squared deviation from the mean, for each weighting of the blocks, (n,)."""
        rows = weights_nK @ self.rows_K
        return weights_nK @ self.square_K - np.square(weights_nK @ self.sum_KD).sum(1) / rows


class CodeSums:
    """What is summed over one model's codes and reconstructions."""

    def __init__(self, blocks: int, widths: tuple[int, ...]):
        self.widths = widths
        self.error_K = np.zeros(blocks)
        self.active_KL = np.zeros((blocks, len(widths)))
        self.fired_KF = np.zeros((blocks, sum(widths)), np.float32)

    def add(
        self, x_BD: torch.Tensor, code_BF: torch.Tensor, reconstruction_BD: torch.Tensor, block_B: torch.Tensor
    ) -> None:
        """Take in a batch."""
        blocks = len(self.error_K)
        self.error_K += by_block((x_BD - reconstruction_BD).double().square().sum(1), block_B, blocks)
        fired_KF = by_block((code_BF > 0).float(), block_B, blocks)
        self.fired_KF += fired_KF
        edges = np.cumsum([0, *self.widths])
        self.active_KL += np.add.reduceat(fired_KF.astype(float), edges[:-1], axis=1)

    def dead(self) -> int:
        """Latents that never fired."""
        return int((self.fired_KF.sum(0) == 0).sum())

    def fvu(self, data: DataSums, weights_nK: np.ndarray) -> np.ndarray:
        """FVU for each weighting of the blocks, (n,)."""
        return (weights_nK @ self.error_K) / data.variance(weights_nK)

    def l0(self, data: DataSums, weights_nK: np.ndarray, level: int | None = None) -> np.ndarray:
        """L0 of a level, or of all, for each weighting of the blocks, (n,)."""
        active_K = self.active_KL.sum(1) if level is None else self.active_KL[:, level]
        return (weights_nK @ active_K) / (weights_nK @ data.rows_K)


class EdgeSums:
    """Firings of each child together with its parent, for a fixed tree over the columns of a code.

    Args:
        blocks: K.
        child_E, parent_E: columns of each edge's ends.
    """

    def __init__(self, blocks: int, child_E: torch.Tensor, parent_E: torch.Tensor):
        self.child_E, self.parent_E = child_E, parent_E
        self.both_KE = np.zeros((blocks, len(child_E)), np.float32)

    def add(self, code_BF: torch.Tensor, block_B: torch.Tensor) -> None:
        """Take in a batch."""
        fired_BF = code_BF > 0
        both_BE = fired_BF[:, self.child_E] & fired_BF[:, self.parent_E]
        self.both_KE += by_block(both_BE.float(), block_B, len(self.both_KE))


def by_block(values: torch.Tensor, block_B: torch.Tensor, blocks: int) -> np.ndarray:
    """Sums (K, ...) over the rows of each block of values (B, ...), in their type."""
    sums = torch.zeros(blocks, *values.shape[1:], dtype=values.dtype, device=values.device)
    return sums.index_add_(0, block_B, values).cpu().numpy()
