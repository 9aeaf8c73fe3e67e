"""Feature splitting: the number of latents over which a dictionary spreads a concept.

Source: Chanin et al. (2024), A is for Absorption, arXiv 2409.14507: a k-sparse probe gets another latent as long as
that raises its F1 by more than .03.
"""

from __future__ import annotations

from collections.abc import Callable

JUMP = 0.03
MOST = 10


def latents_split(f1_of_k: Callable[[int], float], jump: float = JUMP, most: int = MOST) -> int:
    """The smallest number k of latents, at least 1, so that one more raises F1 by no more than ``jump``.

    Args:
        f1_of_k: F1 of the probe on the k best latents, k from 1 to ``most``.
    """
    last, number = f1_of_k(1), 1
    while number < most and (next_f1 := f1_of_k(number + 1)) - last > jump:
        last, number = next_f1, number + 1
    return number
