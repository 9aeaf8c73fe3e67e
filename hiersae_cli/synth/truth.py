"""The true features behind synthetic activations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True, eq=False)
class Truth:
    """True features and their tree: x = bias + Σ magnitude · direction over the features that fire.

    Legend of shapes: N true features, D width.

    Attributes:
        features_ND: float32, the direction of each feature, with length 1.
        bias_D: float32, added to every activation.
        parent_N: int64, the feature without which this one never fires; -1 for none.
        probability_N: float32, the share of rows in which the feature is meant to fire.
    """

    features_ND: torch.Tensor
    bias_D: torch.Tensor
    parent_N: torch.Tensor
    probability_N: torch.Tensor

    def __len__(self) -> int:
        return len(self.features_ND)

    @property
    def width(self) -> int:
        """Width D of the activations."""
        return self.features_ND.shape[1]

    def fingerprint(self) -> str:
        """The sha256 of the bytes of the four tensors, in the order above."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(getattr(self, field.name).contiguous().numpy().data)
        return digest.hexdigest()
