"""The truth of a synthetic cache: features, tree, and the true firings in its held-out rows.

Legend of shapes: N true features, d width, H held-out rows, Z firings in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np
import torch

from hiersae_cli.formats.activations.layout import TRUTH
from hiersae_cli.synth.truth import Truth

_GROUP = "truth"


@dataclass(frozen=True)
class TrueFirings:
    """The true firings in the held-out rows, in the order of rows: row h has start[h] to start[h + 1].

    Attributes:
        start: (H + 1,).
        feature: (Z,) the feature that fires, ascending within a row.
        magnitude: (Z,) how strongly.
    """

    start: np.ndarray
    feature: np.ndarray
    magnitude: np.ndarray

    def dense(self, row_R: np.ndarray, features: int) -> torch.Tensor:
        """Magnitudes (R, N) of held-out rows, which are numbered from 0."""
        out = torch.zeros(len(row_R), features)
        counts = self.start[row_R + 1] - self.start[row_R]
        of_row = np.repeat(np.arange(len(row_R)), counts)
        at = np.arange(len(of_row)) + np.repeat(self.start[row_R] - (np.cumsum(counts) - counts), counts)
        out[torch.from_numpy(of_row), torch.from_numpy(self.feature[at]).long()] = torch.from_numpy(self.magnitude[at])
        return out


def write_truth(file: h5py.File, truth: Truth, firings: TrueFirings) -> None:
    """Add a truth to a cache without one."""
    content = {
        "features": truth.features_ND,
        "bias": truth.bias_D,
        "parent": truth.parent_N,
        "probability": truth.probability_N,
        "firings/start": firings.start,
        "firings/feature": firings.feature,
        "firings/magnitude": firings.magnitude,
    }
    for name, kind in TRUTH.items():
        file.create_dataset(f"{_GROUP}/{name}", data=np.asarray(content[name], kind))


def has_truth(file: h5py.File) -> bool:
    """Whether the cache is synthetic."""
    return _GROUP in file


def read_truth(file: h5py.File) -> Truth:
    """The features and the tree; raises ``KeyError`` and ``ValueError`` if they are damaged."""
    truth = Truth(*(torch.from_numpy(_read(file, name)) for name in list(TRUTH)[:4]))
    _check_forest(truth.parent_N.numpy())
    return truth


def read_firings(file: h5py.File) -> TrueFirings:
    """The firings in the held-out rows; raises ``KeyError`` and ``ValueError`` if they are damaged."""
    firings = TrueFirings(*(_read(file, name) for name in list(TRUTH)[4:]))
    features, ends = len(file[f"{_GROUP}/features"]), (firings.start[0], firings.start[-1])
    if ends != (0, len(firings.feature)) or (np.diff(firings.start) < 0).any():
        raise ValueError("the true firings differ in size")
    if len(firings.feature) and not 0 <= firings.feature.min() <= firings.feature.max() < features:
        raise ValueError("a true firing is of no feature")
    return firings


def truth_bytes(file: h5py.File) -> bytes:
    """The content of the truth in the fingerprint's order; empty if there is none."""
    return b"".join(_read(file, name).tobytes() for name in TRUTH) if has_truth(file) else b""


def _check_forest(parent_N: np.ndarray) -> None:
    """Raise ``ValueError`` if a parent is no feature, or a feature is its own ancestor."""
    features = len(parent_N)
    if features and not -1 <= parent_N.min() <= parent_N.max() < features:
        raise ValueError("a parent in the truth is no feature")
    # Each round doubles how far up every feature looks, and looking above a root gives the root's -1.
    ancestor_N = np.append(parent_N, -1)
    for _ in range(features.bit_length()):
        ancestor_N = ancestor_N[ancestor_N]
    if (ancestor_N >= 0).any():
        raise ValueError("a feature in the truth is its own ancestor")


def _read(file: h5py.File, name: str) -> np.ndarray:
    return np.ascontiguousarray(file[f"{_GROUP}/{name}"][...], TRUTH[name])
