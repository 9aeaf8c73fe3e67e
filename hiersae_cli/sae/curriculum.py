"""The curriculum coarse -> fine: which phase training is in, and what is switched on how far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One moment of the curriculum.

    Attributes:
        name: lead, ramp, anneal, joint or closed.
        fine: share of the finer levels' L0 that is given out, 0 to 1.
        tree: how far the tree's prices have replaced the constant one, 0 to 1.
        wide: how far L0 still is from its wanted value towards its first, 1 to 0.
        closed: whether the gate is closed: a child then fires only where its parent does.
    """

    name: str
    fine: float
    tree: float
    wide: float
    closed: bool = False


@dataclass(frozen=True)
class Curriculum:
    """Shares of training: ``lead`` (the first level alone), ``ramp`` (the finer levels join), ``anneal`` (the tree's
    prices fade in); then ``joint``, where all levels are tuned together under the whole tree, until ``closed``, the
    end of training, where they are tuned with the gate closed. L0 narrows until ``anneal`` ends."""

    lead: float = 0.0
    ramp: float = 0.0
    anneal: float = 0.0
    closed: float = 0.0

    def at(self, progress: float) -> Phase:
        """The phase at ``progress`` in [0, 1] of training."""
        narrow = self.lead + self.ramp + self.anneal
        wide = 1 - progress / narrow if progress < narrow else 0.0
        if self.closed and progress >= 1 - self.closed:
            return Phase("closed", 1.0, 1.0, wide, closed=True)
        if progress < self.lead:
            return Phase("lead", 0.0, 0.0, wide)
        progress -= self.lead
        if progress < self.ramp:
            return Phase("ramp", progress / self.ramp, 0.0, wide)
        progress -= self.ramp
        if progress < self.anneal:
            return Phase("anneal", 1.0, progress / self.anneal, wide)
        return Phase("joint", 1.0, 1.0, wide)
