"""Adam for matrices of which a step touches few rows: gradients as rows, and moves that cost what was touched.

Legend of shapes: F rows of a matrix, D width, r rows that a step has touched, s rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hiersae_cli.sae.sparse import RowGradient, collect_rows

_BLOCK = 1 << 18  # numbers of a matrix that are moved at once: with gradient and moments they stay within the caches
_SLOTS = ("mean", "square", "last")


class RowAdam:
    """Adam (Kingma, Ba, 2015) that leaves a row alone until it has a gradient again, and then catches up.

    The moments of a row are those of Adam: what they would have decayed in the steps without a gradient, they decay
    when the next gradient comes. The moves that Adam would have made in these steps are made then too, all at once: a
    geometric series, in which the rate, the corrections of bias and epsilon are those of the moment. So a row with
    a gradient in every step is moved as by Adam, up to rounding; others get Adam's moves late. ``catch_up`` makes the
    moves that are due.

    Args:
        parameters: matrices (F, D); their gradients are collected as rows from now on.
        unit: which of them have rows of length 1: gradients along a row are taken out, and its length is kept.
        dtype: of the moments; bfloat16 is rounded at random, without bias, by a generator seeded with the step.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        unit: Sequence[bool],
        dtype: torch.dtype = torch.float32,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
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
        self._collected = [collect_rows(parameter) for parameter in self.parameters]
        self._gradients: list[list[RowGradient]] = []

    @torch.no_grad()
    def gather(self) -> torch.Tensor:
        """Take over what a backward pass has collected; returns its sum of squares, a scalar."""
        square = self.parameters[0].new_zeros(())
        self._gradients = []
        for parameter, collected, unit in zip(self.parameters, self._collected, self.unit, strict=True):
            gradients = _disjoint(collected)
            collected.clear()
            for row_r, value_rD in gradients:
                for row_s, value_sD in _blocks(row_r, value_rD):
                    if unit:
                        weight_sD = parameter[row_s]
                        value_sD.addcmul_(weight_sD, (value_sD * weight_sD).sum(1, keepdim=True), value=-1)
                    square += value_sD.flatten() @ value_sD.flatten()
            self._gradients.append(gradients)
        return square

    @torch.no_grad()
    def step(self, lr: float, scale: torch.Tensor | float = 1.0) -> None:
        """Move the rows that have been gathered; ``scale`` is what their gradients are multiplied with."""
        self.steps += 1
        noise = torch.Generator().manual_seed(self.steps)
        for number, gradients in enumerate(self._gradients):
            for row_r, value_rD in gradients:
                for row_s, value_sD in _blocks(row_r, value_rD):
                    self._move(number, row_s, value_sD.mul_(scale), lr, noise)
        self._gradients = []

    @torch.no_grad()
    def catch_up(self, lr: float) -> None:
        """Make the moves of all rows that have had no gradient lately, as ``step`` would have when one came."""
        noise = torch.Generator().manual_seed(self.steps)
        for number, slots in enumerate(self.slots):
            due = ((slots["last"] < self.steps) & (slots["last"] > 0)).nonzero().squeeze(1)
            for row_s in due.split(max(1, _BLOCK // self.parameters[number].shape[1])):
                self._move(number, row_s, None, lr, noise)

    def permute(self, order_F: torch.Tensor) -> None:
        """Follow rows that have been laid out anew."""
        for slots in self.slots:
            for slot in slots.values():
                slot.copy_(slot[order_F])

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step depends on, by name."""
        slots = {f"{number}.{name}": slot for number, own in enumerate(self.slots) for name, slot in own.items()}
        return {**slots, "steps": torch.tensor(self.steps)}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from what ``state`` gave."""
        self.steps = int(tensors["steps"])
        for number, own in enumerate(self.slots):
            for name in _SLOTS:
                own[name].copy_(tensors[f"{number}.{name}"])

    def _move(
        self, number: int, row_s: torch.Tensor, value_sD: torch.Tensor | None, lr: float, noise: torch.Generator
    ) -> None:
        """One step for some rows, or, without gradients, the moves that are due up to and with this step."""
        parameter, slots = self.parameters[number], self.slots[number]
        (beta_mean, beta_square), steps = self.betas, self.steps
        corrected_mean, corrected_square = 1 - beta_mean**steps, 1 - beta_square**steps
        weight_sD = parameter[row_s]
        mean_sD, square_sD = (slots[name][row_s].float() for name in ("mean", "square"))
        gap_s = (steps - slots["last"][row_s]).to(weight_sD.dtype)[:, None]
        seen_s = slots["last"][row_s, None] > 0
        missed_s = gap_s - 1 if value_sD is not None else gap_s
        missed_s = torch.where(seen_s, missed_s, 0.0)
        if missed_s.any():
            ratio = beta_mean / beta_square**0.5
            series_s = ratio * (1 - ratio**missed_s) / (1 - ratio)
            root_sD = (square_sD / corrected_square).sqrt_().add_(self.eps)
            weight_sD.addcdiv_(mean_sD * series_s, root_sD, value=-lr / corrected_mean)
            mean_sD *= beta_mean**missed_s
            square_sD *= beta_square**missed_s
        if value_sD is not None:
            mean_sD.lerp_(value_sD, 1 - beta_mean)
            square_sD.mul_(beta_square).addcmul_(value_sD, value_sD, value=1 - beta_square)
            root_sD = (square_sD / corrected_square).sqrt_().add_(self.eps)
            weight_sD.addcdiv_(mean_sD, root_sD, value=-lr / corrected_mean)
        if self.unit[number]:
            weight_sD /= weight_sD.norm(dim=1, keepdim=True).clamp_min(1e-12)
        parameter.index_copy_(0, row_s, weight_sD)
        for name, value in (("mean", mean_sD), ("square", square_sD)):
            slots[name].index_copy_(0, row_s, _rounded(value, slots[name].dtype, noise))
        slots["last"][row_s] = steps


def _disjoint(gradients: list[RowGradient]) -> list[RowGradient]:
    """The same gradients, such that no row is in two of them or twice in one."""
    if len(gradients) < 2:
        return list(gradients)
    row_n = torch.cat([row_r for row_r, _ in gradients])
    row_r, place_n = row_n.unique(return_inverse=True)
    if len(row_r) == len(row_n):
        return list(gradients)
    value_rD = gradients[0][1].new_zeros(len(row_r), gradients[0][1].shape[1])
    for own_n, (_, value_nD) in zip(place_n.split([len(rows) for rows, _ in gradients]), gradients, strict=True):
        value_rD.index_add_(0, own_n, value_nD)
    return [(row_r, value_rD)]


def _blocks(row_r: torch.Tensor, value_rD: torch.Tensor) -> Iterator[RowGradient]:
    size = max(1, _BLOCK // value_rD.shape[1])
    return zip(row_r.split(size), value_rD.split(size), strict=True)


def _rounded(value: torch.Tensor, dtype: torch.dtype, noise: torch.Generator) -> torch.Tensor:
    """Numbers of another type; bfloat16 is drawn from the two neighbours such that the mean is right.

    An average that a step moves by a thousandth would never move by bfloat16's steps of a 256th.
    """
    if dtype != torch.bfloat16:
        return value.to(dtype)
    random = torch.randint(0, 1 << 16, value.shape, generator=noise, dtype=torch.int32).to(value.device)
    return (value.view(torch.int32) + random).bitwise_and_(-(1 << 16)).view(torch.float32).to(dtype)
