"""The grouped product of ``grouped`` as a Triton kernel, for CUDA. Legend of shapes: see ``grouped``; t tiles."""

from __future__ import annotations

import os

import torch

from hiersae_cli.sae.kernels.pairs import Pairs

try:
    import triton
    import triton.language as tl
except ImportError:  # only PyTorch's builds for CUDA bring Triton
    triton = None

_PAIRS, _CHILDREN, _DEPTH = 16, 32, 32  # sizes of a tile


def available() -> bool:
    """Whether Triton is installed."""
    return triton is not None


def values(
    x_BD: torch.Tensor, w_CD: torch.Tensor, offset_C: torch.Tensor, pairs: Pairs, scale_C: torch.Tensor | None
) -> torch.Tensor:
    """scale * (x . w) + offset at the places of all pairs, (m,) float32, computed in full float32.

    ``TRITON_INTERPRET=1`` lets it run on the CPU, for tests. Raises ``RuntimeError`` without Triton or CUDA.
    """
    if triton is None:
        raise RuntimeError("Triton is not installed")
    if not x_BD.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("the kernel needs CUDA, or TRITON_INTERPRET=1")
    value_m = x_BD.new_empty(int(pairs.first_p[-1]))
    first_g, _, width_g = pairs.groups
    group_first_g, rows_g = first_g[:-1], first_g.diff()
    # A tile is up to 16 pairs of one group by up to 32 children of its parent; the grid is the list of all tiles.
    tiles_down_g = rows_g.add(_PAIRS - 1).div(_PAIRS, rounding_mode="floor")
    tiles_across_g = width_g.add(_CHILDREN - 1).div(_CHILDREN, rounding_mode="floor")
    group_t = torch.arange(len(rows_g), device=x_BD.device).repeat_interleave(tiles_down_g * tiles_across_g)
    first_tile_g = (tiles_down_g * tiles_across_g).cumsum(0) - tiles_down_g * tiles_across_g
    number_t = torch.arange(len(group_t), device=x_BD.device) - first_tile_g[group_t]
    pair_t = group_first_g[group_t] + number_t.div(tiles_across_g[group_t], rounding_mode="floor") * _PAIRS
    end_t = (group_first_g + rows_g)[group_t]
    column_t = (number_t % tiles_across_g[group_t].clamp_min(1)) * _CHILDREN
    if len(group_t):
        _kernel[(len(group_t),)](
            x_BD.contiguous(),
            w_CD,
            offset_C,
            offset_C if scale_C is None else scale_C,
            value_m,
            pairs.row_p,
            pairs.first_p,
            pairs.child_p,
            pairs.width_p,
            pair_t,
            end_t,
            column_t,
            x_BD.shape[1],
            w_CD.stride(0),
            scale_C is not None,
            _PAIRS,
            _CHILDREN,
            _DEPTH,
        )
    return value_m


if triton is not None:

    @triton.jit
    def _kernel(  # type: ignore[no-untyped-def]
        x,
        w,
        offset,
        scale,
        value,
        row_p,
        first_p,
        child_p,
        width_p,
        pair_t,
        end_t,
        column_t,
        width,
        stride,
        scaled: tl.constexpr,
        pairs: tl.constexpr,
        children: tl.constexpr,
        depth: tl.constexpr,
    ):
        tile = tl.program_id(0)
        first = tl.load(pair_t + tile)
        pair = first + tl.arange(0, pairs)
        is_pair = pair < tl.load(end_t + tile)
        column = tl.load(column_t + tile) + tl.arange(0, children)
        is_child = column < tl.load(width_p + first)
        child = tl.load(child_p + first) + column
        row = tl.load(row_p + pair, mask=is_pair, other=0)
        total = tl.zeros((pairs, children), dtype=tl.float32)
        for start in range(0, width, depth):
            at = start + tl.arange(0, depth)
            inside = at < width
            a = tl.load(x + row[:, None] * width + at[None, :], mask=is_pair[:, None] & inside[None, :], other=0.0)
            b = tl.load(w + child[None, :] * stride + at[:, None], mask=is_child[None, :] & inside[:, None], other=0.0)
            total += tl.dot(a, b, input_precision="ieee")
        if scaled:
            total *= tl.load(scale + child, mask=is_child, other=0.0)[None, :]
        total += tl.load(offset + child, mask=is_child, other=0.0)[None, :]
        place = tl.load(first_p + pair, mask=is_pair, other=0)
        tl.store(value + place[:, None] + column[None, :], total, mask=is_pair[:, None] & is_child[None, :])
