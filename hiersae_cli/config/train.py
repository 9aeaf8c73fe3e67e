"""Configuration of ``hiersae train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hiersae_cli.config.base import argument, option, parse_count, parse_counts, parse_numbers
from hiersae_cli.config.synth import PRESETS, TruthConfig
from hiersae_cli.errors import UsageError
from hiersae_cli.levels import MOST_LEVELS

ARCHITECTURES = ("hier", "topk", "batchtopk", "jumprelu", "matryoshka")
OPTIMIZERS = ("adam", "row-adam")
PHASES = ("lead", "ramp", "anneal", "closed")
DEFAULT_CURRICULUM = "lead=0.02,ramp=0.08,anneal=0.4"


def parse_curriculum(text: str) -> dict[str, float]:
    """``lead=0.02,ramp=0.08,anneal=0.4``: the share of training that each phase takes; what is left is ``joint``."""
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
    synth: str = option(
        "",
        choices=("", *PRESETS),
        metavar="|".join(PRESETS),
        help="Instead of ACTS: draw new activations with a known tree for every step.",
    )
    out: str = option("runs/hier", "--out", "-o", help="Run folder to write.", recorded=False)
    arch: str = option(
        "hier", choices=ARCHITECTURES, help="hier, or a flat baseline: topk, batchtopk, jumprelu, matryoshka."
    )
    widths: tuple[int, ...] = option(
        (64, 960),
        parse=parse_counts,
        metavar="N[,N…]",
        help="Latents: one number if flat; for hier one a level, from coarse to fine, two or more; for matryoshka "
        "those that each of the nested dictionaries adds to the one before, two or more.",
    )
    k: tuple[float, ...] = option(
        (8, 8),
        parse=parse_numbers,
        metavar="N[,N…]",
        help="Active latents a token (L0): one number per width; one in all for matryoshka.",
    )
    tokens: int = option(
        10**7,
        parse=parse_count,
        metavar="COUNT",
        help="Activations to train on; rows repeat where the cache is smaller.",
    )
    module: str = option("", help="Module to train on, where the cache holds several.", metavar="PATH")
    drop_outliers: bool = option(
        False, help="Leave out rows whose norm is over 10 x the median, also where the cache kept them."
    )
    batch: int = option(2048, parse=parse_count, help="Activations a step.")
    lr: float = option(0.0, help="Adam's peak learning rate; 0 takes 3e-3 x sqrt(1024 / latents).")
    optimizer: str = option(
        "adam",
        choices=OPTIMIZERS,
        help="adam, or row-adam: the cost of a step follows the latents that were active in it; the others are moved "
        "when they are active again.",
    )
    moments: str = option(
        "float32", choices=("float32", "bfloat16"), help="row-adam: type of its moments, two numbers for each weight."
    )
    warmup: float = option(0.05, help="Share of training with rising learning rate.")
    decay: float = option(0.25, help="Share of training, at its end, with the learning rate falling to 0.")
    clip: float = option(1.0, help="Largest gradient norm; 0 switches clipping off.")
    refine: bool = option(
        False, help="Encode in two passes: the second corrects the first by what that leaves unexplained."
    )
    l0_weight: float = option(5.0, help="jumprelu: weight of the penalty (L0 / k - 1)^2 that pulls L0 to --k.")
    bandwidth: float = option(
        0.2, help="jumprelu: width of the kernel behind the thresholds' gradients, in units of the activations' spread."
    )
    k_start: float = option(
        1.0, help="hier: L0 begins as this multiple of --k, and narrows to it until the curriculum's anneal ends."
    )
    coarse_weight: float = option(
        0.25, help="hier: weight of the loss of what each level but the last reconstructs with those before it."
    )
    coarse_rows: float = option(
        1.0,
        help="hier: share of training after which, over the next fifth, that loss lets go of decoder rows and bias, "
        "so that a parent need not carry the mean of its children; encoders it keeps. 1: it never does.",
    )
    coherence_weight: float = option(
        0.0,
        help="hier: weight, falling to 0 until the curriculum's anneal ends, of the penalty on decoder rows of one "
        "level, the last apart, that resemble each other.",
    )
    tree_weight: float = option(
        0.5,
        help="hier: how far a firing's price follows its code length given the parent. 0, with --orphan-weight 1, "
        "trains without a tree.",
    )
    orphan_weight: float = option(
        10.0,
        help="hier: what the price of a child's firing without its parent is multiplied with, once the tree is in "
        "force; the more, the closer the gate is to closed.",
    )
    tree_every: int = option(50, help="hier: steps between re-assignments of parents.")
    least_containment: float = option(
        0.1,
        help="hier: how far beyond chance, from 0 to 1, a child's firing must lie within a latent's of the level above "
        "to have it as its parent; others are root children.",
    )
    relevel: bool = option(
        False,
        help="hier: while the tree's prices fade in, a latent that lies within another of its level goes down a "
        "level, in exchange for one that lies within none above.",
    )
    open_every: int = option(
        1,
        help="hier: while the tree is in force, children without their parent are looked for at every so many-th step "
        "alone, which is when the tree is learned; the other steps, with the gate closed, cost less.",
    )
    harden: bool = option(
        False,
        help="hier: at the end, close the gate for good (a child fires only where its parent does) and lay children "
        "out by parent.",
    )
    curriculum: str = option(
        DEFAULT_CURRICULUM,
        help="hier: share of training for each phase, or none. lead: the first level alone; ramp: the finer ones join; "
        "anneal: the tree's prices fade in; then all are tuned together; closed, at the end: with the gate closed. "
        "closed=1 trains a tree that is given: as many children for each parent, drawn at random.",
    )
    bias_start: str = option(
        "mean",
        choices=("mean", "median"),
        help="What the decoder's bias begins at: the rows' mean or geometric median.",
    )
    aux_weight: float = option(1 / 32, help="Weight of the loss that revives dead latents; 0 switches it off.")
    dead_after: int = option(
        0,
        parse=parse_count,
        metavar="COUNT",
        help="Activations without firing that make a latent dead; 0 takes a tenth of --tokens, at most 10M.",
    )
    seed: int = option(0, help="Seed of initialisation and data order.")
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    compile: bool = option(
        False,
        "--compile/--no-compile",
        help="row-adam: its moves by torch.compile: a quarter of a minute at the start, then faster, on a GPU. "
        "A CPU with a C compiler has kernels without it.",
    )
    dtype: str = option(
        "float32", choices=("float32", "bfloat16"), help="Type of the products; weights and optimizer stay float32."
    )
    buffer: int = option(256, help="Memory for shuffling, in MB; part of the data order.")
    log_every: int = option(50, help="Steps between lines of metrics.jsonl.")
    checkpoint_seconds: int = option(60, help="Seconds between checkpoints.", recorded=False)
    overwrite: bool = option(False, help="Replace the run, finished or not.", recorded=False)

    def check(self) -> None:
        self._check_sizes()
        refusal = "--arch jumprelu has no second pass: it would take a second set of learned thresholds"
        self.require(self.arch != "jumprelu" or not self.refine, "refine", refusal)
        self.require(
            self.optimizer == "row-adam" or self.moments == "float32", "moments", "is for --optimizer row-adam"
        )
        self.require(self.optimizer == "row-adam" or not self.compile, "compile", "is for --optimizer row-adam")
        # Coherence is a loss of all rows of a level, and what lets go of rows scales all: neither touches few.
        whole = self.coherence_weight > 0 or self.coarse_rows < 1
        self.require(
            not (self.optimizer == "row-adam" and whole),
            "optimizer",
            "row-adam does not go with --coherence-weight or --coarse-rows",
        )
        self.require(self.bandwidth > 0, "bandwidth", "must be above 0")
        self.require(self.k_start >= 1, "k_start", "must be at least 1")
        self.require(1 <= self.orphan_weight < float("inf"), "orphan_weight", "must be a number from 1 on")
        self.require(0 <= self.coarse_rows <= 1, "coarse_rows", "must be a share of training, from 0 to 1")
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
            "with --decay, must not exceed 1",
        )
        closed = parse_curriculum(self.curriculum)["closed"]
        self.require(self.harden or not closed, "curriculum", "trains with the gate closed, which needs --harden")
        self._check_source()
        self.lr = self.lr or 3e-3 * (1024 / sum(self.widths)) ** 0.5
        self.dead_after = self.dead_after or min(10**7, self.tokens // 10)

    def _check_sizes(self) -> None:
        nested = self.arch == "matryoshka"
        if self.arch == "hier" or nested:
            of_each = "nested dictionary" if nested else "level"
            self.require(
                len(self.widths) >= 2, "widths", f"--arch {self.arch} takes a number for each {of_each}, two or more"
            )
        else:
            self.require(len(self.widths) == 1, "widths", f"--arch {self.arch} takes one number")
        if nested:
            self.require(len(self.k) == 1, "k", "--arch matryoshka takes one number, the L0 of the whole")
        else:
            self.require(
                len(self.k) == len(self.widths), "k", f"must have one number for each of --widths {self.widths}"
            )
        self.require(min(self.widths) >= 1, "widths", "must be at least 1")
        self.require(len(self.widths) <= MOST_LEVELS, "widths", f"takes at most {MOST_LEVELS} numbers")
        for width, k in zip((sum(self.widths),) if nested else self.widths, self.k, strict=True):
            self.require(0 < k <= width, "k", f"must lie above 0, and at most at the {width} latents of its level")
        self.require(self.arch != "topk" or self.k[0] == int(self.k[0]), "k", "--arch topk takes a whole number")

    def _check_source(self) -> None:
        if self.synth:
            self.require(not self.acts, "synth", f"takes the place of {', '.join(self.acts)}: give one of the two")
            self.require(not self.module, "module", "is for caches; --synth has no modules")
            self.require(self.seed >= 0, "seed", "must not be negative")
            self.take_shape(self.synth)
        else:
            given = [name for name, value in asdict(self.shape()).items() if value]
            if given:
                raise UsageError(
                    f"--truth-{given[0]}: is for --synth", "The truth of a cache is what it was made with."
                )

    def require_source(self) -> None:
        """Raise ``UsageError`` where nothing says what to train on; a configuration that was read needs not."""
        if not self.acts and not self.synth:
            raise UsageError(
                "Say what to train on: ACTS, or --synth PRESET.",
                "Make a cache with 'hiersae cache' or 'hiersae synth'.",
            )

    @property
    def steps(self) -> int:
        """Optimizer steps: every step takes a whole batch."""
        return self.tokens // self.batch
