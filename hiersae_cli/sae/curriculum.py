"""The curriculum coarse -> fine: which phase training is in, and what is switched on how far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One moment of the curriculum.

    Attributes:
        name: lead, ramp, anneal or joint.
        fine: share of the fine level's L0 that is given out, 0 to 1.
        tree: how far the tree's prices have replaced the constant one, 0 to 1.
    """

    name: str
    fine: float
    tree: float


@dataclass(frozen=True)
class Curriculum:
    """Shares of training: ``lead`` (coarse latents alone), ``ramp`` (fine latents join), ``anneal`` (the tree's
    prices fade in); then ``joint``, where both levels are tuned together under the whole tree."""

    lead: float = 0.0
    ramp: float = 0.0
    anneal: float = 0.0

    def at(self, progress: float) -> Phase:
        """The phase at ``progress`` in [0, 1] of training."""
        if progress < self.lead:
            return Phase("lead", 0.0, 0.0)
        progress -= self.lead
        if progress < self.ramp:
            return Phase("ramp", progress / self.ramp, 0.0)
        progress -= self.ramp
        if progress < self.anneal:
            return Phase("anneal", 1.0, progress / self.anneal)
        return Phase("joint", 1.0, 1.0)
