"""The hierarchical sparse autoencoder: levels of latents, each on the residual of those before, and a soft tree.

Legend of shapes: B rows, D width, L levels, F latents of all levels, C latents of one level, n active latents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch

from hiersae_cli.config.architectures import HierOptions
from hiersae_cli.config.curriculum import Phase
from hiersae_cli.distributed.ranks import largest_by_key
from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.base import LevelReading, SparseAutoencoder, Step, StepContext
from hiersae_cli.sae.kernels.gated import GatedReading
from hiersae_cli.sae.kernels.pairs import Blocks
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode, dense, of_all_rows
from hiersae_cli.sae.releveling import exchange
from hiersae_cli.sae.tree import MOST_PARENT_RATE, CoActivation

BASE_PRICE = 6.0  # bits: the price of every firing before the tree takes effect
PRICE_RANGE = (0.5, 13.0)  # bits: no firing is free, and none is impossible
KEEP = 0.9  # share of the counts that each update of the tree keeps
_RELEASE_SHARE = 0.2  # share of training in which the coarse loss's gradient to the decoder fades out


class HierarchicalSAE(SparseAutoencoder):
    """Two or more levels: each is a sparse code of the residual that the levels before it leave.

    A latent fires if its energy z^2, divided by its price, exceeds the threshold of its level, which is set so that the
    level has its target L0. The price is the code length of the firing, log2((1 - q) / q) bits, where q is the latent's
    probability of firing given whether its parent, a latent of the level above, fires. So a child is cheap when its
    parent fires and costly when it does not. Factors make firings outside the tree costlier still: of a child whose
    parent does not fire, and of a root child, which has no parent. A child also costs more if a stronger child of its
    parent fires, so that siblings divide their parent's rows. The bits saved are the mutual information of parent and
    child: the tree is soft. ``harden`` closes the gate: a child then fires only if its parent does.

    Args:
        width: D.
        options: see ``HierOptions`` for what each does. ``coarse_weight`` is the weight of the errors after each
            level but the last. ``tree_weight`` goes from a constant price, at 0, to the code length, at 1. If the
            curriculum keeps the gate closed from the start, no tree can be learned: all parents then have equally many
            children.
    """

    parent_F: torch.Tensor
    price_on_F: torch.Tensor
    price_off_F: torch.Tensor
    hard: torch.Tensor

    training_only = ("counts.", "own_counts.")

    def __init__(self, width: int, options: HierOptions):
        super().__init__(width, options)
        self.options, self.curriculum = options, options.phases
        self.parts = self.level_slices()
        # Firings of each level but the first with the level above it. To move latents between levels, also firings of
        # each level but the last with itself.
        tree_is_given = self.curriculum.closed >= 1
        self.counts = _module_list(CoActivation(*pair) for pair in pairwise(self.widths) if not tree_is_given)
        movable = self.widths[:-1] if options.relevel and not tree_is_given else ()
        self.own_counts = _module_list(CoActivation(size, size) for size in movable)
        self.register_buffer("parent_F", torch.full((self.latents,), NO_PARENT))
        self.register_buffer("price_on_F", torch.full((self.latents,), BASE_PRICE))
        self.register_buffer("price_off_F", torch.full((self.latents,), BASE_PRICE))
        self.register_buffer("hard", torch.tensor(False))
        self._tree_strength = 1.0
        self._blocks_version = (0, 0)  # address and version of ``parent_F`` when ``_cached_blocks`` was filled
        self._cached_blocks: dict[int, Blocks | None] = {}
        if tree_is_given:
            for above, part in pairwise(self.parts):
                place_C = torch.arange(part.stop - part.start)
                self.parent_F[part] = above.start + place_C * (above.stop - above.start) // len(place_C)

    @property
    def learned_F(self) -> np.ndarray:
        """The parent (F,) of each latent, ``NO_PARENT`` for roots."""
        parent_F: np.ndarray = self.parent_F.cpu().numpy()
        return parent_F.copy()  # on the CPU it shares memory with the model

    def codes(self, x_BD: torch.Tensor, hard: bool | None = None) -> list[SparseCode]:
        """The code of each level; ``hard`` closes (True) or opens (False) the gate, None leaves it as it was saved."""
        return self._codes(x_BD - self.b_dec_D, self.k, bool(self.hard) if hard is None else hard)[0]

    def encode(self, x_BD: torch.Tensor, hard: bool | None = None) -> torch.Tensor:
        """The code (B, F), as ``codes``."""
        return dense(self.codes(x_BD, hard))

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        options, phase = self.options, self.curriculum.at(context.progress)
        self._tree_strength = phase.tree
        closed = self._gate_is_closed(phase, context.number)
        l0 = self._target_l0(phase)
        codes, residuals = self._codes(x_BD - self.b_dec_D, [k for k in l0 if k > 0], closed)
        errors = [residual_BD.square().sum() for residual_BD in self._residuals(residuals, codes)[1:]]
        coarse = errors[: len(self.parts) - 1]
        if options.coarse_weight and context.progress > options.coarse_rows:
            decoder_share = max(0.0, 1 - (context.progress - options.coarse_rows) / _RELEASE_SHARE)
            coarse = self._coarse_errors(x_BD, codes, decoder_share)
        loss = errors[-1] + options.coarse_weight * sum(coarse, x_BD.new_zeros(()))
        if self.training and not closed:
            self._count_firings([code.fired for code in codes])
        figures = {
            "phase": phase.name,
            "tree": phase.tree,
            "l0_wanted": l0,
            "error_levels": torch.stack(errors + errors[-1:] * (len(self.parts) - len(errors))).detach(),
        }
        loss = loss / x_BD.numel()
        if options.coherence_weight and phase.wide:
            loss = loss + options.coherence_weight * phase.wide * self._coherence()
        return Step(loss, codes, errors[-1].detach(), figures)

    def _gate_is_closed(self, phase: Phase, step_number: int) -> bool:
        """Whether children fire only with their parents. With a tree the gate opens every ``open_every`` steps."""
        if phase.closed or bool(self.hard):
            return True
        return phase.tree > 0 and step_number % self.options.open_every > 0

    def _target_l0(self, phase: Phase) -> list[float]:
        """The target L0 of each level in a phase; 0 for levels that have not started."""
        wide = 1 + (self.options.k_start - 1) * phase.wide
        first, *finer = (min(width, k * wide) for width, k in zip(self.widths, self.k, strict=True))
        return [first, *(k * phase.fine for k in finer)]

    def after_step(self, context: StepContext) -> torch.Tensor | None:
        options, phase = self.options, self.curriculum.at(context.progress)
        if phase.closed:
            return self._sort_children()
        turn, remainder = divmod(context.number + 1, options.tree_every)
        if remainder:
            return None
        if options.relevel and phase.moves_latents and turn % 2 == 0:
            order_F = exchange(self.parts, self.own_counts, self.counts)
            if order_F is not None:
                self.permute(order_F)
                return order_F
        self._update_tree(phase.tree)
        return self._sort_children() if phase.tree and options.open_every > 1 else None

    def _calibrate_on(self, x_BD: torch.Tensor) -> None:
        closed = bool(self.curriculum.closed) or bool(self.hard)
        self._codes(x_BD - self.b_dec_D, self.k, closed)

    def finish(self) -> None:
        self._tree_strength = 1.0
        if not self.curriculum.closed:
            self._update_tree(1.0)

    @torch.no_grad()
    def harden(self) -> None:
        """Close the gate permanently, and sort each level by parent.

        The children of a parent are then side by side, in the order of the parents, with root children last. Sorting
        changes only the order of the latents, not what the model computes.
        """
        self._sort_children()
        self.hard.fill_(True)

    def child_blocks(self, level: int) -> Blocks | None:
        """The blocks of children of each parent in a level after the first; None if it is not sorted by parent."""
        version = (self.parent_F.data_ptr(), self.parent_F._version)
        if version != self._blocks_version:
            self._blocks_version, self._cached_blocks = version, {}
        if level not in self._cached_blocks:
            above, parent_C = self.parts[level - 1], self.parent_F[self.parts[level]]
            local_C = torch.where(parent_C == NO_PARENT, NO_PARENT, parent_C - above.start)
            self._cached_blocks[level] = Blocks.of(local_C, above.stop - above.start)
        return self._cached_blocks[level]

    @torch.no_grad()
    def _sort_children(self) -> torch.Tensor | None:
        """Sort the latents as ``harden`` does; returns the order (F,), or None if they are sorted already."""
        if all(self.child_blocks(level) for level in range(1, len(self.parts))):
            return None
        place_F = torch.zeros(self.latents, dtype=torch.long)
        orders = []
        for part in self.parts:
            parent_C = self.parent_F[part].cpu()
            after_all_C = torch.full_like(parent_C, self.latents)
            key_C = torch.where(parent_C == NO_PARENT, after_all_C, place_F[parent_C.clamp_min(0)])
            order_C = key_C.argsort(stable=True)
            place_F[part.start + order_C] = torch.arange(part.start, part.stop)
            orders.append(part.start + order_C)
        order_F = torch.cat(orders).to(self.parent_F.device)
        self.permute(order_F)
        return order_F

    @torch.no_grad()
    def permute(self, order_F: torch.Tensor) -> None:
        super().permute(order_F)
        for tensor in (self.parent_F, self.price_on_F, self.price_off_F):
            tensor.copy_(tensor[order_F])
        place_F = torch.empty_like(order_F)
        place_F[order_F] = torch.arange(len(order_F), device=order_F.device)
        parent_F = torch.where(self.parent_F == NO_PARENT, NO_PARENT, place_F[self.parent_F.clamp_min(0)])
        # A parent is one level up. Latents whose parent is not, after a swap, have no parent until the next update.
        for level, part in enumerate(self.parts):
            above = self.parts[level - 1] if level else slice(0, 0)
            parent_C = parent_F[part]
            parent_C[(parent_C < above.start) | (parent_C >= above.stop)] = NO_PARENT
        self.parent_F.copy_(parent_F)
        orphan_F = parent_F == NO_PARENT
        self.price_off_F[orphan_F] = self.price_on_F[orphan_F]
        orders = [order_F[part] - part.start for part in self.parts]
        if any(bool(((order_C < 0) | (order_C >= len(order_C))).any()) for order_C in orders):
            self._forget(0.0)
            return
        for level, counts in enumerate(self.counts):
            counts.permute(orders[level], orders[level + 1])
        for order_C, counts in zip(orders, self.own_counts, strict=False):
            counts.permute(order_C, order_C)

    def revival_inputs(self, x_BD: torch.Tensor, codes: list[SparseCode]) -> list[torch.Tensor]:
        residuals = self._residuals([x_BD - self.b_dec_D], codes[: len(self.parts) - 1])
        residuals += residuals[-1:] * (len(self.parts) - len(residuals))  # levels may have no code yet
        return [self._encoder_input(residuals[: level + 1]) for level in range(len(residuals))]

    def _encoder_input(self, residuals: list[torch.Tensor]) -> torch.Tensor:
        """What the encoder of the next level reads, given x - b_dec and the residual after each level before it."""
        return residuals[-1]

    def _best_parents(self, level: int) -> torch.Tensor:
        """The parent (C,) of each latent of a level after the first, numbered in the level above, or ``NO_PARENT``."""
        most_rate, limit = MOST_PARENT_RATE, self.options.rate_limit
        if limit:
            most_rate = min(most_rate, limit * self.k[level - 1] / self.widths[level - 1])
        return self.counts[level - 1].best_parents(self.options.least_containment, most_rate)

    def _residuals(
        self, residuals: list[torch.Tensor], codes: Sequence[SparseCode], rows_FD: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Append to ``residuals``, in place, those still missing: x - b_dec (B, D), then the residual after each code.

        ``rows_FD`` replaces the decoder's rows if given.
        """
        for code in codes[len(residuals) - 1 :]:
            level = len(residuals) - 1
            decoded_BD = self._decoded(code, level) if rows_FD is None else code.decode(rows_FD)
            residuals.append(residuals[-1] - decoded_BD)
        return residuals

    def _coarse_errors(
        self, x_BD: torch.Tensor, codes: Sequence[SparseCode], decoder_share: float
    ) -> list[torch.Tensor]:
        """The errors after each level but the last. Of their gradients the decoder gets only ``decoder_share``."""
        rows_FD, bias_D = (
            torch.lerp(weight.detach(), weight, decoder_share) for weight in (self.W_dec_FD, self.b_dec_D)
        )
        residuals = self._residuals([x_BD - bias_D], codes[: len(self.parts) - 1], rows_FD)
        return [residual_BD.square().sum() for residual_BD in residuals[1:]]

    def _codes(
        self, centred_BD: torch.Tensor, target_l0: Sequence[float], closed: bool
    ) -> tuple[list[SparseCode], list[torch.Tensor]]:
        """The codes of x - b_dec (B, D) for the first levels, one for each number of ``target_l0``.

        Also returns the residuals that were computed on the way, which ``_residuals`` continues.
        """
        residuals, codes = [centred_BD], list[SparseCode]()
        first_threshold_L = self.threshold_first_L if self.refine else self.threshold_L
        for level, k in enumerate(target_l0):
            input_BD = self._encoder_input(self._residuals(residuals, codes))
            gated = self._gated_reading(level, codes, input_BD) if closed else None
            reading = gated or self._read_for_selection(input_BD, self.parts[level])
            codes.append(self._sparse(reading, level, codes, first_threshold_L[level], k, closed))
        if not self.refine:
            return codes, residuals
        residual_BD, refined = self._residuals(residuals, codes)[-1], list[SparseCode]()
        for level, k in enumerate(target_l0):
            gated = self._gated_reading(level, refined, residual_BD, codes[level]) if closed else None
            reading = gated or self._read_refined(codes[level], residual_BD, self.parts[level])
            refined.append(self._sparse(reading, level, refined, self.threshold_L[level], k, closed))
        return refined, [centred_BD]

    def _gated_reading(
        self, level: int, codes_above: Sequence[SparseCode], input_BD: torch.Tensor, code: SparseCode | None = None
    ) -> GatedReading | None:
        """A level's pre-activations behind a closed gate; with its first ``code``, those of the second pass.

        None for the first level, and if the level is not sorted by parent.
        """
        blocks = self.child_blocks(level) if level else None
        if blocks is None:
            return None
        part, first = self.parts[level], self.parts[level - 1].start
        shared_BD = self._copied(input_BD, part)
        at = self._at(shared_BD) if code is None else self._at_refined(code, shared_BD)
        bias_F, scale_C = (self.b_enc_F, None) if code is None else (self.b_refine_F, self.refine_F[part])
        weights = (self.W_enc_FD[part], bias_F[part], scale_C)
        return GatedReading(input_BD, *weights, at, codes_above[-1].fired, self.parent_F[part], first, blocks, code)

    def _sparse(
        self,
        reading: LevelReading,
        level: int,
        codes_above: list[SparseCode],
        threshold: torch.Tensor,
        k: float,
        closed: bool,
    ) -> SparseCode:
        """A level's code: the latents with enough energy for their price, which depends on the code of the level above.

        A root child has the same price either way, so that it has no parent does not matter.
        """
        part, parent_F = self.parts[level], self.parent_F
        if not level:
            return self._select(
                reading, part, threshold, k, lambda pattern, _: self.price_on_F[pattern.latent_n], self.price_on_F[part]
            )
        parents = codes_above[-1].fired
        fired_BC = torch.zeros(parents.rows, self.widths[level - 1], dtype=torch.bool, device=threshold.device)
        fired_BC[parents.row_n, parents.latent_n - self.parts[level - 1].start] = True
        off_F = self.price_off_F
        if closed:
            off_F = off_F.masked_fill(parent_F != NO_PARENT, math.inf)
        parent_fires = isinstance(reading, GatedReading)  # behind a gate the parents of all candidates fire

        def price(pattern: Pattern, energy_n: torch.Tensor) -> torch.Tensor:
            latent_n = pattern.latent_n
            price_n = self.price_on_F[latent_n]
            if not parent_fires:
                place_n = (parent_F[latent_n] - self.parts[level - 1].start).clamp_min(0)
                price_n = torch.where(fired_BC[pattern.row_n, place_n], price_n, off_F[latent_n])
            return price_n * self._sibling_factor(pattern, energy_n / price_n, level)

        return self._select(reading, part, threshold, k, price, torch.minimum(self.price_on_F, off_F)[part])

    def _sibling_factor(self, pattern: Pattern, score_n: torch.Tensor, level: int = -1) -> torch.Tensor | float:
        """The factor on the prices (n,) of latents whose parent has a child with a higher score in the same row."""
        weight = 1 + self._tree_strength * (self.options.sibling_weight - 1)
        if weight == 1:
            return 1.0
        parent_n = self.parent_F[pattern.latent_n]
        key, family_n = (pattern.row_n * self.whole_latents + parent_n).unique(return_inverse=True)
        best = torch.zeros_like(score_n).scatter_reduce_(0, family_n, score_n, "amax")
        if self._is_split(level):  # siblings may be on other ranks
            best = largest_by_key(key, best, self.mesh.latents)
        is_weaker_n = (parent_n != NO_PARENT) & (score_n < best[family_n])
        return torch.where(is_weaker_n, weight, 1.0)

    def _coherence(self) -> torch.Tensor:
        """How similar the decoder rows of each level but the last are: the mean over rows of the summed cos^2.

        It keeps several latents of a level from sharing one frequent feature, which would leave no room for rarer ones.
        Only positive cosines count. Source: after Korznikov et al. (2025), OrtSAE.
        """
        penalty = self.W_dec_FD.new_zeros(())
        for part in self.parts[:-1]:
            cosine_CC = (self.W_dec_FD[part] @ self.W_dec_FD[part].T).fill_diagonal_(0)
            penalty = penalty + cosine_CC.relu().square().sum() / len(cosine_CC)
        return penalty

    def _count_firings(self, fired: list[Pattern]) -> None:
        nothing = fired[0].where(torch.zeros_like(fired[0].row_n, dtype=torch.bool))
        fired = fired + [nothing] * (len(self.parts) - len(fired))  # levels may have no code yet
        fired = of_all_rows(fired, self.mesh.rows)
        for level, counts in enumerate(self.counts):
            counts.add(fired[level], fired[level + 1], self.parts[level].start, self.parts[level + 1].start)
        for part, counts, pattern in zip(self.parts, self.own_counts, fired, strict=False):
            counts.add(pattern, pattern, part.start, part.start)

    def _forget(self, keep: float) -> None:
        for counts in [*self.counts, *self.own_counts]:
            counts.forget(keep)

    @torch.no_grad()
    def _update_tree(self, strength: float) -> None:
        """Choose parents and prices from the counts; ``strength`` of the tree, 0 to 1, weighs the prices."""
        weight = strength * self.options.tree_weight
        orphan_factor = 1 + strength * (self.options.orphan_weight - 1)
        root_factor = min(orphan_factor, 1 + strength * (self.options.root_weight - 1))
        for level, part in enumerate(self.parts):
            counts = self.counts[max(level - 1, 0)]
            if level:
                best_C = self._best_parents(level)
                rates = counts.child_rates(best_C)
                self.parent_F[part] = torch.where(best_C == NO_PARENT, NO_PARENT, best_C + self.parts[level - 1].start)
            else:
                rates = (counts.parent_rates(),) * 2
            for price_F, rate_C in zip((self.price_on_F, self.price_off_F), rates, strict=True):
                price_F[part] = price_of(rate_C, weight)
            if level:
                self.price_on_F[part] *= torch.where(best_C == NO_PARENT, root_factor, 1.0)
                self.price_off_F[part] *= torch.where(best_C == NO_PARENT, root_factor, orphan_factor)
        self._forget(KEEP)


def price_of(rate: torch.Tensor, weight: float) -> torch.Tensor:
    """The price in bits of firings with these rates: a constant at ``weight`` 0, the code length at 1."""
    bits = torch.log2((1 - rate) / rate).clamp(*PRICE_RANGE)
    return (1 - weight) * BASE_PRICE + weight * bits


def _module_list(counts: Iterable[CoActivation]) -> list[CoActivation]:
    """A list whose tensors belong to the model: saved, restored and moved between devices with it."""
    return cast("list[CoActivation]", torch.nn.ModuleList(counts))
