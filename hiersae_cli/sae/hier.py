"""The hierarchical sparse autoencoder: levels of latents, each on what the levels before it leave, and a soft tree.

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
from hiersae_cli.levels import NO_PARENT
from hiersae_cli.sae.base import LevelReading, SparseAutoencoder, Step, StepContext
from hiersae_cli.sae.kernels.gated import GatedReading
from hiersae_cli.sae.kernels.pairs import Blocks
from hiersae_cli.sae.kernels.sparse import Pattern, SparseCode, dense
from hiersae_cli.sae.releveling import exchange
from hiersae_cli.sae.tree import CoActivation

BASE_PRICE = 6.0  # bits: the price of every firing while the tree is not in force
PRICE_RANGE = (0.5, 13.0)  # bits: no firing is free, none is impossible
KEEP = 0.9  # of the counts, at each refresh of the tree
_LETTING_GO = 0.2  # of training: how long the coarse loss takes to let go of the decoder


class HierarchicalSAE(SparseAutoencoder):
    """Two levels or more: each is a sparse code of what the levels before it leave unexplained.

    A latent fires if the energy that it explains, z^2, is worth its price; each level's threshold is set so that the
    wanted number fire. The price is the code length of the firing, log2((1 - q) / q) bits. There q is the latent's
    probability of firing, given whether its parent, a latent of the level above, fires. So a child is cheap when its
    parent fires and costly when not. The bits saved are the mutual information of parent and child: the tree is soft,
    and information holds it. ``harden`` closes the gate: a child then fires only where its parent does.

    Args:
        width: D.
        options: the flags of the architecture say what each does. ``coarse_weight`` weighs the error of what each
            level but the last reconstructs with the levels above it. ``tree_weight`` mixes the constant price, at 0,
            with the code length, at 1. If the curriculum keeps the gate closed all along, no tree can be learned: each
            parent then has as many children as any other.
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
        # Firings of each level but the first with the level above; to move latents, of each but the last with its own.
        fixed = self.curriculum.closed >= 1
        self.counts = _modules(CoActivation(*pair) for pair in pairwise(self.widths) if not fixed)
        movable = self.widths[:-1] if options.relevel and not fixed else ()
        self.own_counts = _modules(CoActivation(size, size) for size in movable)
        self.register_buffer("parent_F", torch.full((self.latents,), NO_PARENT))
        self.register_buffer("price_on_F", torch.full((self.latents,), BASE_PRICE))
        self.register_buffer("price_off_F", torch.full((self.latents,), BASE_PRICE))
        self.register_buffer("hard", torch.tensor(False))
        self._blocks_version = (0, 0)  # address and version of the ``parent_F`` behind ``_cached_blocks``
        self._cached_blocks: dict[int, Blocks | None] = {}
        if fixed:
            for above, part in pairwise(self.parts):
                place_C = torch.arange(part.stop - part.start)
                self.parent_F[part] = above.start + place_C * (above.stop - above.start) // len(place_C)

    @property
    def learned_F(self) -> np.ndarray:
        """The parent (F,) of each latent, ``NO_PARENT`` for roots."""
        parent_F: np.ndarray = self.parent_F.cpu().numpy()
        return parent_F.copy()  # on the CPU it shares memory with the model

    def codes(self, x_BD: torch.Tensor, hard: bool | None = None) -> list[SparseCode]:
        """Codes; ``hard`` closes the gate or, False, leaves it open, whatever the model was saved as."""
        return self._codes(x_BD - self.b_dec_D, self.k, bool(self.hard) if hard is None else hard)[0]

    def encode(self, x_BD: torch.Tensor, hard: bool | None = None) -> torch.Tensor:
        """The code (B, F), as ``codes``."""
        return dense(self.codes(x_BD, hard))

    def step(self, x_BD: torch.Tensor, context: StepContext) -> Step:
        options, phase = self.options, self.curriculum.at(context.progress)
        closed = self._gate_is_closed(phase, context.number)
        l0 = self._wanted_l0(phase)
        codes, left = self._codes(x_BD - self.b_dec_D, [k for k in l0 if k > 0], closed)
        errors = [left_BD.square().sum() for left_BD in self._leave(left, codes)[1:]]
        coarse = errors[: len(self.parts) - 1]
        if options.coarse_weight and context.progress > options.coarse_rows:
            hold = max(0.0, 1 - (context.progress - options.coarse_rows) / _LETTING_GO)
            coarse = self._coarse_errors(x_BD, codes, hold)
        loss = errors[-1] + options.coarse_weight * sum(coarse, x_BD.new_zeros(()))
        if self.training and not closed:
            self._count([code.fired for code in codes])
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
        """Whether children fire only with their parents. Under the tree the gate opens every ``open_every`` steps."""
        if phase.closed or bool(self.hard):
            return True
        return phase.tree > 0 and step_number % self.options.open_every > 0

    def _wanted_l0(self, phase: Phase) -> list[float]:
        """The L0 of each level in a phase; 0 for levels that have not begun."""
        wide = 1 + (self.options.k_start - 1) * phase.wide
        first, *finer = (min(width, k * wide) for width, k in zip(self.widths, self.k, strict=True))
        return [first, *(k * phase.fine for k in finer)]

    def after_step(self, context: StepContext) -> torch.Tensor | None:
        options, phase = self.options, self.curriculum.at(context.progress)
        if phase.closed:
            return self._lay_out()
        turn, remainder = divmod(context.number + 1, options.tree_every)
        if remainder:
            return None
        if options.relevel and phase.moves_latents and turn % 2 == 0:
            order_F = exchange(self.parts, self.own_counts, self.counts)
            if order_F is not None:
                self.permute(order_F)
                return order_F
        self._refresh(phase.tree)
        return self._lay_out() if phase.tree and options.open_every > 1 else None

    def _calibrate_on(self, x_BD: torch.Tensor) -> None:
        closed = bool(self.curriculum.closed) or bool(self.hard)
        self._codes(x_BD - self.b_dec_D, self.k, closed)

    def finish(self) -> None:
        if not self.curriculum.closed:
            self._refresh(1.0)

    @torch.no_grad()
    def harden(self) -> None:
        """Close the gate for good, and lay the children of each parent side by side.

        Children come in the order of their parents, root children last. The order changes nothing that the model
        computes but the order of the latents.
        """
        self._lay_out()
        self.hard.fill_(True)

    @torch.no_grad()
    def _lay_out(self) -> torch.Tensor | None:
        """Lay children out as ``harden`` does; returns the order (F,), or None where they are already."""
        if all(self._blocks(level) for level in range(1, len(self.parts))):
            return None
        place_F = torch.zeros(self.latents, dtype=torch.long)
        orders = []
        for part in self.parts:
            parent_C = self.parent_F[part].cpu()
            last = torch.full_like(parent_C, self.latents)
            order_C = torch.where(parent_C == NO_PARENT, last, place_F[parent_C.clamp_min(0)]).argsort(stable=True)
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
        # One level up or none: where a latent has changed its level, the edges to it wait for new counts.
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
        left = self._leave([x_BD - self.b_dec_D], codes[: len(self.parts) - 1])
        left += left[-1:] * (len(self.parts) - len(left))  # levels may have no code yet
        return [self._input(left[: level + 1]) for level in range(len(left))]

    def _input(self, left: list[torch.Tensor]) -> torch.Tensor:
        """What the encoder of the next level reads, of x - b_dec and what is left after each level before it."""
        return left[-1]

    def _best_parents(self, level: int) -> torch.Tensor:
        """The parent (C,) of each latent of a level but the first, as its number in the level above, or none."""
        return self.counts[level - 1].best_parents(self.options.least_containment)

    def _leave(
        self, left: list[torch.Tensor], codes: Sequence[SparseCode], rows_FD: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """``left``, which begins with x - b_dec (B, D), continued by what is left after each of ``codes``.

        ``rows_FD`` stand in for the decoder's rows where they are given.
        """
        for code in codes[len(left) - 1 :]:
            left.append(left[-1] - (self._decoded(code) if rows_FD is None else code.decode(rows_FD)))
        return left

    def _coarse_errors(self, x_BD: torch.Tensor, codes: Sequence[SparseCode], hold: float) -> list[torch.Tensor]:
        """The errors of all levels but the last, whose gradients reach the decoder only by the share ``hold``."""
        rows_FD, bias_D = (torch.lerp(weight.detach(), weight, hold) for weight in (self.W_dec_FD, self.b_dec_D))
        left = self._leave([x_BD - bias_D], codes[: len(self.parts) - 1], rows_FD)
        return [left_BD.square().sum() for left_BD in left[1:]]

    def _codes(
        self, centred_BD: torch.Tensor, wanted: Sequence[float], closed: bool
    ) -> tuple[list[SparseCode], list[torch.Tensor]]:
        """The code of each of the first levels, as many as ``wanted`` has L0s, of x - b_dec (B, D).

        With it what these codes leave, see ``_leave``, as far as it has been computed.
        """
        left, codes = [centred_BD], list[SparseCode]()
        first_L = self.threshold_first_L if self.refine else self.threshold_L
        for level, k in enumerate(wanted):
            input_BD = self._input(self._leave(left, codes))
            gated = self._behind_gate(level, codes, input_BD) if closed else None
            reading = gated or self._read(input_BD, self.parts[level])
            codes.append(self._sparse(reading, level, codes, first_L[level], k, closed))
        if not self.refine:
            return codes, left
        left_BD, refined = self._leave(left, codes)[-1], list[SparseCode]()
        for level, k in enumerate(wanted):
            gated = self._behind_gate(level, refined, left_BD, codes[level]) if closed else None
            again = gated or self._read_again(codes[level], left_BD, self.parts[level])
            refined.append(self._sparse(again, level, refined, self.threshold_L[level], k, closed))
        return refined, [centred_BD]

    def _behind_gate(
        self, level: int, above: Sequence[SparseCode], input_BD: torch.Tensor, code: SparseCode | None = None
    ) -> GatedReading | None:
        """What a level reads where the gate is closed, with ``code`` for the second time.

        None for the first level, and where children are not laid out by parent.
        """
        blocks = self._blocks(level) if level else None
        if blocks is None:
            return None
        part, first = self.parts[level], self.parts[level - 1].start
        at = self._at(input_BD) if code is None else self._at_again(code, input_BD)
        bias_F, scale_C = (self.b_enc_F, None) if code is None else (self.b_refine_F, self.refine_F[part])
        weights = (self.W_enc_FD[part], bias_F[part], scale_C)
        return GatedReading(input_BD, *weights, at, above[-1].fired, self.parent_F[part], first, blocks, code)

    def _blocks(self, level: int) -> Blocks | None:
        """Where the children of each parent lie in a level but the first; None where not side by side."""
        version = (self.parent_F.data_ptr(), self.parent_F._version)
        if version != self._blocks_version:
            self._blocks_version, self._cached_blocks = version, {}
        if level not in self._cached_blocks:
            above, parent_C = self.parts[level - 1], self.parent_F[self.parts[level]]
            local_C = torch.where(parent_C == NO_PARENT, NO_PARENT, parent_C - above.start)
            self._cached_blocks[level] = Blocks.of(local_C, above.stop - above.start)
        return self._cached_blocks[level]

    def _sparse(
        self,
        reading: LevelReading,
        level: int,
        above: list[SparseCode],
        threshold: torch.Tensor,
        k: float,
        closed: bool,
    ) -> SparseCode:
        """A level's code: the pre-activations whose energy is worth its price, given the code of the level above.

        A root child's two prices are equal, so its (absent) parent does not matter.
        """
        part = self.parts[level]
        if not level or isinstance(reading, GatedReading):  # behind a gate no price but that with the parent is paid
            return self._select(
                reading, part, threshold, k, lambda pattern: self.price_on_F[pattern.latent_n], self.price_on_F[part]
            )
        announced = above[-1].fired
        fired_BC = torch.zeros(announced.rows, self.widths[level - 1], dtype=torch.bool, device=threshold.device)
        fired_BC[announced.row_n, announced.latent_n - self.parts[level - 1].start] = True
        parent_F, off_F = self.parent_F, self.price_off_F
        if closed:
            off_F = off_F.masked_fill(parent_F != NO_PARENT, math.inf)

        def price(pattern: Pattern) -> torch.Tensor:
            latent_n = pattern.latent_n
            place_n = (parent_F[latent_n] - self.parts[level - 1].start).clamp_min(0)
            on_n = fired_BC[pattern.row_n, place_n]
            return torch.where(on_n, self.price_on_F[latent_n], off_F[latent_n])

        return self._select(reading, part, threshold, k, price, torch.minimum(self.price_on_F, off_F)[part])

    def _coherence(self) -> torch.Tensor:
        """How much decoder rows of one level, the last apart, resemble each other: mean over rows of summed cos^2.

        It is what keeps a frequent feature from being split over a level that has to give place to rarer ones.
        Only positive cosines count. Source: after Korznikov et al. (2025), OrtSAE.
        """
        penalty = self.W_dec_FD.new_zeros(())
        for part in self.parts[:-1]:
            cosine_CC = (self.W_dec_FD[part] @ self.W_dec_FD[part].T).fill_diagonal_(0)
            penalty = penalty + cosine_CC.relu().square().sum() / len(cosine_CC)
        return penalty

    def _count(self, fired: list[Pattern]) -> None:
        nothing = fired[0].where(torch.zeros_like(fired[0].row_n, dtype=torch.bool))
        fired = fired + [nothing] * (len(self.parts) - len(fired))  # levels may have no code yet
        for level, counts in enumerate(self.counts):
            counts.add(fired[level], fired[level + 1], self.parts[level].start, self.parts[level + 1].start)
        for part, counts, own in zip(self.parts, self.own_counts, fired, strict=False):
            counts.add(own, own, part.start, part.start)

    def _forget(self, keep: float) -> None:
        for counts in [*self.counts, *self.own_counts]:
            counts.forget(keep)

    @torch.no_grad()
    def _refresh(self, tree: float) -> None:
        """Take parents and prices again from the counts; ``tree`` says how far the tree is in force, 0 to 1."""
        weight = tree * self.options.tree_weight
        orphans = 1 + tree * (self.options.orphan_weight - 1)
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
                self.price_off_F[part] *= torch.where(best_C == NO_PARENT, 1.0, orphans)
        self._forget(KEEP)


def price_of(rate: torch.Tensor, weight: float) -> torch.Tensor:
    """The price of firings of these rates: from the constant one, at ``weight`` 0, to the code length, at 1."""
    bits = torch.log2((1 - rate) / rate).clamp(*PRICE_RANGE)
    return (1 - weight) * BASE_PRICE + weight * bits


def _modules(counts: Iterable[CoActivation]) -> list[CoActivation]:
    """A list whose tensors are the model's own: saved, restored and moved between devices with it."""
    return cast("list[CoActivation]", torch.nn.ModuleList(counts))
