"""The base class of all sparse autoencoders: tensors in, tensors out, no files.

Legend of shapes: B rows of a batch, D width of the activations, F latents, C latents of one level, L levels,
n active latents of all rows.

Every architecture here is positively homogeneous: ReLU pre-activations, and a selection that compares
pre-activations with each other. So if the input is scaled by s, codes and biases scale by s and nothing else changes.
A scale used in training folds into the saved biases and thresholds exactly, and a factor for each coordinate into
encoder and decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from hiersae_cli.config.architectures import DictionaryOptions
from hiersae_cli.distributed.ranks import Mesh
from hiersae_cli.distributed.ranks import nth_largest as nth_largest_of_all
from hiersae_cli.levels import NO_PARENT, Levels
from hiersae_cli.sae.kernels.gated import GatedReading
from hiersae_cli.sae.kernels.rough import RoughEncoder
from hiersae_cli.sae.kernels.sparse import Pattern, RowGradients, SparseCode, dense
from hiersae_cli.sae.parts import DENSE, SELECTION, profiled

# Candidates for selection come from a product that may be rounded, before the threshold of the batch is known. They
# must exceed this share of the last threshold, which leaves room for both.
_SLACK = 0.7
_DRAWN_ROWS = 1 << 14  # a multiple of 16, with which blocks have the same numbers as one draw
_THRESHOLD_RATE = 0.05  # weight of a batch in the running mean of thresholds in training


@dataclass(frozen=True)
class StepContext:
    """The place of a step in training.

    Attributes:
        number: how many steps came before it.
        progress: share of training done before it, in [0, 1).
    """

    number: int = 0
    progress: float = 0.0


@dataclass
class Step:
    """The result of a training step.

    Attributes:
        loss: scalar to minimise.
        codes: the code of each level; latents are numbered across levels.
        error: scalar, the sum of squared reconstruction errors.
        figures: more for the log: tensors are sums over the rows, other values describe this step.
    """

    loss: torch.Tensor
    codes: list[SparseCode]
    error: torch.Tensor
    figures: dict[str, Any]


class LevelReading(Protocol):
    """Pre-activations of one level, as ``_select`` needs them; see ``Reading``."""

    @property
    def at(self) -> Callable[[Pattern], torch.Tensor]: ...

    def above(self, bound_C: torch.Tensor, part: slice, latents: int) -> tuple[Pattern, torch.Tensor]: ...


@dataclass(frozen=True)
class Reading:
    """All pre-activations of one level.

    Attributes:
        dense_BC: all pre-activations, without gradients, in the type of the product: only to find candidates.
        at: a function that gives those at the places of a pattern, (n,): exact, not negative, with gradients.
    """

    dense_BC: torch.Tensor
    at: Callable[[Pattern], torch.Tensor]

    def above(self, bound_C: torch.Tensor, part: slice, latents: int) -> tuple[Pattern, torch.Tensor]:
        """The places where pre-activations of latents ``part`` exceed about a bound, and their exact values there."""
        pattern = Pattern.above(self.dense_BC, bound_C, part.start, latents)
        return pattern, self.at(pattern)


def first_rows(latents: int, width: int, seed: int, place_F: torch.Tensor | None = None) -> torch.Tensor:
    """The random unit rows (F, D) that a decoder and its encoder start from; training may reorder latents.

    With ``place_F`` only these rows of all, in ascending order.
    """
    generator = torch.Generator().manual_seed(seed)
    if place_F is None:
        rows_FD = torch.randn(latents, width, generator=generator)
    else:  # block by block, because all rows may need more memory than there is
        rows = []
        for start in range(0, latents, _DRAWN_ROWS):
            block_FD = torch.randn(min(_DRAWN_ROWS, latents - start), width, generator=generator)
            rows.append(block_FD[place_F[(place_F >= start) & (place_F < start + _DRAWN_ROWS)] - start])
        rows_FD = torch.cat(rows)
    return rows_FD / rows_FD.norm(dim=1, keepdim=True)


class SparseAutoencoder(nn.Module):
    """Base of the architectures: parameters, decoding, scale, refinement, and selection over a batch.

    Args:
        width: D.
        options: ``widths``, the number of latents of each level, one number for a flat dictionary; ``k``, the target L0
            of each level; ``refine``, whether a second pass corrects the first code (see ``_read_refined``).

    Attributes:
        training_only: prefixes of the names of tensors that only training needs; saved weights leave them out.
        mesh: how rows and latents are split over ranks. If latents are, this model has only some of the last level's.
        encoder_gradients, decoder_gradients: these collect the gradients of single rows of ``W_enc_FD`` and
            ``W_dec_FD``; if None, autograd makes gradients of whole matrices. See ``collect_row_gradients``.
    """

    threshold_L: torch.Tensor
    threshold_first_L: torch.Tensor
    training_only: tuple[str, ...] = ()

    def __init__(self, width: int, options: DictionaryOptions):
        super().__init__()
        self.width, self.widths, self.k, self.refine = width, options.widths, options.k, options.refine
        self.levels = Levels.of(self.widths)
        self.latents = self.levels.latents
        # All ranks' latents, of all levels and of the last one; the places of this rank's latents among all.
        self.whole_latents, self.whole_width = self.latents, self.widths[-1]
        self.place_F: torch.Tensor | None = None
        self.W_enc_FD = nn.Parameter(torch.zeros(self.latents, width))
        self.b_enc_F = nn.Parameter(torch.zeros(self.latents))
        self.W_dec_FD = nn.Parameter(torch.zeros(self.latents, width))
        self.b_dec_D = nn.Parameter(torch.zeros(width))
        self.mesh = Mesh()
        self.encoder_gradients: RowGradients | None = None
        self.decoder_gradients: RowGradients | None = None
        self._threshold_rate = _THRESHOLD_RATE
        self._rough = RoughEncoder()
        self.register_buffer("threshold_L", torch.zeros(len(self.widths)))
        if self.refine:
            self.refine_F = nn.Parameter(torch.ones(self.latents))
            self.b_refine_F = nn.Parameter(torch.zeros(self.latents))
            self.register_buffer("threshold_first_L", torch.zeros(len(self.widths)))

    @property
    def learned_F(self) -> np.ndarray | None:
        """The parent (F,) of each latent in the learned tree, ``NO_PARENT`` for roots; None for a flat dictionary."""
        return None

    @property
    def tree_F(self) -> np.ndarray:
        """The parent (F,) of each latent, ``NO_PARENT`` for roots; a flat dictionary has only roots."""
        learned_F = self.learned_F
        return np.full(self.latents, NO_PARENT) if learned_F is None else learned_F

    def initialise(self, bias_D: torch.Tensor, seed: int) -> None:
        """Set random unit decoder rows, the same encoder rows, and the decoder's bias: the centre of the data."""
        with torch.no_grad():
            self.W_dec_FD.copy_(first_rows(self.whole_latents, self.width, seed, self.place_F))
            self.W_enc_FD.copy_(self.W_dec_FD)
            self.b_dec_D.copy_(bias_D)

    def codes(self, x_BD: torch.Tensor) -> list[SparseCode]:
        """The code of each level for activations (B, D). At inference a row's code does not depend on its batch."""
        raise NotImplementedError

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code (B, F) of activations (B, D): the levels of ``codes`` in one tensor."""
        return dense(self.codes(x_BD))

    def reconstruct(self, codes: Sequence[SparseCode]) -> torch.Tensor:
        """The reconstruction (B, D) of the codes of some levels."""
        return self.b_dec_D + sum(self._decoded(code, level) for level, code in enumerate(codes))

    def decode(self, code_BF: torch.Tensor) -> torch.Tensor:
        """The reconstruction (B, D) of a code (B, F)."""
        return code_BF @ self.W_dec_FD + self.b_dec_D

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The reconstruction (B, D): ``decode(encode(x))``."""
        return self.decode(self.encode(x_BD))

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        """Loss and code of a training batch."""
        raise NotImplementedError

    def after_step(self, context: StepContext) -> torch.Tensor | None:
        """Update what gradients do not train, after the optimizer's step.

        Returns the new order (F,) of the latents, as ``permute`` takes it, or None if it has not changed.
        """
        return None

    def finish(self) -> None:
        """Update the model after the last step, before ``calibrate``."""

    @torch.no_grad()
    def calibrate(self, batches: Iterable[torch.Tensor]) -> None:
        """Set the thresholds of inference to the mean of those that give each batch (B, D) the target L0.

        The running mean of training lags behind the weights. The model must be in training mode.
        """
        for number, x_BD in enumerate(batches):
            self._threshold_rate = 1 / (number + 1)
            self._calibrate_on(x_BD)
        self._threshold_rate = _THRESHOLD_RATE

    def _calibrate_on(self, x_BD: torch.Tensor) -> None:
        """Move the thresholds towards those of a batch by ``_threshold_rate``, as selection does in training mode."""
        self.codes(x_BD)

    def collect_row_gradients(self) -> tuple[RowGradients, RowGradients]:
        """Collect the gradients of single rows of encoder and decoder from now on; returns both collections.

        Backward passes then make no matrices of zeros. An optimizer such as ``RowAdam`` takes the rows.
        """
        self.encoder_gradients, self.decoder_gradients = collections = RowGradients(), RowGradients()
        return collections

    @torch.no_grad()
    def project_decoder_gradient(self) -> None:
        """Remove the part of the decoder's gradient that would only change the length of its rows."""
        gradient = self.W_dec_FD.grad
        if gradient is not None:
            gradient -= (gradient * self.W_dec_FD.data).sum(1, keepdim=True) * self.W_dec_FD.data

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale the decoder's rows to length 1."""
        self.W_dec_FD.div_(self.W_dec_FD.norm(dim=1, keepdim=True).clamp_min(1e-12))

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors that inference needs, by name."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(self.training_only)}

    def load_weights(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load the tensors that ``weights`` returned; raises ``RuntimeError`` if some are missing or do not fit."""
        training_tensors = {
            name: tensor for name, tensor in self.state_dict().items() if name.startswith(self.training_only)
        }
        self.load_state_dict(training_tensors | tensors)

    def level_slices(self) -> list[slice]:
        """The latents of each level, as slices of F."""
        return list(self.levels.slices)

    def revival_inputs(self, x_BD: torch.Tensor, codes: list[SparseCode]) -> list[torch.Tensor]:
        """The input (B, D) of each level's encoder, for the loss that revives dead latents."""
        return [x_BD - self.b_dec_D]

    def fold_scale(self, scale: float, relative_D: torch.Tensor) -> None:
        """Turn a model of activations x * ``scale`` * ``relative_D`` into one of x.

        Codes and reconstructions have the units of x. Decoder rows keep length 1 only if all of ``relative_D`` is 1.
        """
        with torch.no_grad():
            self.W_enc_FD.mul_(relative_D)
            self.W_dec_FD.div_(relative_D)
            self.b_dec_D.div_(relative_D)
            for bias in (self.b_enc_F, self.b_dec_D, *([self.b_refine_F] if self.refine else [])):
                bias.div_(scale)
            for threshold_L in (self.threshold_L, *([self.threshold_first_L] if self.refine else [])):
                threshold_L.div_(scale**2)

    def permute(self, order_F: torch.Tensor) -> None:
        """Reorder the latents: the new latent f is the old latent ``order_F[f]``."""
        with torch.no_grad():
            for tensor in self.per_latent():
                tensor.copy_(tensor[order_F])

    def per_latent(self) -> list[torch.Tensor]:
        """Every parameter whose first dimension is F."""
        refine = [self.refine_F, self.b_refine_F] if self.refine else []
        return [self.W_enc_FD, self.b_enc_F, self.W_dec_FD, *refine]

    def _read(self, input_BD: torch.Tensor, part: slice) -> Reading:
        """The pre-activations of the latents ``part`` for an input (B, D)."""
        with torch.no_grad(), profiled(DENSE):
            dense_BC = nn.functional.linear(input_BD, self.W_enc_FD[part], self.b_enc_F[part])
        return Reading(dense_BC, self._at(self._copied(input_BD, part)))

    def _read_for_selection(self, input_BD: torch.Tensor, part: slice) -> LevelReading:
        """The same for ``_select``, which at inference needs exact values only of candidates."""
        if not self.training:
            with torch.no_grad(), profiled(DENSE):
                rough = self._rough.read(input_BD, self.W_enc_FD, self.b_enc_F, part, self._at(input_BD))
            if rough:
                return rough
        return self._read(input_BD, part)

    def _at(self, input_BD: torch.Tensor) -> Callable[[Pattern], torch.Tensor]:
        """A function that gives the pre-activations of an input at the places of a pattern."""
        return lambda pattern: torch.relu(self._dots(input_BD, pattern) + self.b_enc_F[pattern.latent_n])

    def _read_refined(self, code: SparseCode, residual_BD: torch.Tensor, part: slice) -> Reading:
        """The pre-activations of the second pass, from a first code and the residual (B, D) after all first codes.

        It is one step of ISTA with a learned step size for each latent, so that what other latents explain no longer
        interferes. Source: Gregor, LeCun (2010), Learning Fast Approximations of Sparse Coding.
        """
        with torch.no_grad(), profiled(DENSE):
            weights_CD = self.refine_F[part, None] * self.W_enc_FD[part]
            dense_BC = nn.functional.linear(residual_BD, weights_CD, self.b_refine_F[part])
            column_n = code.pattern.latent_n - part.start
            places = (code.pattern.row_n, column_n)
            dense_BC.index_put_(places, code.value_n.to(dense_BC.dtype), accumulate=True)
        return Reading(dense_BC, self._at_refined(code, self._copied(residual_BD, part)))

    def _dots(self, input_BD: torch.Tensor, pattern: Pattern) -> torch.Tensor:
        """The dot products (n,) of an input with encoder rows, at the places of a pattern."""
        return pattern.dots(input_BD, self.W_enc_FD, self.encoder_gradients)

    def _decoded(self, code: SparseCode, level: int = -1) -> torch.Tensor:
        """The part (B, D) of the reconstruction that comes from the code of a level."""
        if not self._is_split(level) or self.mesh.latents.count == 1:
            return code.decode(self.W_dec_FD, self.decoder_gradients)
        if code.whole_BD is None or torch.is_grad_enabled():
            decoded_BD = self.mesh.latents.summed(code.decode(self.W_dec_FD, self.decoder_gradients))
            code.whole_BD = decoded_BD.detach()
            return decoded_BD
        return code.whole_BD

    def _is_split(self, level: int) -> bool:
        """Whether the latents of a level are split over ranks: only those of the last level are."""
        return level in (-1, len(self.widths) - 1)

    def _copied(self, input_BD: torch.Tensor, part: slice) -> torch.Tensor:
        """The input of an encoder (B, D), whose gradient comes from all ranks if the latents ``part`` are split."""
        return self.mesh.latents.copied(input_BD) if part.stop == self.latents else input_BD

    def _nth_largest(self, score_n: torch.Tensor, count: int, part: slice) -> torch.Tensor:
        """The ``count``-th largest of the scores of latents ``part`` in all rows and on all ranks, or 0."""
        if self.mesh.count == 1:
            return nth_largest(score_n, count)
        split = part.stop == self.latents
        return nth_largest_of_all(score_n, count, self.mesh.sum if split else self.mesh.rows.sum)

    def _at_refined(self, code: SparseCode, residual_BD: torch.Tensor) -> Callable[[Pattern], torch.Tensor]:
        """A function that gives the pre-activations of ``_read_refined`` at the places of a pattern."""

        def at(pattern: Pattern) -> torch.Tensor:
            latent_n = pattern.latent_n
            step_n = self.refine_F[latent_n] * self._dots(residual_BD, pattern)
            return torch.relu(code.at(pattern) + step_n + self.b_refine_F[latent_n])

        return at

    def _select(
        self,
        reading: LevelReading,
        part: slice,
        threshold: torch.Tensor,
        k: float,
        price: Callable[[Pattern, torch.Tensor], torch.Tensor] | None = None,
        least_price_C: torch.Tensor | float = 1.0,
    ) -> SparseCode:
        """Select the latents of ``part`` whose score, z^2 divided by the price, is at least ``threshold``.

        In training, select the highest scores of the batch instead, ``k`` a row on average (BatchTopK), and update
        ``threshold``, a scalar, in place: it is the running mean of the lowest selected score, for inference.
        Source: Bussmann, Leask, Nanda (2024), BatchTopK Sparse Autoencoders.

        Args:
            price: gives the prices (n,) at the places of a pattern with energies (n,); 1 everywhere if None.
            least_price_C: a lower bound on the prices of each latent.
        """
        with profiled(SELECTION):
            with torch.no_grad():
                lowest, bound = threshold, _SLACK * threshold
                pattern, value_n, score_n = self._energy_per_price(reading, part, bound * least_price_C, price)
                if self.training:
                    rows = pattern.rows * self.mesh.rows.count
                    width = self.whole_width if part.stop == self.latents else part.stop - part.start
                    count = max(1, min(round(k * rows), rows * width))
                    lowest = self._nth_largest(score_n, count, part)
                    while lowest < bound:  # a latent that is no candidate may have a higher score
                        bound = bound / 2 if bound > _SLACK * threshold / 64 else torch.zeros_like(bound)
                        pattern, value_n, score_n = self._energy_per_price(reading, part, bound * least_price_C, price)
                        lowest = self._nth_largest(score_n, count, part)
                    threshold.lerp_(lowest.to(threshold.dtype), 1.0 if threshold == 0 else self._threshold_rate)
                selected_n = (score_n >= lowest) & (score_n > 0)
                pattern = pattern.where(selected_n)
            # Without gradients the values are known already; behind a gate they are rounded in another way.
            known = not torch.is_grad_enabled() and not isinstance(reading, GatedReading)
            return SparseCode(pattern, value_n[selected_n] if known else reading.at(pattern))

    def _energy_per_price(
        self,
        reading: LevelReading,
        part: slice,
        least_energy_C: torch.Tensor,
        price: Callable[[Pattern, torch.Tensor], torch.Tensor] | None,
    ) -> tuple[Pattern, torch.Tensor, torch.Tensor]:
        """The places where energies may exceed a bound, the pre-activations there (n,), and energies by price (n,)."""
        pattern, value_n = reading.above(least_energy_C.sqrt(), part, self.latents)
        energy_n = value_n.square()
        return pattern, value_n, energy_n / price(pattern, energy_n) if price else energy_n


def geometric_median(x_BD: torch.Tensor, steps: int = 100) -> torch.Tensor:
    """The point (D,) with the smallest sum of distances to the rows (B, D), by Weiszfeld's iteration.

    Unlike the mean it hardly moves towards features that fire rarely. Source: Weiszfeld (1937); as a decoder's initial
    bias, Bricken et al. (2023), Towards Monosemanticity.
    """
    x_BD = x_BD.double()
    centre_D = x_BD.mean(0)
    for _ in range(steps):
        weight_B = 1 / (x_BD - centre_D).norm(dim=1).clamp_min(1e-9)
        centre_D = (weight_B[:, None] * x_BD).sum(0) / weight_B.sum()
    return centre_D.float()


def nth_largest(score_n: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count``-th largest score; 0 if there are fewer."""
    if len(score_n) < count:
        return score_n.new_zeros(())
    return score_n.topk(count, sorted=False).values.min()
