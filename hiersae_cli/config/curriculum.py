"""The curriculum from coarse to fine: the phases of training, and what each of them switches on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hiersae_cli.errors import UsageError


@dataclass(frozen=True)
class Phase:
    """One moment of the curriculum.

    Attributes:
        name: lead, ramp, anneal, joint or closed.
        fine: how much of their L0 the finer levels have, 0 to 1.
        tree: how far the tree's prices have replaced the constant price, 0 to 1.
        wide: how far L0 is from its final value to its first, 1 to 0.
        closed: whether the gate is closed, so that a child fires only if its parent does.
        moves_latents: whether latents may change levels.
    """

    name: str
    fine: float
    tree: float
    wide: float
    closed: bool = False
    moves_latents: bool = False


@dataclass(frozen=True)
class Curriculum:
    """The share of training that each phase takes.

    Attributes:
        lead: the first level trains alone.
        ramp: the finer levels join.
        anneal: the tree's prices fade in. L0 has its final value when this phase ends. The phase ``joint`` follows: all
            levels train together under the whole tree.
        closed: the end of training, with the gate closed.
    """

    lead: float = 0.0
    ramp: float = 0.0
    anneal: float = 0.0
    closed: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Curriculum:
        """Parse ``lead=0.02,ramp=0.08,anneal=0.4``, or ``none``; raises ``UsageError`` for anything else."""
        shares = dict.fromkeys(PHASES, 0.0)
        for part in [] if text == "none" else text.split(","):
            name, _, share = part.partition("=")
            try:
                shares[name] = float(share) if name in shares else float("nan")
            except ValueError:
                shares[name] = float("nan")
        if not all(0 <= share <= 1 for share in shares.values()) or sum(shares.values()) > 1:
            raise UsageError(
                f"--curriculum {text}: give each phase its share of training, at most 1 in all",
                f"Phases: {', '.join(PHASES)}; for example {DEFAULT_CURRICULUM}, or none.",
            )
        return cls(**shares)

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
            return Phase("anneal", 1.0, progress / self.anneal, wide, moves_latents=True)
        return Phase("joint", 1.0, 1.0, wide)


PHASES = tuple(field.name for field in fields(Curriculum))
DEFAULT_CURRICULUM = "lead=0.02,ramp=0.08,anneal=0.4"
