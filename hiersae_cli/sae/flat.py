"""Flat dictionaries, the baselines. Legend of shapes: see ``base``."""

from __future__ import annotations

from typing import Any

import torch

from hiersae_cli.config.architectures import DictionaryOptions
from hiersae_cli.distributed.ranks import nth_largest_of_rows
from hiersae_cli.sae.base import LevelReading, Reading, SparseAutoencoder, Step, StepContext
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode


class _Flat(SparseAutoencoder):
    def codes(self, x_BD: torch.Tensor) -> list[SparseCode]:
        centred_BD, whole = x_BD - self.b_dec_D, slice(0, self.latents)
        code = self._sparse(self._read_first(centred_BD, whole), first=self.refine)
        if self.refine:
            residual_BD = centred_BD - self._decoded(code)
            code = self._sparse(self._read_refined(code, residual_BD, whole), first=False)
        return [code]

    def _read_first(self, input_BD: torch.Tensor, part: slice) -> Any:
        """The pre-activations of the first pass, as ``_sparse`` needs them."""
        return self._read(input_BD, part)

    def _sparse(self, reading: Any, first: bool) -> SparseCode:
        """The code of these pre-activations; ``first`` if it will be refined."""
        raise NotImplementedError

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        codes = self.codes(x_BD)
        error = (x_BD - self.reconstruct(codes)).square().sum()
        return Step(error / x_BD.numel(), codes, error.detach(), {})


class TopK(_Flat):
    """The k largest pre-activations of every row. Source: Gao et al. (2024), Scaling and evaluating SAEs."""

    def _sparse(self, reading: Reading, first: bool) -> SparseCode:
        best_Bk, latents_Bk = reading.dense_BC.topk(min(int(self.k[0]), self.latents), dim=1, sorted=False)
        latents_Bk = latents_Bk.sort(1).values
        active_Bk = reading.dense_BC.gather(1, latents_Bk) > 0
        if self.mesh.latents.count > 1:
            lowest_B1 = nth_largest_of_rows(best_Bk.relu(), int(self.k[0]), self.mesh.latents)
            active_Bk &= reading.dense_BC.gather(1, latents_Bk) >= lowest_B1
        row_n, place_n = active_Bk.nonzero(as_tuple=True)
        pattern = Pattern(len(latents_Bk), self.latents, row_n, latents_Bk[row_n, place_n])
        return SparseCode(pattern, reading.at(pattern))


class BatchTopK(_Flat):
    """The k * B largest pre-activations of a batch in training, a threshold at inference.

    Source: Bussmann, Leask, Nanda (2024), BatchTopK Sparse Autoencoders.
    """

    def _read_first(self, input_BD: torch.Tensor, part: slice) -> LevelReading:
        return self._read_for_selection(input_BD, part)

    def _sparse(self, reading: LevelReading, first: bool) -> SparseCode:
        threshold = (self.threshold_first_L if first else self.threshold_L)[0]
        return self._select(reading, slice(0, self.latents), threshold, self.k[0])


class Matryoshka(BatchTopK):
    """BatchTopK whose latents form nested prefixes, each of which must reconstruct without the latents that follow.

    The loss is the sum of the errors of all prefixes; the last is the whole dictionary. The prefixes matter only in
    training: the model is flat.

    Args:
        width: D.
        options: ``widths`` are the numbers of latents that each prefix adds to the one before it; ``k`` is one number,
            the target L0 of the whole dictionary.

    Source: Bussmann et al. (2025), Learning Multi-Level Features with Matryoshka Sparse Autoencoders.
    """

    def __init__(self, width: int, options: DictionaryOptions):
        whole = DictionaryOptions(widths=(sum(options.widths),), k=options.k, refine=options.refine)
        super().__init__(width, whole)
        self.groups = options.widths

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        (code,) = self.codes(x_BD)
        residual_BD, errors, start = x_BD - self.b_dec_D, [], 0
        for size in self.groups:
            residual_BD = residual_BD - self._decoded(code.among(slice(start, start + size)))
            errors.append(residual_BD.square().sum())
            start += size
        return Step(torch.stack(errors).sum() / x_BD.numel(), [code], errors[-1].detach(), {})
