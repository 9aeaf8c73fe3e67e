"""The architectures: the options of each, which are flags of ``hiersae train`` and arguments of its model.

To add one: its options here, its line in ``ARCHITECTURES``, its model in ``hiersae_cli/sae/``. Nothing here imports
torch, so that help stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from hiersae_cli.config.base import Config, option, parse_counts, parse_numbers, typed
from hiersae_cli.config.curriculum import DEFAULT_CURRICULUM, Curriculum

TRAINING = "Training"  # headings of the help
HIERARCHY, JUMPRELU = OWN_GROUPS = ("Hierarchy", "JumpReLU")
_DEFAULT_WIDTHS, _DEFAULT_K = (1024, 1024), (16, 16)

_hier_option = partial(option, group=HIERARCHY, only_for={"arch": ("hier",)})
_jumprelu_option = partial(option, group=JUMPRELU, only_for={"arch": ("jumprelu",)})


@dataclass(kw_only=True)
class DictionaryOptions(Config):
    """The options that every architecture has."""

    widths: tuple[int, ...] = option(
        (),
        parse=parse_counts,
        metavar="N[,N…]",
        help="Number of latents. hier: one number per level, from coarse to fine. matryoshka: how many each nested "
        f"dictionary adds. Others: one number. Default: {typed(_DEFAULT_WIDTHS)}, or their sum.",
    )
    k: tuple[float, ...] = option(
        (),
        parse=parse_numbers,
        metavar="N[,N…]",
        help="Active latents per token (L0). hier: one number per level. Others: one number. "
        f"Default: {typed(_DEFAULT_K)}, or their sum.",
    )
    refine: bool = option(
        False,
        help="Encode in two passes. The second corrects the code by what the first leaves unexplained.",
        group=TRAINING,
    )


@dataclass(kw_only=True)
class HierOptions(DictionaryOptions):
    """Levels of latents with a tree."""

    k_start: float = _hier_option(
        1.0, help="L0 starts at this multiple of --k and falls to --k by the end of the phase anneal."
    )
    coarse_weight: float = _hier_option(
        0.25,
        help="Weight of the coarse loss: the error of what each level but the last reconstructs with the levels above.",
    )
    # A parent that reconstructs by itself carries the mean of its children. Once levels have found their latents, the
    # encoder keeps them there.
    coarse_rows: float = _hier_option(
        1.0,
        help="Share of training after which the coarse loss stops training the decoder. It fades over the next fifth; "
        "encoders keep it. A parent then need not carry the mean of its children. 1: never.",
    )
    coherence_weight: float = _hier_option(
        0.0,
        help="Weight of a penalty on similar decoder rows within a level, the last level excepted. It falls to 0 by "
        "the end of the phase anneal.",
    )
    tree_weight: float = _hier_option(
        0.75,
        help="How much the price of a firing follows its code length given the parent, 0 to 1. 0 together with "
        "--orphan-weight 1 trains without a tree.",
    )
    orphan_weight: float = _hier_option(
        32.0,
        help="Factor on the price of a child that fires without its parent.",
    )
    root_weight: float = _hier_option(
        8.0,
        help="Factor on the price of a root child: a latent below the first level that has no parent. At most "
        "--orphan-weight counts. At 1 nearly all firings of the level are root children's, and the tree describes "
        "few of them.",
    )
    sibling_weight: float = _hier_option(
        8.0,
        help="Factor on the price of a child that fires in addition to a stronger child of the same parent. So "
        "siblings divide their parent's tokens. 1: no factor.",
    )
    rate_limit: float = _hier_option(
        3.0,
        help="A latent that fires over this many times as often as the mean of its level is no parent. 0: no limit.",
    )
    tree_every: int = _hier_option(50, help="Steps between new assignments of parents.")
    least_containment: float = _hier_option(
        0.1,
        help="How far beyond chance, 0 to 1, a child's firings must lie within its parent's. Latents without such a "
        "parent become root children.",
    )
    relevel: bool = _hier_option(
        False,
        help="In the phase anneal, swap latents between levels: one that lies within another of its level goes down, "
        "one that lies within none above goes up.",
    )
    open_every: int = _hier_option(
        1,
        help="Open the gate only at every N-th step once the tree is in force. The tree is learned at these steps; "
        "the others are cheaper. 1 keeps it open.",
    )
    harden: bool = _hier_option(
        False, help="Close the gate for good at the end: a child fires only if its parent does."
    )
    curriculum: str = _hier_option(
        DEFAULT_CURRICULUM,
        help="Share of training for each phase, or none. lead: only the first level. ramp: finer levels join. "
        "anneal: the tree's prices fade in. The rest trains all levels together. closed: the gate is closed, at the "
        "end. closed=1 trains a fixed random tree.",
    )

    @property
    def phases(self) -> Curriculum:
        """The curriculum as shares of training."""
        return Curriculum.parse(self.curriculum)

    def check(self) -> None:
        super().check()
        self.require(self.k_start >= 1, "k_start", "must be at least 1")
        for name in ("orphan_weight", "root_weight", "sibling_weight"):
            self.require(1 <= getattr(self, name) < float("inf"), name, "must be a finite number of at least 1")
        self.require(0 <= self.coarse_rows <= 1, "coarse_rows", "must be a share of training, between 0 and 1")
        self.require_at_least(1, "tree_every", "open_every")
        self.require_at_least(0, "coarse_weight", "coherence_weight", "tree_weight")
        self.require(self.rate_limit == 0 or self.rate_limit >= 1, "rate_limit", "must be 0 or at least 1")
        needs_hardening = "has a phase with the gate closed, which needs --harden"
        self.require(not self.phases.closed or self.harden, "curriculum", needs_hardening)


@dataclass(kw_only=True)
class JumpReLUOptions(DictionaryOptions):
    """A learned threshold for each latent."""

    l0_weight: float = _jumprelu_option(5.0, help="Weight of the penalty (L0 / k - 1)^2 that pulls L0 to --k.")
    bandwidth: float = _jumprelu_option(
        0.2,
        help="Width of the kernel behind the thresholds' gradients, in units of the activations' spread.",
    )

    def check(self) -> None:
        super().check()
        self.require(self.bandwidth > 0, "bandwidth", "must be above 0")
        self.require_at_least(0, "l0_weight")


@dataclass(kw_only=True)
class ArchitectureOptions(HierOptions, JumpReLUOptions):
    """The options of all architectures; only those of the chosen architecture have an effect."""


@dataclass(frozen=True)
class Architecture:
    """A line of the registry.

    Attributes:
        model: MODULE:CLASS of a ``SparseAutoencoder``, whose arguments are a width and the options.
        options: its flags.
        levels: whether ``widths`` and ``k`` have a number for each level.
        nested: whether ``widths`` has a number for each nested dictionary, and ``k`` one for all latents together.
        whole_k: whether ``k`` must be a whole number.
        two_passes: whether ``--refine`` is allowed.
    """

    model: str
    options: type[DictionaryOptions] = DictionaryOptions
    levels: bool = False
    nested: bool = False
    whole_k: bool = False
    two_passes: bool = True

    def default_sizes(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The default ``widths`` and ``k``: every architecture gets the same number of latents and the same L0."""
        widths = _DEFAULT_WIDTHS if self.levels or self.nested else (sum(_DEFAULT_WIDTHS),)
        return widths, _DEFAULT_K if self.levels else (sum(_DEFAULT_K),)


ARCHITECTURES = {
    "hier": Architecture("hiersae_cli.sae.hier:HierarchicalSAE", HierOptions, levels=True),
    "topk": Architecture("hiersae_cli.sae.flat:TopK", whole_k=True),
    "batchtopk": Architecture("hiersae_cli.sae.flat:BatchTopK"),
    "jumprelu": Architecture("hiersae_cli.sae.jumprelu:JumpReLU", JumpReLUOptions, two_passes=False),
    "matryoshka": Architecture("hiersae_cli.sae.flat:Matryoshka", nested=True),
}
