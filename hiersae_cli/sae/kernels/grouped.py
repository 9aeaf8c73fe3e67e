"""Pre-activations of only the children of active parents: products in ragged groups, one group for each parent.

The pairs (row, active parent) are sorted by parent, and a parent's children are side by side. So each parent needs one
product of its rows with one block of weights, of any height and width. Four implementations give the same numbers up to
rounding: gathered products, which are the definition; on the CPU a kernel in C, or PyTorch's products if it cannot be
compiled; Triton on CUDA.

Legend of shapes: B rows, D width, P parents, C children of the level (root children among them), p pairs, g groups of
pairs with one parent, m places of all pairs, n places above the bound.
"""

from __future__ import annotations

import torch

from hiersae_cli.device import has_fast_bfloat16
from hiersae_cli.sae.kernels import native
from hiersae_cli.sae.kernels.pairs import Pairs
from hiersae_cli.sae.kernels.sparse import can_sample, places_of, sampled_products

# Rows of a group from which a matrix product is faster on the CPU than a dot product for each place.
_LEAST_ROWS = 12
# Numbers in a block of the reference's gathered rows.
_BLOCK = 1 << 22


def above(
    x_BD: torch.Tensor,
    w_CD: torch.Tensor,
    offset_C: torch.Tensor,
    bound_C: torch.Tensor,
    pairs: Pairs,
    scale_C: torch.Tensor | None = None,
    implementation: str = "",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The places where scale * (x . w) + offset exceeds a bound, among the children of active parents, in any order.

    Returns rows, children and values, (n,) each. Root children are not included.

    Args:
        scale_C: None for 1.
        implementation: "reference", "cpu", "native" or "triton"; by default the fastest for the device.
    """
    implementation = implementation or implementation_for(x_BD)
    if implementation == "native":
        return native.above(x_BD, w_CD, offset_C, bound_C, scale_C, pairs.row_p, *pairs.groups)
    products = _cpu if implementation == "cpu" else _triton if implementation == "triton" else _reference
    matches = []
    for part, value_m in products(x_BD, w_CD, offset_C - bound_C, pairs, scale_C):
        place_n = places_of(value_m > 0)
        pair_n = torch.searchsorted(part.first_p, place_n, right=True) - 1
        child_n = part.child_p[pair_n] + place_n - part.first_p[pair_n]
        matches.append((part.row_p[pair_n], child_n, value_m[place_n] + bound_C[child_n]))
    row_n, child_n, value_n = (torch.cat(column) for column in zip(*matches, strict=True))
    return row_n, child_n, value_n


def implementation_for(x_BD: torch.Tensor) -> str:
    """The fastest implementation for rows of this device and type: native, cpu, triton or reference."""
    if x_BD.device.type == "cpu":
        # PyTorch's products use the processor's instructions for bfloat16; the kernel does not.
        fast_bfloat16 = torch.is_autocast_enabled("cpu") and has_fast_bfloat16(x_BD.device)
        return "native" if native.takes(x_BD) and not fast_bfloat16 else "cpu"
    if x_BD.is_cuda and x_BD.dtype == torch.float32:
        from hiersae_cli.sae.kernels.grouped_triton import available

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
    """Large groups by a matrix product each; small ones by dot products, which have no cost for each group."""
    rows_P = pairs.parent_p.bincount(minlength=len(pairs.blocks.first_P) - 1)
    many_p = rows_P[pairs.parent_p] >= (_LEAST_ROWS if can_sample(x_BD) else 1)
    many, few = pairs.where(many_p), pairs.where(~many_p)
    values = [(many, _by_group(x_BD, w_CD, offset_C, many, scale_C))]
    if len(few.row_p):
        values.append((few, _by_place(x_BD, w_CD, offset_C, few, scale_C)))
    return values


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
            output = part.view(-1, width)
            if scale_C is None:
                torch.addmm(offset_C[block], input_D, w_CD[block].T, out=output)
            else:
                torch.mm(input_D, w_CD[block].T, out=output).mul_(scale_C[block]).add_(offset_C[block])
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
    from hiersae_cli.sae.kernels.grouped_triton import values

    return [(pairs, values(x_BD, w_CD, offset_C, pairs, scale_C))]
