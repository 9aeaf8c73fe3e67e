"""Steering: how a direction, added to the activations, changes the host's prediction of the next token.

Legend of shapes: B windows, T tokens, D width, V vocabulary.

The targets of a latent are the tokens that follow it more often than they follow other rows. The effect of a direction
on them is the rise of their log-probability relative to that of the tokens that follow it less often:
    sum_v t(v) (log p_steered(v) - log p_clean(v)), t = (q - q0) / (half of sum_v |q - q0|),
where q is the distribution of the next token in rows in which the latent fires and q0 that in all rows; a mean over
positions. Any direction can be added more or less strongly, so each is added at the strength that does the same damage,
KL(clean || steered) of ``DAMAGE`` nats a token, and the effect is given per nat of damage. The measure is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hiersae_cli.host.model import Host

Array = np.ndarray[Any, Any]

DAMAGE = 0.1  # nats a token
_NEAR = 1.1  # factor by which the damage may differ from it
_TRIES = 8
_LARGEST_STEP = 8.0  # the largest factor between the strengths of two tries


def targets(following_V: Array, all_following_V: Array) -> Array:
    """Weights (V,) of tokens: those that follow more often sum to 1, the others to -1; zeros if nothing differs.

    Args:
        following_V, all_following_V: how often each token follows rows in which the latent fires, and all rows.
    """
    difference = following_V / max(following_V.sum(), 1) - all_following_V / max(all_following_V.sum(), 1)
    size = np.abs(difference).sum() / 2
    return difference / size if following_V.sum() and size > 0 else np.zeros(len(difference))


class Steering:
    """Windows in which directions are tried.

    Args:
        host, path: the model, and the module whose output is steered.
        tokens_BT: windows, padded at the right.
        steered_BT: the positions that are steered and measured; others keep their activations.
    """

    def __init__(self, host: Host, path: str, tokens_BT: torch.Tensor, steered_BT: torch.Tensor):
        self._host, self._path = host, path
        self._tokens_BT, self._steered_BT = tokens_BT.to(host.device), steered_BT.to(host.device)
        self._clean_NV = host.log_probabilities(self._tokens_BT)[self._steered_BT]

    @property
    def vocabulary(self) -> int:
        """V."""
        return int(self._clean_NV.shape[1])

    def response(self, direction_D: torch.Tensor, strength: float) -> tuple[Array, float]:
        """Mean change (V,) of log-probabilities by a direction at about ``DAMAGE``, and its damage in nats a token.

        Args:
            strength: the length of the added vector that is tried first.
        """
        unit_D = torch.nn.functional.normalize(direction_D.float(), dim=0)
        # The last strength that was too small (False) and too large (True), with its damage. SciPy's root finders would
        # need a bracket first and seek more precision, and each try is a pass of the host.
        tried: dict[bool, tuple[float, float]] = {}
        for _ in range(_TRIES):
            change_NV = self._change(strength * unit_D)
            damage = max(-float((self._clean_NV.exp() * change_NV).sum(1).double().mean()), 1e-12)
            ratio = DAMAGE / damage
            if 1 / _NEAR <= ratio <= _NEAR:
                break
            tried[ratio < 1] = strength, damage
            if len(tried) == 2:
                (little, less), (much, more) = tried[False], tried[True]
                strength = little * (much / little) ** (np.log(DAMAGE / less) / np.log(more / less))
            else:  # damage grows with the square of a small strength
                strength *= min(max(ratio**0.5, 1 / _LARGEST_STEP), _LARGEST_STEP)
        return change_NV.double().mean(0).cpu().numpy(), damage

    def _change(self, added_D: torch.Tensor) -> torch.Tensor:
        added_D = added_D.to(self._host.device)

        def steered(x_BTD: torch.Tensor) -> torch.Tensor:
            return x_BTD + added_D.to(x_BTD.dtype)

        with self._host.spliced(self._path, steered, self._steered_BT):
            return self._host.log_probabilities(self._tokens_BT)[self._steered_BT] - self._clean_NV
