"""Adam for matrices of which a step touches few rows: the cost of a step depends only on the touched rows.

Legend of shapes: F rows of a matrix, D width, r rows that a step touches, s rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from hiersae_cli.device import compiled_by_torch
from hiersae_cli.distributed.ranks import ALONE, Ranks
from hiersae_cli.sae.kernels import native
from hiersae_cli.sae.kernels.sparse import RowGradient, RowGradients

_BLOCK = 1 << 18  # numbers of a matrix in a block, which fits the caches with its gradient and moments
_SLOTS = ("mean", "square", "last")


class _Matrices(NamedTuple):
    """A parameter (F, D) and its moments: the means of its gradients and of their squares."""

    weight_FD: torch.Tensor
    mean_FD: torch.Tensor
    square_FD: torch.Tensor


class _Missed(NamedTuple):
    """The effect of the steps that each of some rows has missed, (r,) or, in a block, (s, 1).

    Attributes:
        series_r: the learning rate times a geometric series; 0 if no step was missed.
        mean_kept_r, square_kept_r: the share that remains of each moment.
    """

    series_r: torch.Tensor
    mean_kept_r: torch.Tensor
    square_kept_r: torch.Tensor


class _Numbers(NamedTuple):
    """The numbers of a step.

    Attributes:
        scale: the factor of the gradients.
        rate: the learning rate, corrected for the bias of the mean.
        root: the correction of the square root of the mean square.
        unit: whether rows keep length 1.
    """

    scale: torch.Tensor
    rate: torch.Tensor
    root: torch.Tensor
    unit: bool
    beta_mean: float
    beta_square: float
    eps: float


class RowAdam:
    """Adam (Kingma, Ba, 2015) that leaves a row unchanged until it has a gradient again, and then catches up.

    When a row has a gradient, its moments first decay by the steps that it has missed, so they are those of Adam. The
    moves that Adam would have made in these steps are made then too, all at once, as a geometric series with the
    current rate, bias corrections and epsilon. So a row with a gradient in every step moves as with Adam, up to
    rounding; other rows get Adam's moves late. ``catch_up`` makes all moves that are still missing.

    Args:
        parameters: matrices (F, D).
        collections: the row gradients of each matrix, see ``SparseAutoencoder.collect_row_gradients``.
        unit: whether the rows of each matrix have length 1. Gradients along such rows are removed, and they keep their
            length.
        dtype: the type of the moments; bfloat16 is rounded randomly, without bias, by numbers that depend on the step.
        implementation: "native", the kernels of ``native``, which read and write each number once; "compiled", such
            kernels made by ``torch.compile``; or "reference", one operation of PyTorch after the other. By default
            native if it is available, else reference. The results are the same up to rounding.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        collections: Sequence[RowGradients],
        unit: Sequence[bool],
        dtype: torch.dtype = torch.float32,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        implementation: str = "",
    ):
        self.parameters, self.unit, self.betas, self.eps = list(parameters), list(unit), betas, eps
        self.steps = 0
        self.slots = [
            {
                "mean": torch.zeros_like(parameter, dtype=dtype),
                "square": torch.zeros_like(parameter, dtype=dtype),
                "last": torch.zeros(len(parameter), dtype=torch.int32, device=parameter.device),
            }
            for parameter in self.parameters
        ]
        self._collections = list(collections)
        self._gradients: list[list[RowGradient]] = []
        native_fits = all(native.takes(parameter.data) for parameter in self.parameters)
        native_fits = native_fits and dtype in (torch.float32, torch.bfloat16)
        self._native = implementation == "native" or (not implementation and native_fits)
        compiled = implementation == "compiled"
        self._move_rows = compiled_by_torch(_move_rows, dynamic=True) if compiled else _move_rows
        self._remove_radial = compiled_by_torch(_remove_radial, dynamic=True) if compiled else _remove_radial

    @torch.no_grad()
    def gather(self, ranks: Ranks = ALONE, shared: int | None = None) -> torch.Tensor:
        """Take the gradients that a backward pass has collected; returns their sum of squares.

        Args:
            ranks: those whose gradients are added up.
            shared: the first rows, which are counted separately: the sums are then two, (2,), of these and of others.
        """
        squares = self.parameters[0].new_zeros(2)
        self._gradients = []
        for parameter, collection, unit in zip(self.parameters, self._collections, self.unit, strict=True):
            gradients = _apart(_disjoint(_of_all(collection.take(), parameter, ranks)), shared)
            for row_r, value_rD in gradients:
                square = squares[int(len(row_r) > 0 and int(row_r[0]) >= shared)] if shared else squares[1]
                if self._native:
                    square += native.gather(parameter.data, row_r, value_rD, unit)
                    continue
                for part in _blocks(*value_rD.shape):
                    value_sD = value_rD[part]
                    if unit:
                        self._remove_radial(parameter.data, row_r[part], value_sD)
                    square += value_sD.flatten() @ value_sD.flatten()
            self._gradients.append(gradients)
        return squares[1] if shared is None else squares

    @torch.no_grad()
    def step(self, lr: float, scale: torch.Tensor | float = 1.0) -> None:
        """Move the rows whose gradients have been gathered; ``scale`` is the factor of the gradients."""
        self.steps += 1
        noise = torch.Generator().manual_seed(self.steps)
        scale = torch.as_tensor(scale, dtype=self.parameters[0].dtype, device=self.parameters[0].device)
        for number, gradients in enumerate(self._gradients):
            for row_r, value_rD in gradients:
                self._move(number, row_r, value_rD, scale, lr, noise)
        self._gradients = []

    @torch.no_grad()
    def catch_up(self, lr: float) -> None:
        """Make the missed moves of all rows, as ``step`` would at their next gradient."""
        noise = torch.Generator().manual_seed(self.steps)
        for number, slots in enumerate(self.slots):
            behind_r = ((slots["last"] < self.steps) & (slots["last"] > 0)).nonzero().squeeze(1)
            self._move(number, behind_r, None, torch.ones(()), lr, noise)

    def permute(self, order_F: torch.Tensor) -> None:
        """Reorder the state: the new row f is the old row ``order_F[f]``."""
        for slots in self.slots:
            for slot in slots.values():
                slot.copy_(slot[order_F])

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that the next step depends on, by name."""
        tensors = {f"{number}.{name}": slot for number, slots in enumerate(self.slots) for name, slot in slots.items()}
        return {**tensors, "steps": torch.tensor(self.steps)}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load the tensors that ``state`` returned."""
        self.steps = int(tensors["steps"])
        for number, slots in enumerate(self.slots):
            for name in _SLOTS:
                slots[name].copy_(tensors[f"{number}.{name}"])

    def _move(
        self,
        number: int,
        row_r: torch.Tensor,
        value_rD: torch.Tensor | None,
        scale: torch.Tensor,
        lr: float,
        noise: torch.Generator,
    ) -> None:
        """A step of some rows, or, without gradients, the moves that they have missed, this step included."""
        if not len(row_r):
            return
        parameter, slots, (beta_mean, beta_square) = self.parameters[number].data, self.slots[number], self.betas
        last_r = slots["last"][row_r]
        steps_r = (self.steps - last_r - int(value_rD is not None)).to(parameter.dtype).masked_fill_(last_r == 0, 0.0)
        rate = lr / (1 - beta_mean**self.steps)
        root = (1 - beta_square**self.steps) ** -0.5
        ratio = beta_mean / beta_square**0.5
        series_r = rate * ratio * (1 - ratio**steps_r) / (1 - ratio)
        missed = _Missed(series_r, beta_mean**steps_r, beta_square**steps_r)
        if self._native and value_rD is not None:
            native.move(
                parameter,
                slots["mean"],
                slots["square"],
                row_r,
                value_rD,
                torch.stack(missed, 1),
                scale=float(scale),
                rate=rate,
                root=root,
                mean_new=1 - beta_mean,
                square_kept=beta_square,
                square_new=1 - beta_square,
                eps=self.eps,
                unit=self.unit[number],
                seed=self.steps * len(self.parameters) + number,
            )
        else:
            # The rates are tensors, because compiled code would be compiled again for every other number.
            rates = (scale, parameter.new_tensor(rate), parameter.new_tensor(root))
            numbers = _Numbers(*rates, self.unit[number], beta_mean, beta_square, self.eps)
            matrices = _Matrices(parameter, slots["mean"], slots["square"])
            self._move_blocks(matrices, row_r, value_rD, missed, numbers, noise)
        slots["last"][row_r] = self.steps

    def _move_blocks(
        self,
        matrices: _Matrices,
        row_r: torch.Tensor,
        value_rD: torch.Tensor | None,
        missed: _Missed,
        numbers: _Numbers,
        noise: torch.Generator,
    ) -> None:
        """The moves of some rows, block by block; see ``_move_rows``."""
        move = _move_rows if value_rD is None else self._move_rows
        for part in _blocks(len(row_r), matrices.weight_FD.shape[1]):
            row_s = row_r[part]
            value_sD = None if value_rD is None else value_rD[part]
            missed_s1 = _Missed(*(effect_r[part, None] for effect_r in missed))
            bits = None
            if matrices.mean_FD.dtype == torch.bfloat16:
                mean_bits_sD, square_bits_sD = (_random_bits(len(row_s), matrices.weight_FD, noise) for _ in range(2))
                bits = mean_bits_sD, square_bits_sD
            move(matrices, row_s, value_sD, missed_s1, numbers, bits)


def _remove_radial(weight_FD: torch.Tensor, row_s: torch.Tensor, value_sD: torch.Tensor) -> None:
    """Remove from gradients, in place, the part along their rows, which have length 1."""
    rows_sD = weight_FD[row_s]
    value_sD.sub_(rows_sD * (value_sD * rows_sD).sum(1, keepdim=True))


def _move_rows(
    matrices: _Matrices,
    row_s: torch.Tensor,
    value_sD: torch.Tensor | None,
    missed_s1: _Missed,
    numbers: _Numbers,
    bits: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    """Adam's moves of some rows, in place: first those of the steps that a row has missed, then that of this step.

    Args:
        value_sD: the gradients of the rows; None for only the moves that they have missed.
        bits: random bits (s, D) for each moment, if moments are bfloat16: see ``_round_randomly``.
    """
    weight_FD, mean_FD, square_FD = matrices
    series_s1, mean_kept_s1, square_kept_s1 = missed_s1
    root, eps = numbers.root, numbers.eps
    mean_bits_sD, square_bits_sD = bits or (None, None)
    # In place, because without torch.compile a new block of numbers costs as much as the work on it.
    weight_sD = weight_FD[row_s]
    mean_sD, square_sD = mean_FD[row_s].to(weight_sD.dtype), square_FD[row_s].to(weight_sD.dtype)
    weight_sD.addcdiv_(mean_sD * series_s1, square_sD.sqrt().mul_(root).add_(eps), value=-1)
    mean_sD.mul_(mean_kept_s1)
    square_sD.mul_(square_kept_s1)
    if value_sD is not None:
        value_sD = value_sD * numbers.scale
        mean_sD.lerp_(value_sD, 1 - numbers.beta_mean)
        square_sD.mul_(numbers.beta_square).addcmul_(value_sD, value_sD, value=1 - numbers.beta_square)
        weight_sD.addcdiv_(mean_sD * numbers.rate, square_sD.sqrt().mul_(root).add_(eps), value=-1)
    if numbers.unit:
        weight_sD /= weight_sD.norm(dim=1, keepdim=True).clamp_min(1e-12)
    weight_FD[row_s] = weight_sD
    mean_FD[row_s] = _round_randomly(mean_sD, mean_bits_sD)
    square_FD[row_s] = _round_randomly(square_sD, square_bits_sD)


def _disjoint(gradients: list[RowGradient]) -> list[RowGradient]:
    """The same gradients, added up so that each row occurs once."""
    if len(gradients) < 2:
        return list(gradients)
    row_n = torch.cat([row_r for row_r, _ in gradients])
    row_r, place_n = row_n.unique(return_inverse=True)
    if len(row_r) == len(row_n):
        return list(gradients)
    value_rD = gradients[0][1].new_zeros(len(row_r), gradients[0][1].shape[1])
    for place_m, (_, value_mD) in zip(place_n.split([len(rows) for rows, _ in gradients]), gradients, strict=True):
        value_rD.index_add_(0, place_m, value_mD)
    return [(row_r, value_rD)]


def _of_all(gradients: list[RowGradient], parameter: torch.Tensor, ranks: Ranks) -> list[RowGradient]:
    """The gradients of all ranks, in the order of the ranks."""
    if ranks.count == 1:
        return gradients
    nothing = torch.zeros(0, dtype=torch.long, device=parameter.device), parameter.new_zeros(0, parameter.shape[1])
    row_r, value_rD = (torch.cat(column) for column in zip(*_disjoint(gradients) or [nothing], strict=True))
    return list(zip(ranks.parts(row_r), ranks.parts(value_rD), strict=True))


def _apart(gradients: list[RowGradient], shared: int | None) -> list[RowGradient]:
    """The same gradients, so that none has rows on both sides of ``shared``."""
    if not shared:
        return gradients
    sides = [(rows, values, mask) for rows, values in gradients for mask in (rows < shared, rows >= shared)]
    return [(rows[mask], values[mask]) for rows, values, mask in sides if mask.any()]


def _blocks(rows: int, width: int) -> Iterator[slice]:
    size = max(1, _BLOCK // width)
    return (slice(start, start + size) for start in range(0, rows, size))


def _random_bits(rows: int, like: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Random bits (rows, D) for ``_round_randomly``."""
    return torch.randint(0, 1 << 16, (rows, like.shape[1]), generator=noise, dtype=torch.int32).to(like.device)


def _round_randomly(value: torch.Tensor, bits: torch.Tensor | None) -> torch.Tensor:
    """Round to one of the two nearest bfloat16 numbers, so that the mean is exact; without ``bits`` do not round.

    A step changes an average by about a thousandth, which rounding to the nearest bfloat16, a 256th apart, would undo.
    """
    if bits is None:
        return value
    return ((value.view(torch.int32) + bits) & -(1 << 16)).view(torch.float32).to(torch.bfloat16)
