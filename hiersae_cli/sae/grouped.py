"""Pre-activations of the children of active parents alone: products in ragged groups, one a parent.

The pairs (row, active parent) are sorted by parent, and a parent's children lie side by side, so each parent is one
product of its rows with one block of weights. The groups are ragged both ways. Four implementations give the same
numbers up to rounding: gathered products, which are the definition; on the CPU a kernel in C, and PyTorch's products
where it cannot be compiled; Triton on CUDA.

Legend of shapes: B rows, D width, P parents, C children of the level (root children among them), p pairs, g groups of
pairs with one parent, m places of all pairs, n places found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from hiersae_cli.device import has_fast_bfloat16
from hiersae_cli.sae import native
from hiersae_cli.sae.sparse import Pattern, can_sample, places_of, sampled_products
from hiersae_cli.sae.tree import NO_PARENT

# Rows of a group from which on a matrix product of its own is faster on the CPU than a dot product for each place.
_LEAST_ROWS = 12
# Numbers in a block of the reference's gathered rows.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Blocks:
    """Where each parent's children lie in their level: parent p has ``first_P[p]`` to ``first_P[p + 1]``.

    Root children follow the last of them.
    """

    first_P: torch.Tensor
    children: int

    @classmethod
    def of(cls, parent_C: torch.Tensor, parents: int) -> Blocks | None:
        """The blocks of a level whose children have these parents, numbered in the level above, or ``NO_PARENT``.

        None where children do not lie in the order of their parents, root children last.
        """
        key_C = torch.where(parent_C == NO_PARENT, parents, parent_C)
        if bool((key_C.diff() < 0).any()):
            return None
        edges = torch.arange(parents + 1, device=parent_C.device)
        return cls(torch.searchsorted(key_C, edges), len(parent_C))

    @cached_property
    def roots(self) -> slice:
        """The root children."""
        return slice(int(self.first_P[-1]), self.children)


class Pairs:
    """Pairs of a row and an active parent in the order of parents, and where the places of each begin.

    A pair has a place for every child of its parent, in their order; the places of all pairs follow each other.

    Args:
        active: the active parents, numbered from ``first`` on.
        blocks: where their children lie.
    """

    def __init__(self, active: Pattern, first: int, blocks: Blocks):
        parent_p, order_p = (active.latent_n - first).sort(stable=True)
        self.row_p, self.parent_p = active.row_n[order_p], parent_p
        self.blocks = blocks
        self.child_p = blocks.first_P[parent_p]
        self.width_p = blocks.first_P[parent_p + 1] - self.child_p

    @cached_property
    def first_p(self) -> torch.Tensor:
        """Where the places of each pair begin, and at the end their number, (p + 1,)."""
        return torch.cat([self.width_p.new_zeros(1), self.width_p.cumsum(0)])

    @cached_property
    def groups(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where each parent's pairs begin, and at the end p, (g + 1,); its first child, and how many, (g,)."""
        parent_g, pairs_g = self.parent_p.unique_consecutive(return_counts=True)
        first_g = torch.cat([pairs_g.new_zeros(1), pairs_g.cumsum(0)])
        child_g = self.blocks.first_P[parent_g]
        return first_g, child_g, self.blocks.first_P[parent_g + 1] - child_g

    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The pair and the child of every place, (m,) each."""
        pair_m = torch.arange(len(self.row_p), device=self.row_p.device).repeat_interleave(self.width_p)
        within_m = torch.arange(len(pair_m), device=pair_m.device) - self.first_p[pair_m]
        return pair_m, self.child_p[pair_m] + within_m

    def where(self, mask_p: torch.Tensor) -> Pairs:
        """Those of the pairs where ``mask_p`` holds."""
        part = object.__new__(Pairs)
        part.blocks = self.blocks
        part.row_p, part.parent_p, part.child_p, part.width_p = (
            column[mask_p] for column in (self.row_p, self.parent_p, self.child_p, self.width_p)
        )
        return part


def above(
    x_BD: torch.Tensor,
    w_CD: torch.Tensor,
    offset_C: torch.Tensor,
    bound_C: torch.Tensor,
    pairs: Pairs,
    scale_C: torch.Tensor | None = None,
    implementation: str = "",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where scale * (x . w) + offset exceeds a bound at the children of active parents, in any order.

    Returns rows, children and the values that exceed, (n,) each. Root children are no part of it.

    Args:
        scale_C: 1 unless given.
        implementation: reference, cpu, native or triton; that of the device unless given.
    """
    implementation = implementation or implementation_for(x_BD)
    if implementation == "native":
        return native.above(x_BD, w_CD, offset_C, bound_C, scale_C, pairs.row_p, *pairs.groups)
    by_place = _cpu if implementation == "cpu" else _triton if implementation == "triton" else _reference
    found = []
    for part, value_m in by_place(x_BD, w_CD, offset_C - bound_C, pairs, scale_C):
        place_n = places_of(value_m > 0)
        pair_n = torch.searchsorted(part.first_p, place_n, right=True) - 1
        child_n = part.child_p[pair_n] + place_n - part.first_p[pair_n]
        found.append((part.row_p[pair_n], child_n, value_m[place_n] + bound_C[child_n]))
    row_n, child_n, value_n = (torch.cat(column) for column in zip(*found, strict=True))
    return row_n, child_n, value_n


def implementation_for(x_BD: torch.Tensor) -> str:
    """The fastest implementation for rows of this device and type: native, cpu, triton or reference."""
    if x_BD.device.type == "cpu":
        tiles = torch.is_autocast_enabled("cpu") and has_fast_bfloat16(x_BD.device)  # PyTorch's products use them
        return "native" if native.takes(x_BD) and not tiles else "cpu"
    if x_BD.is_cuda and x_BD.dtype == torch.float32:
        from hiersae_cli.sae.grouped_triton import available

        if available():
            return "triton"
    return "reference"


Values = list[tuple[Pairs, torch.Tensor]]


def _reference(
    x_BD: torch.Tensor, w_CD: torch.Tensor, offset_C: torch.Tensor, pairs: Pairs, scale_C: torch.Tensor | None
) -> Values:
    pair_m, child_m = pairs.places()
    row_m = pairs.row_p[pair_m]
    size = max(1, _BLOCK // x_BD.shape[1])
    dots = [(x_BD[row] * w_CD[child]).sum(1) for row, child in zip(row_m.split(size), child_m.split(size), strict=True)]
    dot_m = torch.cat(dots) if dots else x_BD.new_zeros(0)
    return [(pairs, dot_m * (1.0 if scale_C is None else scale_C[child_m]) + offset_C[child_m])]


def _cpu(
    x_BD: torch.Tensor, w_CD: torch.Tensor, offset_C: torch.Tensor, pairs: Pairs, scale_C: torch.Tensor | None
) -> Values:
    """Groups of many rows by a matrix product each; the others by dot products, which have no cost for each group."""
    rows_P = pairs.parent_p.bincount(minlength=len(pairs.blocks.first_P) - 1)
    many_p = rows_P[pairs.parent_p] >= (_LEAST_ROWS if can_sample(x_BD) else 1)
    many, few = pairs.where(many_p), pairs.where(~many_p)
    found = [(many, _by_group(x_BD, w_CD, offset_C, many, scale_C))]
    if len(few.row_p):
        found.append((few, _by_place(x_BD, w_CD, offset_C, few, scale_C)))
    return found


def _by_group(
    x_BD: torch.Tensor, w_CD: torch.Tensor, offset_C: torch.Tensor, pairs: Pairs, scale_C: torch.Tensor | None
) -> torch.Tensor:
    value_m = x_BD.new_empty(int(pairs.first_p[-1]))
    first_g, child_g, width_g = pairs.groups
    rows_g = first_g.diff()
    parts = value_m.split((rows_g * width_g).tolist())
    inputs = x_BD[pairs.row_p].split(rows_g.tolist())
    for first, width, input_D, part in zip(child_g.tolist(), width_g.tolist(), inputs, parts, strict=True):
        if width:
            block = slice(first, first + width)
            into = part.view(-1, width)
            if scale_C is None:
                torch.addmm(offset_C[block], input_D, w_CD[block].T, out=into)
            else:
                torch.mm(input_D, w_CD[block].T, out=into).mul_(scale_C[block]).add_(offset_C[block])
    return value_m


def _by_place(
    x_BD: torch.Tensor, w_CD: torch.Tensor, offset_C: torch.Tensor, pairs: Pairs, scale_C: torch.Tensor | None
) -> torch.Tensor:
    child_m = pairs.places()[1]
    value_m = sampled_products(pairs.first_p, child_m, x_BD[pairs.row_p], w_CD)
    return (value_m if scale_C is None else value_m.mul_(scale_C[child_m])).add_(offset_C[child_m])


def _triton(
    x_BD: torch.Tensor, w_CD: torch.Tensor, offset_C: torch.Tensor, pairs: Pairs, scale_C: torch.Tensor | None
) -> Values:
    from hiersae_cli.sae.grouped_triton import values

    return [(pairs, values(x_BD, w_CD, offset_C, pairs, scale_C))]
