"""Sparse codes, and the two products of them that training needs, forward and backward.

Few latents are active, so the products of a training step touch only these. The exception is the encoder's product that
finds the active latents, which is dense and needs no gradient. Everything here is exact.

Legend of shapes: B rows, D width, F latents, n active latents of all rows, in order of rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from hiersae_cli.distributed.ranks import Ranks
from hiersae_cli.sae.kernels import native

# Numbers in a block of gathered rows, so that it fits the caches.
_BLOCK = 1 << 19


RowGradient = tuple[torch.Tensor, torch.Tensor]  # distinct rows of a matrix (r,), and their gradients (r, D)


class RowGradients:
    """A collection of the gradients of single rows of one matrix, until an optimizer takes them.

    Autograd would fill a matrix of zeros instead. Pass the collection to ``Pattern.dots``, ``Pattern.sums`` and
    ``rows_of`` when they read the matrix.
    """

    def __init__(self) -> None:
        self._parts: list[RowGradient] = []

    def add(self, row_r: torch.Tensor, value_rD: torch.Tensor) -> None:
        """Add gradients (r, D) of distinct rows (r,); they may be changed in place later."""
        self._parts.append((row_r, value_rD))

    def take(self) -> list[RowGradient]:
        """The gradients added since the last call."""
        parts, self._parts = self._parts, []
        return parts


def rows_of(w_FD: torch.Tensor, row_r: torch.Tensor, collection: RowGradients | None = None) -> torch.Tensor:
    """``w_FD[row_r]``, (r, D), for distinct rows; their gradients go to ``collection`` if there is one."""
    return _Rows.apply(w_FD, row_r, collection)


class Pattern:
    """Which latents are active in which rows.

    Args:
        rows, latents: B and F.
        row_n, latent_n: row and latent of each place, int64, sorted by row and then by latent.
    """

    def __init__(self, rows: int, latents: int, row_n: torch.Tensor, latent_n: torch.Tensor):
        self.rows, self.latents, self.row_n, self.latent_n = rows, latents, row_n, latent_n

    @classmethod
    def of(cls, mask_BC: torch.Tensor, first: int = 0, latents: int | None = None) -> Pattern:
        """The places where a mask holds; its first column is the latent ``first``."""
        width = mask_BC.shape[1]
        place_n = places_of(mask_BC)
        row_n = place_n.div(width, rounding_mode="floor")
        return cls(len(mask_BC), latents or width, row_n, place_n - row_n * width + first)

    @classmethod
    def above(
        cls, dense_BC: torch.Tensor, bound_C: torch.Tensor, first: int = 0, latents: int | None = None
    ) -> Pattern:
        """The places where numbers exceed the bounds of their columns, (C,) or one for all; see ``of``."""
        if native.takes(dense_BC, torch.bfloat16):
            row_n, latent_n = native.find(dense_BC, bound_C, first)
            return cls(len(dense_BC), latents or dense_BC.shape[1], row_n, latent_n)
        return cls.of(dense_BC > bound_C, first, latents)

    def __len__(self) -> int:
        return len(self.row_n)

    def where(self, mask_n: torch.Tensor) -> Pattern:
        """The places where ``mask_n`` holds."""
        return Pattern(self.rows, self.latents, self.row_n[mask_n], self.latent_n[mask_n])

    @cached_property
    def place_n(self) -> torch.Tensor:
        """The number of each place, row * F + latent."""
        return self.row_n * self.latents + self.latent_n

    @cached_property
    def first_B(self) -> torch.Tensor:
        """The first place of each row, and at the end n: (B + 1,)."""
        edges = torch.arange(self.rows + 1, device=self.row_n.device)
        return torch.searchsorted(self.row_n, edges)

    @cached_property
    def by_latent(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The order (n,) that sorts by latent, the rows in that order, and the first place of each latent, (F,)."""
        latent_n, order_n = self.latent_n.sort(stable=True)
        starts = torch.arange(self.latents, device=latent_n.device)
        return order_n, self.row_n[order_n], torch.searchsorted(latent_n, starts)

    @cached_property
    def touched(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """``by_latent`` for only the active latents: order and rows (n,), latents and their first places (r,)."""
        latent_n, order_n = self.latent_n.sort(stable=True)
        latent_r, count_r = latent_n.unique_consecutive(return_counts=True)
        return order_n, self.row_n[order_n], latent_r, count_r.cumsum(0) - count_r

    def find(self, place_m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For numbers of places (m,), see ``place_n``: their index in this pattern, and whether they are in it."""
        places_n = self.place_n
        if not len(places_n):
            return torch.zeros_like(place_m), torch.zeros_like(place_m, dtype=torch.bool)
        index_m = torch.searchsorted(places_n, place_m).clamp_max(len(places_n) - 1)
        return index_m, places_n[index_m] == place_m

    def counts(self) -> torch.Tensor:
        """In how many rows each latent is active, (F,) int64."""
        return self.latent_n.bincount(minlength=self.latents)

    def dots(self, a_BD: torch.Tensor, w_FD: torch.Tensor, collection: RowGradients | None = None) -> torch.Tensor:
        """a[row] . w[latent] of every place, (n,), with gradients; those of w go to ``collection`` if there is one."""
        return _Dots.apply(a_BD, w_FD, self, collection)

    def sums(self, value_n: torch.Tensor, w_FD: torch.Tensor, collection: RowGradients | None = None) -> torch.Tensor:
        """The sum over each row's places of value * w[latent], (B, D), with gradients as in ``dots``."""
        return _Sums.apply(value_n, w_FD, self, collection)


class SparseCode:
    """A code: the activations ``value_n`` (n,), not negative, at the places of a pattern.

    Attributes:
        whole_BD: what this code and those of other ranks decode to together, once they have added it up.
    """

    def __init__(self, pattern: Pattern, value_n: torch.Tensor, whole_BD: torch.Tensor | None = None):
        self.pattern, self.value_n, self.whole_BD = pattern, value_n, whole_BD

    def among(self, latents: slice) -> SparseCode:
        """The part of the code that these latents have."""
        within_n = (self.pattern.latent_n >= latents.start) & (self.pattern.latent_n < latents.stop)
        return SparseCode(self.pattern.where(within_n), self.value_n[within_n])

    def at(self, pattern: Pattern) -> torch.Tensor:
        """The activations at the places of another pattern; 0 where nothing is active."""
        if not len(self.pattern):
            return self.value_n.new_zeros(len(pattern))
        index_n, active_n = self.pattern.find(pattern.place_n)
        return self.value_n[index_n] * active_n

    def decode(self, w_FD: torch.Tensor, collection: RowGradients | None = None) -> torch.Tensor:
        """The weighted sums of rows of ``w_FD``, (B, D); gradients as in ``Pattern.sums``."""
        return self.pattern.sums(self.value_n, w_FD, collection)

    def detach(self) -> SparseCode:
        """The same code without gradients."""
        return SparseCode(self.pattern, self.value_n.detach(), self.whole_BD)

    @property
    def fired(self) -> Pattern:
        """The places whose activation is above 0."""
        positive_n = self.value_n.detach() > 0
        return self.pattern if bool(positive_n.all()) else self.pattern.where(positive_n)


def of_all_rows(patterns: Sequence[Pattern], ranks: Ranks) -> list[Pattern]:
    """The places of each pattern on all ranks, each of which has equally many other rows of a batch."""
    if ranks.count == 1:
        return list(patterns)
    rows, latents = patterns[0].rows, patterns[0].latents
    columns = [(p.row_n + ranks.rank * rows, p.latent_n, torch.full_like(p.row_n, n)) for n, p in enumerate(patterns)]
    places_3n = torch.cat([torch.stack(column) for column in columns], 1).int()
    row_n, latent_n, number_n = torch.cat(ranks.parts(places_3n.T)).T.long()
    members = [number_n == number for number in range(len(patterns))]
    return [Pattern(rows * ranks.count, latents, row_n[member_n], latent_n[member_n]) for member_n in members]


def places_of(mask: torch.Tensor) -> torch.Tensor:
    """The places where a mask of any shape holds, (n,), as indices into the flattened mask."""
    if mask.device.type == "cpu":  # NumPy searches a mask several times faster
        return torch.from_numpy(mask.numpy().ravel().nonzero()[0])
    return mask.flatten().nonzero().squeeze(1)


def dense(codes: Sequence[SparseCode]) -> torch.Tensor:
    """Codes of different latents as one tensor (B, F)."""
    rows, latents = codes[0].pattern.rows, codes[0].pattern.latents
    place_n = torch.cat([code.pattern.place_n for code in codes])
    value_n = torch.cat([code.value_n for code in codes])
    return value_n.new_zeros(rows * latents).index_put((place_n,), value_n).view(rows, latents)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w_FD: torch.Tensor, row_r: torch.Tensor, collection: RowGradients | None) -> torch.Tensor:
        ctx.row_r, ctx.shape, ctx.collection = row_r, w_FD.shape, collection
        return w_FD[row_r]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        if ctx.collection is None:
            return gradients[0].new_zeros(ctx.shape).index_copy_(0, ctx.row_r, gradients[0]), None, None
        ctx.collection.add(ctx.row_r, gradients[0].clone(memory_format=torch.contiguous_format))
        return None, None, None


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a_BD: torch.Tensor, w_FD: torch.Tensor, pattern: Pattern, collection: RowGradients | None
    ) -> torch.Tensor:
        ctx.save_for_backward(a_BD, w_FD)
        ctx.pattern, ctx.collection = pattern, collection
        return dots(pattern, a_BD, w_FD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        a_BD, w_FD = ctx.saved_tensors
        to_a, to_w = ctx.needs_input_grad[:2]
        gradient_n, pattern = gradients[0].contiguous(), ctx.pattern
        return (
            _sums(pattern, gradient_n, w_FD) if to_a else None,
            _to_rows(ctx, gradient_n, a_BD) if to_w else None,
            None,
            None,
        )


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value_n: torch.Tensor, w_FD: torch.Tensor, pattern: Pattern, collection: RowGradients | None
    ) -> torch.Tensor:
        ctx.save_for_backward(value_n, w_FD)
        ctx.pattern, ctx.collection = pattern, collection
        return _sums(pattern, value_n, w_FD)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        value_n, w_FD = ctx.saved_tensors
        to_value, to_w = ctx.needs_input_grad[:2]
        gradient_BD, pattern = gradients[0].contiguous(), ctx.pattern
        return (
            dots(pattern, gradient_BD, w_FD) if to_value else None,
            _to_rows(ctx, value_n, gradient_BD) if to_w else None,
            None,
            None,
        )


def _sums(pattern: Pattern, value_n: torch.Tensor, w_FD: torch.Tensor) -> torch.Tensor:
    return _bags(pattern.latent_n, value_n, pattern.first_B[:-1], w_FD)


def _to_rows(ctx: Any, value_n: torch.Tensor, a_BD: torch.Tensor) -> torch.Tensor | None:
    """The gradient (F, D) of a matrix; None if its rows have gone to a collection."""
    if ctx.collection is None:
        return _transposed_sums(ctx.pattern, value_n, a_BD)
    order_n, row_n, latent_r, first_r = ctx.pattern.touched
    if len(latent_r):
        ctx.collection.add(latent_r, _bags(row_n, value_n[order_n], first_r, a_BD))
    return None


def _transposed_sums(pattern: Pattern, value_n: torch.Tensor, a_BD: torch.Tensor) -> torch.Tensor:
    """The sum over each latent's places of value * a[row], (F, D)."""
    order_n, row_n, first_F = pattern.by_latent
    return _bags(row_n, value_n[order_n], first_F, a_BD)


def _bags(index_n: torch.Tensor, value_n: torch.Tensor, first: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        weights_n = value_n.detach().to(rows.dtype)
        return torch.nn.functional.embedding_bag(
            index_n, rows.detach(), first, per_sample_weights=weights_n, mode="sum"
        )


def dots(pattern: Pattern, a_BD: torch.Tensor, w_FD: torch.Tensor) -> torch.Tensor:
    """a[row] . w[latent] of each place, (n,), without gradients."""
    if can_sample(a_BD):
        return sampled_products(pattern.first_B, pattern.latent_n, a_BD.detach(), w_FD.detach())
    # Without such a product: gathered rows, block by block.
    dot_n = a_BD.new_empty(len(pattern))
    size = max(1, _BLOCK // a_BD.shape[1])
    for start in range(0, len(pattern), size):
        part = slice(start, start + size)
        dot_n[part] = (a_BD[pattern.row_n[part]] * w_FD[pattern.latent_n[part]]).sum(1)
    return dot_n


def can_sample(a_BD: torch.Tensor) -> bool:
    """Whether ``sampled_products`` works for rows of this device and type."""
    if native.takes(a_BD):
        return True
    device_has_it = a_BD.is_cuda or (a_BD.device.type == "cpu" and torch.backends.mkl.is_available())
    return device_has_it and a_BD.dtype in (torch.float32, torch.float64)


def sampled_products(
    first_B: torch.Tensor, latent_n: torch.Tensor, a_BD: torch.Tensor, w_FD: torch.Tensor
) -> torch.Tensor:
    """a[row] . w[latent] of places sorted by row, (n,), without gradients; those of row b start at ``first_B[b]``."""
    if native.takes(a_BD):
        return native.dots(first_B, latent_n, a_BD, w_FD)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # such tensors are in beta state
        places = torch.sparse_csr_tensor(first_B, latent_n, a_BD.new_zeros(len(latent_n)), (len(a_BD), len(w_FD)))
        return torch.sparse.sampled_addmm(places, a_BD, w_FD.T, beta=0.0).values()
