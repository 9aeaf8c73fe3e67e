"""The soft tree: which coarse latent each fine latent belongs to, learned from what fires together.

Legend of shapes: B rows, P coarse latents (parents), F fine latents (children).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.kernels.sparse import Pattern

LEAST_COUNT = 10.0  # firings of a child below which nothing is said of its parent
# Share of the rows above which a latent is no parent. A latent of rate p contains a share p of any other by chance, and
# no child of it has a lift above 1 / p: at rate .996 every child lies within it, and none fires any likelier for it.
MOST_PARENT_RATE = 0.75


class CoActivation(nn.Module):
    """Streaming counts of firings and of firings together, forgetting slowly.

    Counts are gathered sparsely: a row adds (its active parents) x (its active children) numbers.
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
        """Count the firings of a batch; latents are numbered from ``first_parent`` and ``first_child`` on."""
        parent, child = parents.latent_n - first_parent, children.latent_n - first_child
        self.rows += parents.rows
        self.parent_P += parent.bincount(minlength=len(self.parent_P))
        self.child_F += child.bincount(minlength=len(self.child_F))
        # Pair every firing child with each parent that fires in its row; rows are sorted in both lists.
        first_B = parents.first_B
        repeats = first_B.diff()[children.row_n]
        within = torch.arange(int(repeats.sum()), device=child.device)
        within -= (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
        pair_parent = parent[first_B[children.row_n].repeat_interleave(repeats) + within]
        flat = child.repeat_interleave(repeats) * self.both_FP.shape[1] + pair_parent
        self.both_FP.view(-1).scatter_add_(0, flat, torch.ones_like(flat, dtype=self.both_FP.dtype))

    @torch.no_grad()
    def forget(self, keep: float) -> None:
        """Scale every count by ``keep``: what lies back counts less."""
        for counts in (self.rows, self.parent_P, self.child_F, self.both_FP):
            counts *= keep

    @torch.no_grad()
    def permute(self, parents_P: torch.Tensor, children_F: torch.Tensor) -> None:
        """Follow a new order: the parent at place p comes from place ``parents_P[p]``, and children likewise."""
        self.parent_P.copy_(self.parent_P[parents_P])
        self.child_F.copy_(self.child_F[children_F])
        self.both_FP.copy_(self.both_FP[children_F][:, parents_P])

    @torch.no_grad()
    def best_parents(self, least_containment: float = 0.0) -> torch.Tensor:
        """The parent (F,) with the most mutual information, or ``NO_PARENT``.

        None is given where no latent that ``may_be_parent`` contains the child beyond chance by more than
        ``least_containment`` (as ``containment``), where the bias-corrected information is not positive, or where the
        child hardly fires.
        """
        information_FP = mutual_information(self.both_FP, self.child_F[:, None], self.parent_P, self.rows)
        allowed_FP = (self._excess() > least_containment) & may_be_parent(self.parent_P, self.rows)
        information_FP = information_FP.masked_fill(~allowed_FP, 0.0)
        best_F, parent_F = information_FP.max(1)
        return torch.where((best_F > 0) & (self.child_F >= LEAST_COUNT), parent_F, NO_PARENT)

    @torch.no_grad()
    def parent_rates(self) -> torch.Tensor:
        """P(parent), (P,)."""
        return smoothed(self.parent_P, self.rows)

    @torch.no_grad()
    def containment(self) -> torch.Tensor:
        """How far each child's firing lies within each parent's, (F, P), beyond chance; 0 where the child hardly fires.

        (P(p | c) - P(p)) / (1 - P(p)): 1 where c fires only with p, 0 where p is no likelier with c than without.
        """
        return self._excess().clamp_min(0) * (self.child_F >= LEAST_COUNT)[:, None]

    def _excess(self) -> torch.Tensor:
        rate_P = self.parent_P / self.rows.clamp_min(1)
        given_FP = self.both_FP / self.child_F.clamp_min(1)[:, None]
        return (given_FP - rate_P) / (1 - rate_P).clamp_min(1e-6)

    @torch.no_grad()
    def child_rates(self, parent_F: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """P(child | its parent on) and P(child | off), (F,) each; P(child) twice for a root child."""
        given = parent_F >= 0
        at = parent_F.clamp_min(0)
        both_F = self.both_FP.gather(1, at[:, None]).squeeze(1)
        parent_F_count = self.parent_P[at]
        on_F = smoothed(both_F, parent_F_count)
        off_F = smoothed(self.child_F - both_F, self.rows - parent_F_count)
        rate_F = smoothed(self.child_F, self.rows)
        return torch.where(given, on_F, rate_F), torch.where(given, off_F, rate_F)


def may_be_parent(fired: Any, rows: Any) -> Any:
    """Whether latents that fire in ``fired`` of ``rows`` rows may be parents, in learned and post-hoc trees alike.

    Tensors or arrays of any shape, or numbers; see ``MOST_PARENT_RATE``.
    """
    return fired <= MOST_PARENT_RATE * rows


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
    sides = sum(((side > 0).to(both.dtype) + (side < rows).to(both.dtype)) for side in (child, parent))
    return information + (sides - occupied - 1) / (2 * rows * math.log(2))


def smoothed(count: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """A rate that is never 0 or 1: Krichevsky and Trofimov's estimate, half a firing added to each side."""
    return (count.clamp_min(0) + 0.5) / (of.clamp_min(0) + 1.0)
