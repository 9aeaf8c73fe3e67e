"""Pre-activations behind a closed gate: products of only root children and the children of active parents.

Legend of shapes: B rows, D width, C latents of the level, n places.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.kernels.grouped import above
from hiersae_cli.sae.kernels.pairs import Blocks, Pairs
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode
from hiersae_cli.sae.parts import GROUPED, profiled


class GatedReading:
    """Pre-activations of one level in which a child fires only with its parent; a ``base.LevelReading``.

    Args:
        input_BD: the input of the level's encoder.
        w_CD, b_C: its weights and biases.
        scale_C: a factor of each latent's product, or None for 1.
        at: a function that gives the exact pre-activations at the places of a pattern, with gradients.
        active: the active latents of the level above.
        parent_C: parents of the level's latents, numbered as ``active`` numbers them.
        first_parent: the first latent of the level above.
        blocks: the children of each parent.
        code: in a second pass, the first code, whose activations are added to the products.
    """

    def __init__(
        self,
        input_BD: torch.Tensor,
        w_CD: torch.Tensor,
        b_C: torch.Tensor,
        scale_C: torch.Tensor | None,
        at: Callable[[Pattern], torch.Tensor],
        active: Pattern,
        parent_C: torch.Tensor,
        first_parent: int,
        blocks: Blocks,
        code: SparseCode | None = None,
    ):
        self.at = at
        self._input_BD, self._w_CD, self._b_C = input_BD.detach(), w_CD.detach(), b_C.detach()
        self._scale_C = None if scale_C is None else scale_C.detach()
        self._active, self._parent_C, self._blocks, self._code = active, parent_C, blocks, code
        self._pairs = Pairs(active, first_parent, blocks)

    @torch.no_grad()
    def above(self, bound_C: torch.Tensor, part: slice, latents: int) -> tuple[Pattern, torch.Tensor]:
        """The places where pre-activations exceed a bound, and their values there; see ``base.Reading``."""
        bound_C = bound_C.expand(self._blocks.children)
        with profiled(GROUPED):
            row_n, child_n, value_n = above(self._input_BD, self._w_CD, self._b_C, bound_C, self._pairs, self._scale_C)
        rows, columns = [row_n], [child_n]
        roots = self._blocks.roots
        if roots.stop > roots.start:
            active_roots = self._roots_above(roots, bound_C[roots])
            rows.append(active_roots.row_n)
            columns.append(active_roots.latent_n)
        if self._code is None and len(rows) == 1:
            place_n, order_n = (row_n * latents + child_n).sort()
            return Pattern(len(self._input_BD), latents, row_n[order_n], child_n[order_n] + part.start), value_n[
                order_n
            ]
        if self._code is not None:  # a latent of the first code may fire again even if its product is small
            pattern = self._code.pattern.where(self._reachable(self._code.pattern, part))
            rows.append(pattern.row_n)
            columns.append(pattern.latent_n - part.start)
        place_n = (torch.cat(rows) * latents + torch.cat(columns)).unique()
        row_n = place_n.div(latents, rounding_mode="floor")
        pattern = Pattern(len(self._input_BD), latents, row_n, place_n - row_n * latents + part.start)
        return pattern, self.at(pattern)

    def _roots_above(self, roots: slice, bound_C: torch.Tensor) -> Pattern:
        weights_CD = self._w_CD[roots] if self._scale_C is None else self._w_CD[roots] * self._scale_C[roots, None]
        pre_BC = torch.nn.functional.linear(self._input_BD, weights_CD, self._b_C[roots])
        return Pattern.above(pre_BC, bound_C, roots.start, self._blocks.children)

    def _reachable(self, pattern: Pattern, part: slice) -> torch.Tensor:
        """Whether each place, (n,), has an active parent or no parent."""
        parent_n = self._parent_C[pattern.latent_n - part.start]
        return (parent_n == NO_PARENT) | self._active.find(pattern.row_n * pattern.latents + parent_n)[1]
