"""The ranks along which rows or latents are split, as seen by one of them.

Legend of shapes: B rows, n numbers that may differ from rank to rank, X values of a digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


class Ranks:
    """A single rank, for which every method is free. ``group.Group`` has the same methods for several.

    Every rank of a group must call the same methods in the same order.

    Attributes:
        rank: the number of this rank.
        count: how many ranks there are.
    """

    rank = 0
    count = 1

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self  # a connection cannot be copied, and copies of a model share it

    def part(self, size: int) -> slice:
        """This rank's part of ``size`` things in a row; the parts differ by at most one."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, without gradients; may change ``tensor``."""
        return tensor

    def sums(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The sum of each tensor over the ranks, in one message."""
        return dict(tensors)

    def parts(self, tensor_n: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of every rank. They may differ in their first dimension."""
        return [tensor_n]

    def copied(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same tensor, which the ranks use in different ways: its gradient is the sum of theirs.

        With autocast it is sent in the type of autocast.
        """
        return tensor

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, with gradients: each rank's tensor gets the gradient of the sum.

        With autocast it is sent in the type of autocast, unless it is a single number.
        """
        return tensor

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over the ranks, in a loss that is averaged over them: its gradient is not divided again."""
        return tensor

    def from_first(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by that of the first rank, in place."""


ALONE = Ranks()


@dataclass(frozen=True)
class Mesh:
    """How a job is split over ranks.

    Attributes:
        rows: the ranks that have other rows of the batch and the same latents.
        latents: the ranks that have other latents of the last level and the same rows.
    """

    rows: Ranks = ALONE
    latents: Ranks = ALONE

    def __deepcopy__(self, memo: dict[int, Any]) -> Mesh:
        return self

    @property
    def count(self) -> int:
        """The number of ranks."""
        return self.rows.count * self.latents.count

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, without gradients; may change ``tensor``."""
        return self.latents.sum(self.rows.sum(tensor))


def largest_by_key(key_f: torch.Tensor, score_f: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """For each key the largest score that any rank has for it.

    Args:
        key_f: this rank's keys, int64, distinct and ascending.
        score_f: a score for each, float32 or narrower, not negative; further numbers are ignored.
    """
    if ranks.count == 1:
        return score_f
    # As integers, floating-point numbers that are not negative have the same order.
    bits_f = score_f[: len(key_f)].float().view(torch.int32).long()
    key_a, bits_a = torch.cat(ranks.parts(torch.stack([key_f, bits_f], 1))).T
    known_k, place_a = key_a.unique(return_inverse=True)
    best_k = torch.zeros_like(known_k).scatter_reduce_(0, place_a, bits_a.contiguous(), "amax")
    return best_k[torch.searchsorted(known_k, key_f)].int().view(torch.float32).to(score_f.dtype)


_DIGIT = 16  # bits
_ROW_DIGIT = 4  # the same for the numbers of a row


def nth_largest(score_n: torch.Tensor, count: int, total: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The ``count``-th largest of all ranks' scores; 0 if there are fewer.

    Only counts are exchanged, twice 256 kB: floating-point numbers sort as integers do, so the answer is found in two
    digits, and is exact.

    Args:
        score_n: this rank's scores, float32 or narrower.
        total: gives the sum of a tensor over the ranks.
    """
    bits_n = score_n.detach().float().view(torch.int32).long()
    key_n = torch.where(bits_n < 0, bits_n ^ 0x7FFFFFFF, bits_n) + 2**31
    key, remaining = 0, count
    for shift in (_DIGIT, 0):
        digit_n = (key_n >> shift) & (2**_DIGIT - 1)
        above = total(digit_n.bincount(minlength=2**_DIGIT).int()).flip(0).cumsum(0)
        if int(above[-1]) < remaining:
            return score_n.new_zeros(())
        place = int(torch.searchsorted(above, remaining))
        digit = 2**_DIGIT - 1 - place
        key |= digit << shift
        remaining -= int(above[place - 1]) if place else 0
        key_n = key_n[digit_n == digit]
    value = key - 2**31
    value = value ^ 0x7FFFFFFF if value < 0 else value
    return torch.tensor(value, dtype=torch.int32).view(torch.float32).to(score_n.device, score_n.dtype)


@torch.no_grad()
def nth_largest_of_rows(score_Bn: torch.Tensor, count: int, ranks: Ranks) -> torch.Tensor:
    """The ``count``-th largest of all ranks' scores in each row, (B, 1); 0 if there are fewer.

    As ``nth_largest``, in eight digits: for each of them the ranks exchange 16 counts a row.

    Args:
        score_Bn: this rank's scores, float32 or narrower, not negative; n may differ from rank to rank.
    """
    bits_Bn = score_Bn.float().view(torch.int32).clamp_min(0)  # -0.0 is 0 too
    key_B1 = bits_Bn.new_zeros(len(bits_Bn), 1)
    remaining_B1 = torch.full_like(key_B1, count)
    is_candidate_Bn = torch.ones_like(bits_Bn)
    for shift in range(32 - _ROW_DIGIT, -1, -_ROW_DIGIT):
        digit_Bn = (bits_Bn >> shift) & (2**_ROW_DIGIT - 1)
        counts_BX = bits_Bn.new_zeros(len(bits_Bn), 2**_ROW_DIGIT).scatter_add_(1, digit_Bn.long(), is_candidate_Bn)
        above_BX = ranks.sum(counts_BX).flip(1).cumsum(1)
        place_B1 = (above_BX < remaining_B1).sum(1, keepdim=True).clamp_max(2**_ROW_DIGIT - 1)
        higher_B1 = above_BX.gather(1, (place_B1 - 1).clamp_min(0)) * (place_B1 > 0)
        remaining_B1 = remaining_B1 - higher_B1.int()
        digit_B1 = (2**_ROW_DIGIT - 1 - place_B1).int()
        key_B1 |= digit_B1 << shift
        is_candidate_Bn = is_candidate_Bn * (digit_Bn == digit_B1)
    return key_B1.view(torch.float32).to(score_Bn.dtype)
