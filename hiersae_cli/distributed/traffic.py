"""The messages that the ranks of a training exchange in a step, and how long they take. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

_NUMBER = 4  # bytes: all but reconstructions and their gradients is sent in 32 bits
_DIGIT_COUNTS = _NUMBER * 2**16  # bytes of the counts of a digit, see ``ranks.nth_largest``
_DIGITS = 2
_SMALL = 8.0  # bytes of a flag or a number


@dataclass(frozen=True)
class Sizes:
    """A training: rows of a batch, width of the activations, latents and L0 of each level.

    ``passes`` is 2 with ``--refine``; ``selects`` says whether thresholds follow the whole batch, as in BatchTopK;
    ``by_row`` whether the optimizer takes gradients of single rows; ``number`` is the bytes of a number of a
    reconstruction, 2 with ``--dtype bfloat16``; ``revives`` whether some latents are dead.
    """

    batch: int
    width: int
    widths: tuple[int, ...]
    k: tuple[float, ...]
    passes: int = 1
    selects: bool = True
    by_row: bool = False
    number: int = _NUMBER
    revives: bool = False


@dataclass(frozen=True)
class Link:
    """A connection between ranks: seconds until a message arrives (alpha), and bytes a second after that (beta)."""

    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Messages:
    """The messages of a step: bytes of each that is added up over the ranks, and of each that all collect from all."""

    summed: tuple[float, ...]
    collected: tuple[float, ...] = ()

    @property
    def bytes(self) -> float:
        """All bytes."""
        return sum(self.summed) + sum(self.collected)

    def seconds(self, ranks: int, link: Link) -> float:
        """The time of these messages among ``ranks``: for each, that of a ring or of a binary tree if it is shorter.

        Source: Thakur, Rabenseifner, Gropp (2005), Optimization of Collective Communication Operations in MPICH.
        """
        if ranks == 1:
            return 0.0
        hops, depth = ranks - 1, math.ceil(math.log2(ranks))
        return sum(
            min(
                2 * hops * link.latency + 2 * hops / ranks * size / link.bandwidth,
                2 * depth * (link.latency + size / link.bandwidth),
            )
            for size in self.summed
        ) + sum(hops * link.latency + hops / ranks * size / link.bandwidth for size in self.collected)


def of_data(sizes: Sizes, ranks: int) -> Messages:
    """Each rank has other rows: the gradients of the whole dictionary are added up."""
    latents, firings = sum(sizes.widths), sizes.batch * sum(sizes.k)
    vectors = 4.0 * latents * _NUMBER  # biases, and firings of each latent
    matrices = 2.0 * latents * sizes.width * _NUMBER
    summed, collected = [vectors + (0.0 if sizes.by_row else matrices)], list[float]()
    if sizes.by_row:  # rows of encoder and decoder that are active on a rank
        touched = min(latents, firings / ranks) * ranks
        collected += [touched * 2 * _NUMBER, touched * sizes.width * _NUMBER] * 2
        summed += [_SMALL] * 4  # how many rows each rank has
    if sizes.selects:
        summed += [_DIGIT_COUNTS] * (len(sizes.widths) * sizes.passes * _DIGITS)
    if len(sizes.widths) > 1:  # all ranks count all firings
        collected.append(3 * firings * _NUMBER)
        summed.append(_SMALL)
    return Messages(tuple(summed), tuple(collected))


def of_tree(sizes: Sizes) -> Messages:
    """Each rank has other latents of the last level: reconstructions and gradients of inputs are added up."""
    reconstruction = float(sizes.batch * sizes.width * sizes.number)
    summed = [reconstruction] * (2 * sizes.passes + sizes.revives)
    if sizes.revives:  # 16 counts of each row for each digit of its scores, see ``ranks.nth_largest_of_rows``
        summed += [16.0 * _NUMBER * sizes.batch] * 8
    if sizes.selects:
        summed += [_DIGIT_COUNTS] * (sizes.passes * _DIGITS)
    summed += [_SMALL] * 3  # whether latents are dead, the gradient's norm, the number of firings
    if len(sizes.widths) == 1:
        return Messages(tuple(summed))
    # The families of candidates and their best scores: about as many as firings, a key and a score of 8 bytes each.
    families = 2 * 8 * sizes.batch * sizes.k[-1]
    return Messages((*summed, *[_SMALL] * sizes.passes), (families,) * sizes.passes)
