"""Configuration of ``hiersae synth``, and of the truth that ``synth`` and ``train --synth`` draw from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from hiersae_cli.config.base import Config, argument, option, parse_count
from hiersae_cli.config.cache import DTYPES
from hiersae_cli.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """The sizes of a truth and the seed of its directions. 0 means the preset's number.

    Attributes:
        features: number of true features; those of the trees come first.
        width: dimensions of an activation.
        roots: number of trees.
        branching: number of children of a feature with children.
        depth: number of levels below a root.
        seed: fixes the directions, and everything else that the preset draws once.
    """

    features: int = 0
    width: int = 0
    roots: int = 0
    branching: int = 0
    depth: int = 0
    seed: int = 0

    def in_trees(self) -> int:
        """The number of features in the trees."""
        return self.roots * sum(self.branching**level for level in range(self.depth + 1))


PRESETS = {
    "toy": Shape(features=20, width=20, roots=3, branching=3, depth=1, seed=42),
    "synthtree-1k": Shape(features=1024, width=192, roots=32, branching=4, depth=2, seed=42),
    "synthsaebench-16k": Shape(features=16384, width=768, roots=128, branching=4, depth=3, seed=42),
}


def resolve(preset: str, shape: Shape) -> Shape:
    """``shape`` with the preset's numbers for its zeros; raises ``UsageError`` if there is no such truth."""
    if preset not in PRESETS:
        raise UsageError(f"{preset!r} is not a preset of synthetic activations", f"Presets: {', '.join(PRESETS)}.")
    changes = {name: value for name, value in asdict(shape).items() if value}
    sizes = Shape(**{**asdict(PRESETS[preset]), **changes})
    for name, value in changes.items():
        _require(value > 0, name, value, "must not be negative")
    _require(
        sizes.branching >= 2, "branching", sizes.branching, "siblings exclude each other, so there must be at least two"
    )
    if sizes.in_trees() > sizes.features:
        raise UsageError(
            f"{sizes.roots} trees of depth {sizes.depth} and branching {sizes.branching} have {sizes.in_trees():,} "
            f"features, more than --truth-features {sizes.features}",
            "Give more features, or fewer or smaller trees.",
        )
    if preset == "toy":
        _require(sizes.depth == 1, "depth", sizes.depth, "the trees of toy have one level below the root")
        _require(
            sizes.branching <= 5,
            "branching",
            sizes.branching,
            "a child of toy fires at a fifth of its parent's firings",
        )
        _require(
            sizes.width >= sizes.features,
            "width",
            sizes.width,
            f"directions of toy are orthogonal: give a dimension for each of {sizes.features} features",
        )
    return sizes


def _require(condition: bool, name: str, value: int, message: str) -> None:
    if not condition:
        raise UsageError(f"--truth-{name} {value}: {message}")


TRUTH = "Truth of synthetic activations"
_ZERO_HELP = "0 takes the preset's number."


@dataclass(kw_only=True)
class TruthConfig(Config):
    """The flags of a truth, shared by the verbs that draw activations from a truth."""

    truth_features: int = option(0, parse=parse_count, help=f"True features. {_ZERO_HELP}", group=TRUTH)
    truth_width: int = option(0, help=f"Dimensions of an activation. {_ZERO_HELP}", group=TRUTH)
    truth_roots: int = option(0, help=f"Trees of true features. {_ZERO_HELP}", group=TRUTH)
    truth_branching: int = option(0, help=f"Children of each feature that has any. {_ZERO_HELP}", group=TRUTH)
    truth_depth: int = option(0, help=f"Levels of a tree below its root. {_ZERO_HELP}", group=TRUTH)
    truth_seed: int = option(0, help=f"Seed of the true directions. {_ZERO_HELP}", group=TRUTH)

    def shape(self) -> Shape:
        """The truth's sizes."""
        return Shape(**{field.name: getattr(self, f"truth_{field.name}") for field in fields(Shape)})

    def take_shape(self, preset: str) -> None:
        """Fill in the preset's numbers for flags that were not given, so that files record them."""
        for name, value in asdict(resolve(preset, self.shape())).items():
            setattr(self, f"truth_{name}", value)

    def shape_flags(self, preset: str) -> str:
        """The flags, as typed, that change the preset to this truth: "" or " --truth-features 64 …"."""
        default = asdict(PRESETS[preset])
        return "".join(f" --truth-{name} {n}" for name, n in asdict(self.shape()).items() if n != default[name])


def parse_held_out(text: str) -> float:
    """Parse a share below 1, or a number of rows: ``0.1``, ``100k``."""
    try:
        share = float(text)
    except ValueError:
        return parse_count(text)
    return share if share < 1 else parse_count(text)


@dataclass(kw_only=True)
class SynthConfig(TruthConfig):
    """Which truth activations are drawn from, how many are drawn, and where they are written."""

    preset: str = argument(help=f"Preset to draw from: {', '.join(PRESETS)}.", metavar="PRESET")
    out: str = option("acts.h5", "--out", "-o", help="File to write.", recorded=False)
    rows: int = option(10**6, parse=parse_count, metavar="COUNT", help="Activations to draw.")
    held_out: float = option(
        0.1,
        parse=parse_held_out,
        metavar="SHARE|COUNT",
        help="Share or number of rows that are held out for eval, in documents of 128 rows.",
    )
    dtype: str = option("float32", choices=DTYPES, help="Number type on disk.")
    draw_seed: int = option(0, help="Seed of the rows. The truth that they are drawn from has its own, --truth-seed.")
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    overwrite: bool = option(False, help="Replace the output.", recorded=False)

    def check(self) -> None:
        self.take_shape(self.preset)
        self.require(self.rows >= 1, "rows", "must be at least 1")
        self.require(0 <= self.held_out <= self.rows, "held_out", f"must lie between 0 and the {self.rows} rows")
        self.require(self.draw_seed >= 0, "draw_seed", "must not be negative")

    def held_out_rows(self) -> int:
        """The number of rows to hold out."""
        return round(self.held_out * self.rows) if self.held_out < 1 else int(self.held_out)
