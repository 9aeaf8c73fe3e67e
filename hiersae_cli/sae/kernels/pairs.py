"""The children of each active parent, and the places of all pairs of a row and an active parent.

Legend of shapes: P parents, C children of the level (root children among them), p pairs, g groups of pairs with one
parent, m places of all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.kernels.sparse import Pattern


@dataclass(frozen=True)
class Blocks:
    """The children of each parent in a sorted level: parent p has ``first_P[p]`` to ``first_P[p + 1]``.

    Root children come last.
    """

    first_P: torch.Tensor
    children: int

    @classmethod
    def of(cls, parent_C: torch.Tensor, parents: int) -> Blocks | None:
        """The blocks of a level, given its parents: numbers in the level above, or ``NO_PARENT``.

        None if the level is not sorted by parent, with root children last.
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
    """Pairs of a row and an active parent, sorted by parent, and the places of each pair.

    A pair has one place for each child of its parent, in order. The places of a pair follow those of the pair before.

    Args:
        active: the active parents; ``first`` is the number of the first parent.
        blocks: the children of each parent.
    """

    def __init__(self, active: Pattern, first: int, blocks: Blocks):
        parent_p, order_p = (active.latent_n - first).sort(stable=True)
        self.row_p, self.parent_p = active.row_n[order_p], parent_p
        self.blocks = blocks
        self.child_p = blocks.first_P[parent_p]
        self.width_p = blocks.first_P[parent_p + 1] - self.child_p

    @cached_property
    def first_p(self) -> torch.Tensor:
        """The first place of each pair, and at the end the number of places, (p + 1,)."""
        return torch.cat([self.width_p.new_zeros(1), self.width_p.cumsum(0)])

    @cached_property
    def groups(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The first pair of each group, and at the end p, (g + 1,); its first child and number of children, (g,)."""
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
        """The pairs where ``mask_p`` holds."""
        part = object.__new__(Pairs)
        part.blocks = self.blocks
        part.row_p, part.parent_p, part.child_p, part.width_p = (
            column[mask_p] for column in (self.row_p, self.parent_p, self.child_p, self.width_p)
        )
        return part
