"""Configuration of ``hiersae train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hiersae_cli.config.base import argument, option, parse_count, parse_counts, parse_numbers, typed
from hiersae_cli.config.synth import PRESETS, TruthConfig
from hiersae_cli.errors import UsageError
from hiersae_cli.levels import MOST_LEVELS

ARCHITECTURES = ("hier", "topk", "batchtopk", "jumprelu", "matryoshka")
OPTIMIZERS = ("adam", "row-adam")
PHASES = ("lead", "ramp", "anneal", "closed")
DEFAULT_CURRICULUM = "lead=0.02,ramp=0.08,anneal=0.4"
DATA, TRAINING, HIERARCHY, JUMPRELU, MACHINE = "Data", "Training", "Hierarchy", "JumpReLU", "Machine and files"
HIER, JUMP, ROW_ADAM = {"arch": ("hier",)}, {"arch": ("jumprelu",)}, {"optimizer": ("row-adam",)}
_DEFAULT_WIDTHS, _DEFAULT_K = (64, 960), (8, 8)


def usual_sizes(arch: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The default widths and k: every architecture gets the same number of latents and the same L0."""
    widths = _DEFAULT_WIDTHS if arch in ("hier", "matryoshka") else (sum(_DEFAULT_WIDTHS),)
    return widths, _DEFAULT_K if arch == "hier" else (sum(_DEFAULT_K),)


def parse_curriculum(text: str) -> dict[str, float]:
    """Parse ``lead=0.02,ramp=0.08,anneal=0.4``, the share of training for each phase; the remainder is ``joint``."""
    shares = dict.fromkeys(PHASES, 0.0)
    if text == "none":
        return shares
    for part in text.split(","):
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
    return shares


@dataclass(kw_only=True)
class TrainConfig(TruthConfig):
    """A sparse autoencoder, its training, and where the run is written."""

    acts: list[str] = argument(
        [],
        help="Caches made by 'hiersae cache' or 'hiersae synth', of one model and module.",
        metavar="ACTS",
        recorded=False,
    )
    out: str = option("runs/hier", "--out", "-o", help="Run folder to write.", recorded=False)
    arch: str = option(
        "hier", choices=ARCHITECTURES, help="hier, or a flat baseline: topk, batchtopk, jumprelu, matryoshka."
    )
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
    tokens: int = option(
        10**7,
        parse=parse_count,
        metavar="COUNT",
        help="Activations to train on. Rows repeat if the cache is smaller.",
    )
    synth: str = option(
        "",
        choices=("", *PRESETS),
        metavar="|".join(PRESETS),
        help="Instead of ACTS: draw new activations with a known tree for every step.",
        group=DATA,
    )
    module: str = option("", help="Module to train on, if the cache holds several.", metavar="PATH", group=DATA)
    drop_outliers: bool = option(
        False,
        help="Leave out rows whose norm is over 10 times the median, even if the cache kept them.",
        group=DATA,
    )
    seed: int = option(0, help="Seed of the first weights and of the data order.", group=DATA)
    buffer: int = option(256, help="Memory for shuffling, in MB. Changes the data order.", group=DATA)
    batch: int = option(2048, parse=parse_count, help="Activations per step.", group=TRAINING)
    lr: float = option(0.0, help="Peak learning rate of Adam. 0 takes 3e-3 x sqrt(1024 / latents).", group=TRAINING)
    warmup: float = option(0.05, help="Share of training in which the learning rate rises.", group=TRAINING)
    decay: float = option(
        0.25, help="Share of training, at its end, in which the learning rate falls to 0.", group=TRAINING
    )
    clip: float = option(1.0, help="Largest gradient norm. 0 switches clipping off.", group=TRAINING)
    refine: bool = option(
        False,
        help="Encode in two passes. The second reads what the first leaves unexplained, and corrects it.",
        group=TRAINING,
    )
    bias_start: str = option(
        "mean",
        choices=("mean", "median"),
        help="Where the decoder's bias starts: at the rows' mean or at their geometric median.",
        group=TRAINING,
    )
    aux_weight: float = option(
        1 / 32, help="Weight of the loss that revives dead latents. 0 switches it off.", group=TRAINING
    )
    dead_after: int = option(
        0,
        parse=parse_count,
        metavar="COUNT",
        help="Activations without firing after which a latent is dead. 0 takes a tenth of --tokens, at most 10M.",
        group=TRAINING,
    )
    optimizer: str = option(
        "adam",
        choices=OPTIMIZERS,
        help="adam, or row-adam, which moves only the latents that were active in a step, so that a step costs less.",
        group=TRAINING,
    )
    moments: str = option(
        "float32",
        choices=("float32", "bfloat16"),
        help="Number type of the optimizer's two moments for each weight.",
        group=TRAINING,
        only_for=ROW_ADAM,
    )
    compile: bool = option(
        False,
        "--compile/--no-compile",
        help="Compile the optimizer with torch.compile. Takes 15 seconds at the start, then steps are faster on a GPU. "
        "A CPU with a C compiler has fast kernels without it.",
        group=TRAINING,
        only_for=ROW_ADAM,
    )
    k_start: float = option(
        1.0,
        help="L0 starts at this multiple of --k and falls to --k by the end of the phase anneal.",
        group=HIERARCHY,
        only_for=HIER,
    )
    coarse_weight: float = option(
        0.25,
        help="Weight of the coarse loss: the error of what each level but the last reconstructs with the levels above.",
        group=HIERARCHY,
        only_for=HIER,
    )
    coarse_rows: float = option(
        1.0,
        help="Share of training after which the coarse loss stops training the decoder. It fades over the next fifth; "
        "encoders keep it. A parent then need not carry the mean of its children. 1: never.",
        group=HIERARCHY,
        only_for=HIER,
    )
    coherence_weight: float = option(
        0.0,
        help="Weight of a penalty on similar decoder rows within a level, the last level excepted. It falls to 0 by "
        "the end of the phase anneal.",
        group=HIERARCHY,
        only_for=HIER,
    )
    tree_weight: float = option(
        0.5,
        help="How much the price of a firing follows its code length given the parent, 0 to 1. 0 together with "
        "--orphan-weight 1 trains without a tree.",
        group=HIERARCHY,
        only_for=HIER,
    )
    orphan_weight: float = option(
        10.0,
        help="Factor on the price of a child that fires without its parent. Large values nearly close the gate.",
        group=HIERARCHY,
        only_for=HIER,
    )
    tree_every: int = option(50, help="Steps between new assignments of parents.", group=HIERARCHY, only_for=HIER)
    least_containment: float = option(
        0.1,
        help="How far beyond chance, 0 to 1, a child's firings must lie within its parent's. Latents without such a "
        "parent become root children.",
        group=HIERARCHY,
        only_for=HIER,
    )
    relevel: bool = option(
        False,
        help="In the phase anneal, swap latents between levels: one that lies within another of its level goes down, "
        "one that lies within none above goes up.",
        group=HIERARCHY,
        only_for=HIER,
    )
    open_every: int = option(
        1,
        help="Open the gate only at every N-th step once the tree is in force. The tree is learned at these steps; "
        "the others are cheaper. 1 keeps it open.",
        group=HIERARCHY,
        only_for=HIER,
    )
    harden: bool = option(
        False,
        help="Close the gate for good at the end: a child fires only if its parent does.",
        group=HIERARCHY,
        only_for=HIER,
    )
    curriculum: str = option(
        DEFAULT_CURRICULUM,
        help="Share of training for each phase, or none. lead: only the first level. ramp: finer levels join. "
        "anneal: the tree's prices fade in. The rest trains all levels together. closed: the gate is closed, at the "
        "end. closed=1 trains a fixed random tree.",
        group=HIERARCHY,
        only_for=HIER,
    )
    l0_weight: float = option(
        5.0,
        help="Weight of the penalty (L0 / k - 1)^2 that pulls L0 to --k.",
        group=JUMPRELU,
        only_for=JUMP,
    )
    bandwidth: float = option(
        0.2,
        help="Width of the kernel behind the thresholds' gradients, in units of the activations' spread.",
        group=JUMPRELU,
        only_for=JUMP,
    )
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.", group=MACHINE)
    dtype: str = option(
        "float32",
        choices=("float32", "bfloat16"),
        help="Number type of the products. Weights and optimizer stay float32.",
        group=MACHINE,
    )
    log_every: int = option(50, help="Steps between lines of metrics.jsonl.", group=MACHINE)
    checkpoint_seconds: int = option(60, help="Seconds between checkpoints.", recorded=False, group=MACHINE)
    overwrite: bool = option(False, help="Replace the run, finished or not.", recorded=False, group=MACHINE)

    def check(self) -> None:
        default_widths, default_k = usual_sizes(self.arch)
        self.widths, self.k = self.widths or default_widths, self.k or default_k
        self._check_sizes()
        refusal = "--arch jumprelu has no second pass: it would need a second set of learned thresholds"
        self.require(self.arch != "jumprelu" or not self.refine, "refine", refusal)
        # The coherence loss and the fading of the coarse loss change all decoder rows; row-adam moves only a few.
        changes_all_rows = self.coherence_weight > 0 or self.coarse_rows < 1
        self.require(
            not (self.optimizer == "row-adam" and changes_all_rows),
            "optimizer",
            "row-adam cannot be combined with --coherence-weight or --coarse-rows",
        )
        self.require(self.bandwidth > 0, "bandwidth", "must be above 0")
        self.require(self.k_start >= 1, "k_start", "must be at least 1")
        self.require(1 <= self.orphan_weight < float("inf"), "orphan_weight", "must be a finite number of at least 1")
        self.require(0 <= self.coarse_rows <= 1, "coarse_rows", "must be a share of training, between 0 and 1")
        for name in ("tokens", "batch", "tree_every", "open_every", "buffer", "log_every"):
            self.require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in (
            "lr",
            "clip",
            "l0_weight",
            "coarse_weight",
            "coherence_weight",
            "tree_weight",
            "aux_weight",
            "dead_after",
        ):
            self.require(getattr(self, name) >= 0, name, "must not be negative")
        self.require(self.tokens >= self.batch, "tokens", f"must be at least one batch ({self.batch})")
        self.require(
            self.warmup >= 0 and self.decay >= 0 and self.warmup + self.decay <= 1,
            "warmup",
            "together with --decay, must not exceed 1",
        )
        closed = parse_curriculum(self.curriculum)["closed"]
        self.require(self.harden or not closed, "curriculum", "has a phase with the gate closed, which needs --harden")
        self._check_source()
        self.lr = self.lr or 3e-3 * (1024 / sum(self.widths)) ** 0.5
        self.dead_after = self.dead_after or min(10**7, self.tokens // 10)

    def _check_sizes(self) -> None:
        nested = self.arch == "matryoshka"
        if self.arch == "hier" or nested:
            part = "nested dictionary" if nested else "level"
            self.require(
                len(self.widths) >= 2, "widths", f"--arch {self.arch} takes two or more numbers, one for each {part}"
            )
        else:
            self.require(len(self.widths) == 1, "widths", f"--arch {self.arch} takes one number")
        if nested:
            self.require(len(self.k) == 1, "k", "--arch matryoshka takes one number, the L0 of all latents together")
        else:
            self.require(
                len(self.k) == len(self.widths), "k", f"must have one number for each of --widths {self.widths}"
            )
        self.require(min(self.widths) >= 1, "widths", "must be at least 1")
        self.require(len(self.widths) <= MOST_LEVELS, "widths", f"takes at most {MOST_LEVELS} numbers")
        for width, k in zip((sum(self.widths),) if nested else self.widths, self.k, strict=True):
            self.require(0 < k <= width, "k", f"must be above 0 and at most {width}, the latents of its level")
        self.require(self.arch != "topk" or self.k[0] == int(self.k[0]), "k", "--arch topk takes a whole number")

    def _check_source(self) -> None:
        if self.synth:
            self.require(not self.acts, "synth", f"replaces {', '.join(self.acts)}: give only one of the two")
            self.require(not self.module, "module", "is for caches; --synth has no modules")
            self.require(self.seed >= 0, "seed", "must not be negative")
            self.take_shape(self.synth)
        else:
            truth_flags = [name for name, value in asdict(self.shape()).items() if value]
            if truth_flags:
                raise UsageError(f"--truth-{truth_flags[0]}: is for --synth", "The truth of a cache cannot be changed.")

    def check_command_line(self) -> None:
        if not self.acts and not self.synth:
            raise UsageError(
                "Say what to train on: ACTS, or --synth PRESET.",
                "Make a cache with 'hiersae cache' or 'hiersae synth'.",
            )

    @property
    def steps(self) -> int:
        """The number of optimizer steps; every step takes a whole batch."""
        return self.tokens // self.batch
