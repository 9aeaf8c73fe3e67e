"""The soft tree: the parent of each fine latent, learned from the latents that fire together.

Legend of shapes: B rows, P coarse latents (parents), F fine latents (children).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.kernels.sparse import Pattern

LEAST_COUNT = 10.0  # firings that a child must have before it gets a parent
# A latent that fires in a larger share of the rows is no parent. A latent of rate p contains a share p of any other by
# chance, and no child of it has a lift above 1 / p: at rate .996 it contains every child and predicts none.
MOST_PARENT_RATE = 0.75


class CoActivation(nn.Module):
    """Running counts of firings and of joint firings, which forget slowly.

    The work is sparse: a row adds (its active parents) x (its active children) numbers.
    """

    rows: torch.Tensor
    parent_P: torch.Tensor
    child_F: torch.Tensor
    both_FP: torch.Tensor

    def __init__(self, parents: int, children: int):
        super().__init__()
        self.register_buffer("rows", torch.zeros(()))
        self.register_buffer("parent_P", torch.zeros(parents))
        self.register_buffer("child_F", torch.zeros(children))
        self.register_buffer("both_FP", torch.zeros(children, parents))

    @torch.no_grad()
    def add(self, parents: Pattern, children: Pattern, first_parent: int = 0, first_child: int = 0) -> None:
        """Count the firings of a batch; parents have numbers from ``first_parent``, children from ``first_child``."""
        parent, child = parents.latent_n - first_parent, children.latent_n - first_child
        self.rows += parents.rows
        self.parent_P += parent.bincount(minlength=len(self.parent_P))
        self.child_F += child.bincount(minlength=len(self.child_F))
        # Pair every active child with each active parent of its row; both lists are sorted by row.
        first_B = parents.first_B
        repeats = first_B.diff()[children.row_n]
        within = torch.arange(int(repeats.sum()), device=child.device)
        within -= (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
        pair_parent = parent[first_B[children.row_n].repeat_interleave(repeats) + within]
        cell = child.repeat_interleave(repeats) * self.both_FP.shape[1] + pair_parent
        self.both_FP.view(-1).scatter_add_(0, cell, torch.ones_like(cell, dtype=self.both_FP.dtype))

    @torch.no_grad()
    def forget(self, keep: float) -> None:
        """Scale every count by ``keep``, so that older firings count less."""
        for counts in (self.rows, self.parent_P, self.child_F, self.both_FP):
            counts *= keep

    @torch.no_grad()
    def permute(self, parents_P: torch.Tensor, children_F: torch.Tensor) -> None:
        """Reorder the counts: the new parent p is the old parent ``parents_P[p]``, and the same for children."""
        self.parent_P.copy_(self.parent_P[parents_P])
        self.child_F.copy_(self.child_F[children_F])
        self.both_FP.copy_(self.both_FP[children_F][:, parents_P])

    @torch.no_grad()
    def best_parents(self, least_containment: float = 0.0, most_rate: float = MOST_PARENT_RATE) -> torch.Tensor:
        """For each child (F,) the parent with the most mutual information, or ``NO_PARENT``.

        A child has no parent if it hardly fires, if the bias-corrected information is not positive, or if its
        ``containment`` is at most ``least_containment`` in every latent that ``may_be_parent`` at ``most_rate``.
        """
        information_FP = mutual_information(self.both_FP, self.child_F[:, None], self.parent_P, self.rows)
        allowed_FP = (self._excess() > least_containment) & may_be_parent(self.parent_P, self.rows, most_rate)
        information_FP = information_FP.masked_fill(~allowed_FP, 0.0)
        best_F, parent_F = information_FP.max(1)
        return torch.where((best_F > 0) & (self.child_F >= LEAST_COUNT), parent_F, NO_PARENT)

    @torch.no_grad()
    def parent_rates(self) -> torch.Tensor:
        """P(parent), (P,)."""
        return smoothed(self.parent_P, self.rows)

    @torch.no_grad()
    def containment(self) -> torch.Tensor:
        """How much each parent contains each child, beyond chance, (F, P); 0 for children that hardly fire.

        (P(p | c) - P(p)) / (1 - P(p)): 1 if c fires only with p, 0 if p is no more likely with c than without.
        """
        return self._excess().clamp_min(0) * (self.child_F >= LEAST_COUNT)[:, None]

    def _excess(self) -> torch.Tensor:
        """``containment`` before it is clamped, also of children that hardly fire."""
        rate_P = self.parent_P / self.rows.clamp_min(1)
        containment_FP = self.both_FP / self.child_F.clamp_min(1)[:, None]
        return (containment_FP - rate_P) / (1 - rate_P).clamp_min(1e-6)

    @torch.no_grad()
    def child_rates(self, parent_F: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """P(child | parent on) and P(child | parent off), (F,) each; both are P(child) for a root child."""
        has_parent = parent_F >= 0
        place_F = parent_F.clamp_min(0)
        both_F = self.both_FP.gather(1, place_F[:, None]).squeeze(1)
        parent_count_F = self.parent_P[place_F]
        on_F = smoothed(both_F, parent_count_F)
        off_F = smoothed(self.child_F - both_F, self.rows - parent_count_F)
        rate_F = smoothed(self.child_F, self.rows)
        return torch.where(has_parent, on_F, rate_F), torch.where(has_parent, off_F, rate_F)


def may_be_parent(fired: Any, rows: Any, most_rate: float = MOST_PARENT_RATE) -> Any:
    """Whether latents that fire in ``fired`` of ``rows`` rows may be parents: if their rate is at most ``most_rate``.

    Learned and post-hoc trees share this rule. Takes numbers, or tensors or arrays of any shape.
    """
    return fired <= most_rate * rows


def mutual_information(
    both: torch.Tensor, child: torch.Tensor, parent: torch.Tensor, rows: torch.Tensor | float
) -> torch.Tensor:
    """I(parent; child) in bits from counts of firings, Miller-Madow corrected; shapes broadcast.

    The plug-in estimate, plus (K_parent + K_child - K_both - 1) / (2 N ln 2), where K are the numbers of
    non-empty cells of the two margins and of the table. Source: Miller (1955); Paninski (2003).
    """
    rows = torch.as_tensor(rows, dtype=both.dtype, device=both.device).clamp_min(1e-12)
    cells = (both, child - both, parent - both, rows - child - parent + both)
    margins = ((child, parent), (child, rows - parent), (rows - child, parent), (rows - child, rows - parent))
    information = torch.zeros_like(both)
    occupied = torch.zeros_like(both)
    for cell, (of_child, of_parent) in zip(cells, margins, strict=True):
        cell = cell.clamp_min(0)
        full = cell > 0
        ratio = (cell * rows / (of_child * of_parent).clamp_min(1e-30)).where(full, torch.ones_like(cell))
        information += cell / rows * ratio.log2()
        occupied += full
    occupied_margins = sum(((margin > 0).to(both.dtype) + (margin < rows).to(both.dtype)) for margin in (child, parent))
    return information + (occupied_margins - occupied - 1) / (2 * rows * math.log(2))


def smoothed(count: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """A rate that is never 0 or 1: Krichevsky and Trofimov's estimate, half a firing added to each side."""
    return (count.clamp_min(0) + 0.5) / (of.clamp_min(0) + 1.0)
