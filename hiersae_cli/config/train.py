"""Configuration of ``hiersae train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from hiersae_cli.config.architectures import ARCHITECTURES, OWN_GROUPS, TRAINING, Architecture, ArchitectureOptions
from hiersae_cli.config.base import argument, option, parse_count, typed
from hiersae_cli.config.synth import PRESETS, TruthConfig
from hiersae_cli.errors import UsageError
from hiersae_cli.levels import MOST_LEVELS

PARALLEL = ("auto", "data", "tree")
OPTIMIZERS = ("adam", "row-adam")
TRACKERS = ("tensorboard", "wandb", "trackio")
USUAL_TOKENS = 3 * 10**6
MOST_EPOCHS = 20  # with more, latents may fit only these rows
DATA, MACHINE = "Data", "Machine and files"
_ROW_ADAM = {"optimizer": ("row-adam",)}


class Seeds(NamedTuple):
    """The two seeds of a training: ``init`` of the first weights, ``order`` of the rows."""

    init: int
    order: int

    def __str__(self) -> str:
        return str(self.init) if self.init == self.order else f"{self.init} (weights) with {self.order} (order)"


@dataclass(kw_only=True)
class TrainConfig(ArchitectureOptions, TruthConfig):
    """A sparse autoencoder, its training, and where the run is written."""

    GROUPS = (DATA, TRAINING, *OWN_GROUPS, MACHINE)

    acts: list[str] = argument(
        [],
        help="Caches made by 'hiersae cache' or 'hiersae synth', of one model and module.",
        metavar="ACTS",
        recorded=False,
    )
    out: str = option("runs/hier", "--out", "-o", help="Run folder to write.", recorded=False)
    arch: str = option(
        "hier",
        choices=ARCHITECTURES,
        help=f"hier, or a flat baseline: {', '.join(n for n, a in ARCHITECTURES.items() if not a.levels)}.",
    )
    tokens: int = option(
        0,
        parse=parse_count,
        metavar="COUNT",
        help=f"Activations to train on. Rows repeat if the cache is smaller. 0 takes {typed(USUAL_TOKENS)}, or "
        f"{MOST_EPOCHS} times the rows of a smaller cache.",
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
    init_seed: int | None = option(None, help="Seed of only the first weights. Without it, --seed.", group=DATA)
    order_seed: int | None = option(
        None, help="Seed of only the data order; with --synth, of the rows. Without it, --seed.", group=DATA
    )
    buffer: int = option(256, help="Memory for shuffling, in MB. Changes the data order.", group=DATA)
    batch: int = option(512, parse=parse_count, help="Activations per step.", group=TRAINING)
    lr: float = option(0.0, help="Peak learning rate of Adam. 0 takes 2e-3 x sqrt(2048 / latents).", group=TRAINING)
    warmup: float = option(0.05, help="Share of training in which the learning rate rises.", group=TRAINING)
    decay: float = option(
        0.25, help="Share of training, at its end, in which the learning rate falls to 0.", group=TRAINING
    )
    clip: float = option(1.0, help="Largest gradient norm. 0 switches clipping off.", group=TRAINING)
    bias_start: str = option(
        "mean",
        choices=("mean", "median"),
        help="Where the decoder's bias starts: at the rows' mean or at their geometric median.",
        group=TRAINING,
    )
    normalise: str = option(
        "capped",
        choices=("capped", "overall", "coordinates"),
        help="How activations are scaled, so that a few giant coordinates do not decide what is learned. capped: "
        "scale down coordinates whose standard deviation is over 3 times the median. overall: divide all by one "
        "number. coordinates: divide each by its standard deviation. Folded into the saved weights. FVU in the log is "
        "of scaled activations.",
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
        only_for=_ROW_ADAM,
    )
    compile: bool = option(
        False,
        "--compile/--no-compile",
        help="Compile the optimizer with torch.compile. Takes 15 seconds at the start, then steps are faster on a GPU. "
        "A CPU with a C compiler has fast kernels without it.",
        group=TRAINING,
        only_for=_ROW_ADAM,
    )
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.", group=MACHINE)
    dtype: str = option(
        "float32",
        choices=("float32", "bfloat16"),
        help="Number type of the products. Weights and optimizer stay float32.",
        group=MACHINE,
    )
    parallel: str = option(
        "auto",
        choices=PARALLEL,
        help="Under torchrun, what the ranks split: data, the rows of each batch, or tree, the latents of the last "
        "level. auto takes what sends fewer bytes.",
        recorded=False,
        group=MACHINE,
    )
    tree_ranks: int = option(
        0,
        help="Under torchrun, split latents over this many ranks and rows over as many groups of such ranks. "
        "0: what --parallel says.",
        recorded=False,
        group=MACHINE,
    )
    log_every: int = option(50, help="Steps between lines of metrics.jsonl.", group=MACHINE)
    log: str = option(
        "",
        choices=("", *TRACKERS),
        metavar="|".join(TRACKERS),
        help="Show the figures of metrics.jsonl in a tracker too. tensorboard writes into the run's folder.",
        recorded=False,
        group=MACHINE,
    )
    log_project: str = option(
        "hiersae",
        help="Project of the run in the tracker.",
        recorded=False,
        group=MACHINE,
        only_for={"log": ("wandb", "trackio")},
    )
    checkpoint_seconds: int = option(60, help="Seconds between checkpoints.", recorded=False, group=MACHINE)
    overwrite: bool = option(False, help="Replace the run, finished or not.", recorded=False, group=MACHINE)

    def check(self) -> None:
        architecture = ARCHITECTURES[self.arch]
        default_widths, default_k = architecture.default_sizes()
        self.widths, self.k = self.widths or default_widths, self.k or default_k
        super().check()
        self._check_sizes(architecture)
        refusal = f"--arch {self.arch} has no second pass: it would need a second set of learned thresholds"
        self.require(architecture.two_passes or not self.refine, "refine", refusal)
        # The coherence loss and the fading of the coarse loss change all decoder rows; row-adam moves only a few.
        changes_all_rows = self.coherence_weight > 0 or self.coarse_rows < 1
        self.require(
            not (self.optimizer == "row-adam" and changes_all_rows),
            "optimizer",
            "row-adam cannot be combined with --coherence-weight or --coarse-rows",
        )
        for name in ("seed", "init_seed", "order_seed"):
            self.require((getattr(self, name) or 0) >= 0, name, "must not be negative")
        self.require_at_least(1, "batch", "buffer", "log_every")
        self.require_at_least(0, "tokens", "lr", "clip", "aux_weight", "dead_after", "tree_ranks")
        self.require(
            self.tokens == 0 or self.tokens >= self.batch, "tokens", f"must be at least one batch ({self.batch})"
        )
        self.require(
            self.warmup >= 0 and self.decay >= 0 and self.warmup + self.decay <= 1,
            "warmup",
            "together with --decay, must not exceed 1",
        )
        self._check_source()
        self.lr = self.lr or 2e-3 * (2048 / sum(self.widths)) ** 0.5
        if self.tokens or not self.acts:
            self.fit_to(USUAL_TOKENS)

    def fit_to(self, rows: int) -> None:
        """Choose the tokens of a run on a cache of ``rows`` training rows, and what follows from them."""
        self.tokens = self.tokens or max(min(USUAL_TOKENS, MOST_EPOCHS * rows), self.batch)
        self.dead_after = self.dead_after or min(10**7, self.tokens // 10)

    def _check_sizes(self, architecture: Architecture) -> None:
        if architecture.levels or architecture.nested:
            part = "nested dictionary" if architecture.nested else "level"
            self.require(
                len(self.widths) >= 2, "widths", f"--arch {self.arch} takes two or more numbers, one for each {part}"
            )
        else:
            self.require(len(self.widths) == 1, "widths", f"--arch {self.arch} takes one number")
        if architecture.nested:
            self.require(len(self.k) == 1, "k", f"--arch {self.arch} takes one number, the L0 of all latents together")
        else:
            self.require(
                len(self.k) == len(self.widths), "k", f"must have one number for each of --widths {self.widths}"
            )
        self.require(min(self.widths) >= 1, "widths", "must be at least 1")
        self.require(len(self.widths) <= MOST_LEVELS, "widths", f"takes at most {MOST_LEVELS} numbers")
        for width, k in zip((sum(self.widths),) if architecture.nested else self.widths, self.k, strict=True):
            self.require(0 < k <= width, "k", f"must be above 0 and at most {width}, the latents of its level")
        whole_k = not architecture.whole_k or self.k[0] == int(self.k[0])
        self.require(whole_k, "k", f"--arch {self.arch} takes a whole number")

    def _check_source(self) -> None:
        if self.synth:
            self.require(not self.acts, "synth", f"replaces {', '.join(self.acts)}: give only one of the two")
            self.require(not self.module, "module", "is for caches; --synth has no modules")
            self.take_shape(self.synth)
        else:
            truth_flags = [name for name, value in asdict(self.shape()).items() if value]
            if truth_flags:
                raise UsageError(f"--truth-{truth_flags[0]}: is for --synth", "The truth of a cache cannot be changed.")

    @classmethod
    def flags_of_inputs(cls, config: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
        return {} if config.get("synth") else {"acts": list(inputs)}

    def check_command_line(self) -> None:
        if not self.acts and not self.synth:
            raise UsageError(
                "Say what to train on: ACTS, or --synth PRESET.",
                "Make a cache with 'hiersae cache' or 'hiersae synth'.",
            )

    @property
    def seeds(self) -> Seeds:
        """The seeds of the first weights and of the data order."""
        return Seeds(*(self.seed if seed is None else seed for seed in (self.init_seed, self.order_seed)))

    @property
    def steps(self) -> int:
        """The number of optimizer steps; every step takes a whole batch."""
        return self.tokens // self.batch
