"""Adam for matrices of which a step touches few rows: gradients as rows, and moves that cost what was touched.

Legend of shapes: F rows of a matrix, D width, r rows that a step has touched, s rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hiersae_cli.device import compiled_by_torch
from hiersae_cli.sae.kernels import native
from hiersae_cli.sae.kernels.sparse import RowGradient, RowGradients

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
        parameters: matrices (F, D).
        owners: what has taken the gradients of each one's rows, see ``SparseAutoencoder.collect_row_gradients``.
        unit: which of them have rows of length 1: gradients along a row are taken out, and its length is kept.
        dtype: of the moments; bfloat16 is rounded at random, without bias, by numbers that follow from the step.
        implementation: native, compiled or reference: moves by the kernels of ``native``, which read and write each
            number once; by ``torch.compile``, which makes such kernels; or by one operation of PyTorch after the other.
            By default native if it is available, else reference. The numbers are the same up to rounding.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        owners: Sequence[RowGradients],
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
        self._owners = list(owners)
        self._gradients: list[list[RowGradient]] = []
        can = all(native.takes(each.data) for each in self.parameters) and dtype in (torch.float32, torch.bfloat16)
        self._native = implementation == "native" or (not implementation and can)
        compiled = implementation == "compiled"
        self._move_rows = compiled_by_torch(_move_rows, dynamic=True) if compiled else _move_rows
        self._take_out = compiled_by_torch(_take_out, dynamic=True) if compiled else _take_out

    @torch.no_grad()
    def gather(self) -> torch.Tensor:
        """Take over what a backward pass has collected; returns its sum of squares, a scalar."""
        square = self.parameters[0].new_zeros(())
        self._gradients = []
        for parameter, owner, unit in zip(self.parameters, self._owners, self.unit, strict=True):
            gradients = _disjoint(owner.take())
            for row_r, value_rD in gradients:
                if self._native:
                    square += native.gather(parameter.data, row_r, value_rD, unit)
                    continue
                for part in _blocks(*value_rD.shape):
                    value_sD = value_rD[part]
                    if unit:
                        self._take_out(parameter.data, row_r[part], value_sD)
                    square += value_sD.flatten() @ value_sD.flatten()
            self._gradients.append(gradients)
        return square

    @torch.no_grad()
    def step(self, lr: float, scale: torch.Tensor | float = 1.0) -> None:
        """Move the rows that have been gathered; ``scale`` is what their gradients are multiplied with."""
        self.steps += 1
        noise = torch.Generator().manual_seed(self.steps)
        scale = torch.as_tensor(scale, dtype=self.parameters[0].dtype, device=self.parameters[0].device)
        for number, gradients in enumerate(self._gradients):
            for row_r, value_rD in gradients:
                self._move(number, row_r, value_rD, scale, lr, noise)
        self._gradients = []

    @torch.no_grad()
    def catch_up(self, lr: float) -> None:
        """Make the moves of all rows that have had no gradient lately, as ``step`` would have when one came."""
        noise = torch.Generator().manual_seed(self.steps)
        for number, slots in enumerate(self.slots):
            due_r = ((slots["last"] < self.steps) & (slots["last"] > 0)).nonzero().squeeze(1)
            self._move(number, due_r, None, torch.ones(()), lr, noise)

    def permute(self, order_F: torch.Tensor) -> None:
        """Follow rows that have moved to other places."""
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
        self,
        number: int,
        row_r: torch.Tensor,
        value_rD: torch.Tensor | None,
        scale: torch.Tensor,
        lr: float,
        noise: torch.Generator,
    ) -> None:
        """One step for some rows, or, without gradients, the moves that are due up to and with this step."""
        if not len(row_r):
            return
        parameter, slots, (beta_mean, beta_square) = self.parameters[number].data, self.slots[number], self.betas
        last_r = slots["last"][row_r]
        missed_r = (self.steps - last_r - int(value_rD is not None)).to(parameter.dtype).masked_fill_(last_r == 0, 0.0)
        rate = lr / (1 - beta_mean**self.steps)
        root = (1 - beta_square**self.steps) ** -0.5
        ratio = beta_mean / beta_square**0.5
        due = [rate * ratio * (1 - ratio**missed_r) / (1 - ratio), beta_mean**missed_r, beta_square**missed_r]
        if self._native and value_rD is not None:
            native.move(
                parameter,
                slots["mean"],
                slots["square"],
                row_r,
                value_rD,
                torch.stack(due, 1),
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
            # Tensors, since code compiled for one number is compiled again for another.
            rates = (scale, parameter.new_tensor(rate), parameter.new_tensor(root))
            self._move_blocks(number, row_r, value_rD, due, rates, noise)
        slots["last"][row_r] = self.steps

    def _move_blocks(
        self,
        number: int,
        row_r: torch.Tensor,
        value_rD: torch.Tensor | None,
        due: list[torch.Tensor],
        rates: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        noise: torch.Generator,
    ) -> None:
        """The moves of some rows, a block at a time; ``due`` and ``rates`` as ``_move_rows`` takes them."""
        parameter, slots = self.parameters[number].data, self.slots[number]
        series_r, mean_kept_r, square_kept_r = due
        rounded = slots["mean"].dtype == torch.bfloat16
        move = _move_rows if value_rD is None else self._move_rows
        for part in _blocks(len(row_r), parameter.shape[1]):
            row_s = row_r[part]
            draws = [_draw(len(row_s), parameter, noise) if rounded else None for _ in ("mean", "square")]
            move(
                parameter,
                slots["mean"],
                slots["square"],
                row_s,
                None if value_rD is None else value_rD[part],
                series_r[part, None],
                mean_kept_r[part, None],
                square_kept_r[part, None],
                *rates,
                self.unit[number],
                *self.betas,
                self.eps,
                draws[0],
                draws[1],
            )


def _take_out(weight_FD: torch.Tensor, row_s: torch.Tensor, value_sD: torch.Tensor) -> None:
    """Take out of gradients, in place, what lies along their rows of length 1."""
    rows_sD = weight_FD[row_s]
    value_sD.sub_(rows_sD * (value_sD * rows_sD).sum(1, keepdim=True))


def _move_rows(
    weight_FD: torch.Tensor,
    mean_FD: torch.Tensor,
    square_FD: torch.Tensor,
    row_s: torch.Tensor,
    value_sD: torch.Tensor | None,
    series_s1: torch.Tensor,
    mean_kept_s1: torch.Tensor,
    square_kept_s1: torch.Tensor,
    scale: torch.Tensor,
    rate: torch.Tensor,
    root: torch.Tensor,
    unit: bool,
    beta_mean: float,
    beta_square: float,
    eps: float,
    mean_draws_sD: torch.Tensor | None,
    square_draws_sD: torch.Tensor | None,
) -> None:
    """Adam's moves of some rows, in place: those of the steps that a row has missed, then that of this step.

    Args:
        series_s1: rate and geometric series of what was missed; 0 where nothing was.
        mean_kept_s1, square_kept_s1: what is left of the moments after it.
        scale: of the gradients.
        rate: the learning rate, corrected for the bias of the mean.
        root: what corrects the square root of the mean square.
        mean_draws_sD, square_draws_sD: as ``_rounded`` takes them.
    """
    # In place: where this is not compiled, each new block of numbers costs as much as the work on it.
    weight_sD = weight_FD[row_s]
    mean_sD, square_sD = mean_FD[row_s].to(weight_sD.dtype), square_FD[row_s].to(weight_sD.dtype)
    weight_sD.addcdiv_(mean_sD * series_s1, square_sD.sqrt().mul_(root).add_(eps), value=-1)
    mean_sD.mul_(mean_kept_s1)
    square_sD.mul_(square_kept_s1)
    if value_sD is not None:
        value_sD = value_sD * scale
        mean_sD.lerp_(value_sD, 1 - beta_mean)
        square_sD.mul_(beta_square).addcmul_(value_sD, value_sD, value=1 - beta_square)
        weight_sD.addcdiv_(mean_sD * rate, square_sD.sqrt().mul_(root).add_(eps), value=-1)
    if unit:
        weight_sD /= weight_sD.norm(dim=1, keepdim=True).clamp_min(1e-12)
    weight_FD[row_s] = weight_sD
    mean_FD[row_s] = _rounded(mean_sD, mean_draws_sD)
    square_FD[row_s] = _rounded(square_sD, square_draws_sD)


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


def _blocks(rows: int, width: int) -> Iterator[slice]:
    size = max(1, _BLOCK // width)
    return (slice(start, start + size) for start in range(0, rows, size))


def _draw(rows: int, like: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """What ``_rounded`` decides by, for a block of rows."""
    return torch.randint(0, 1 << 16, (rows, like.shape[1]), generator=noise, dtype=torch.int32).to(like.device)


def _rounded(value: torch.Tensor, draws: torch.Tensor | None) -> torch.Tensor:
    """Numbers as bfloat16, drawn from the two neighbours such that the mean is right; as they are without ``draws``.

    An average that a step moves by a thousandth would never move by bfloat16's steps of a 256th.
    """
    if draws is None:
        return value
    return ((value.view(torch.int32) + draws) & -(1 << 16)).view(torch.float32).to(torch.bfloat16)
