"""Feature splitting: over how many latents a dictionary spreads a concept.

Source: Chanin et al. (2024), A is for Absorption, arXiv 2409.14507: latents are added to a k-sparse probe as long as
each raises its F1 by more than .03.
"""

from __future__ import annotations

from collections.abc import Callable

JUMP = 0.03
MOST = 10


def latents_split(f1_of_k: Callable[[int], float], jump: float = JUMP, most: int = MOST) -> int:
    """The number k of latents after which one more does not raise F1 by more than ``jump``, at least 1.

    Args:
        f1_of_k: F1 of the probe on the k best latents, k from 1 to ``most``.
    """
    last, number = f1_of_k(1), 1
    while number < most and (following := f1_of_k(number + 1)) - last > jump:
        last, number = following, number + 1
    return number
