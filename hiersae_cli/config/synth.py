"""Configuration of ``hiersae synth``, and of the truth that ``synth`` and ``train --synth`` draw from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from hiersae_cli.config.base import Config, argument, option, parse_count
from hiersae_cli.config.cache import DTYPES
from hiersae_cli.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """The sizes of a truth and the seed of its directions; 0 stands for the preset's number.

    Attributes:
        features: true features, those of the trees first.
        width: dimensions of an activation.
        roots: trees.
        branching: children of every feature that has any.
        depth: levels below a root.
        seed: fixes the directions, and what else the preset draws once.
    """

    features: int = 0
    width: int = 0
    roots: int = 0
    branching: int = 0
    depth: int = 0
    seed: int = 0

    def in_trees(self) -> int:
        """How many features the trees take."""
        return self.roots * sum(self.branching**level for level in range(self.depth + 1))


PRESETS = {
    "toy": Shape(features=20, width=20, roots=3, branching=3, depth=1, seed=42),
    "synthtree-1k": Shape(features=1024, width=192, roots=32, branching=4, depth=2, seed=42),
    "synthsaebench-16k": Shape(features=16384, width=768, roots=128, branching=4, depth=3, seed=42),
}


def resolve(preset: str, shape: Shape) -> Shape:
    """``shape`` with the preset's numbers for its zeros; raises ``UsageError`` where there is no such truth."""
    if preset not in PRESETS:
        raise UsageError(f"{preset!r} is no preset of synthetic activations", f"Presets: {', '.join(PRESETS)}.")
    given = {name: value for name, value in asdict(shape).items() if value}
    found = Shape(**{**asdict(PRESETS[preset]), **given})
    for name, value in given.items():
        _require(value > 0, name, value, "must not be negative")
    _require(found.branching >= 2, "branching", found.branching, "siblings exclude each other, so there must be two")
    if found.in_trees() > found.features:
        raise UsageError(
            f"{found.roots} trees of depth {found.depth} and branching {found.branching} have {found.in_trees():,} "
            f"features, more than --truth-features {found.features}",
            "Ask for more features, or for fewer or smaller trees.",
        )
    if preset == "toy":
        _require(found.depth == 1, "depth", found.depth, "the trees of toy have one level below the root")
        _require(found.branching <= 5, "branching", found.branching, "a child of toy fires in a fifth of the parent's")
        _require(found.width >= found.features, "width", found.width, "directions of toy are orthogonal: give a "
                 f"dimension to each of {found.features} features")  # fmt: skip
    return found


def _require(condition: bool, name: str, value: int, message: str) -> None:
    if not condition:
        raise UsageError(f"--truth-{name} {value}: {message}")


TRUTH = "Truth of synthetic activations"
_PRESETS_OWN = "0 takes the preset's."


@dataclass(kw_only=True)
class TruthConfig(Config):
    """The flags of a truth, shared by the verbs that draw activations from one."""

    truth_features: int = option(0, parse=parse_count, help=f"True features. {_PRESETS_OWN}", group=TRUTH)
    truth_width: int = option(0, help=f"Dimensions of an activation. {_PRESETS_OWN}", group=TRUTH)
    truth_roots: int = option(0, help=f"Trees of true features. {_PRESETS_OWN}", group=TRUTH)
    truth_branching: int = option(0, help=f"Children of each feature in the trees. {_PRESETS_OWN}", group=TRUTH)
    truth_depth: int = option(0, help=f"Levels of a tree below its root. {_PRESETS_OWN}", group=TRUTH)
    truth_seed: int = option(0, help=f"Seed of the true directions. {_PRESETS_OWN}", group=TRUTH)

    def shape(self) -> Shape:
        """The truth's sizes."""
        return Shape(**{field.name: getattr(self, f"truth_{field.name}") for field in fields(Shape)})

    def take_shape(self, preset: str) -> None:
        """Put the preset's numbers where none were given, so that files record them."""
        for name, value in asdict(resolve(preset, self.shape())).items():
            setattr(self, f"truth_{name}", value)

    def shape_flags(self, preset: str) -> str:
        """The flags, as typed, that make this truth out of the preset: "" or " --truth-features 64 …"."""
        usual = asdict(PRESETS[preset])
        return "".join(f" --truth-{name} {n}" for name, n in asdict(self.shape()).items() if n != usual[name])


def parse_held_out(text: str) -> float:
    """A share below 1, or a number of rows: ``0.1``, ``100k``."""
    try:
        share = float(text)
    except ValueError:
        return parse_count(text)
    return share if share < 1 else parse_count(text)


@dataclass(kw_only=True)
class SynthConfig(TruthConfig):
    """Which truth activations are drawn from, how many, and where they are written."""

    preset: str = argument(help=f"What is drawn from: {', '.join(PRESETS)}.", metavar="PRESET")
    out: str = option("acts.h5", "--out", "-o", help="File to write.", recorded=False)
    rows: int = option(10**6, parse=parse_count, metavar="COUNT", help="Activations to draw.")
    held_out: float = option(
        0.1,
        parse=parse_held_out,
        metavar="SHARE|COUNT",
        help="Share of the rows, or their number, marked as held out, in documents of 128: used by eval alone.",
    )
    dtype: str = option("float32", choices=DTYPES, help="Type of the numbers on disk.")
    draw_seed: int = option(0, help="Seed of the rows; --truth-seed is that of what they are drawn from.")
    device: str = option("auto", help="cpu, cuda, cuda:1, mps, or auto.")
    overwrite: bool = option(False, help="Replace the output.", recorded=False)

    def check(self) -> None:
        self.take_shape(self.preset)
        self.require(self.rows >= 1, "rows", "must be at least 1")
        self.require(0 <= self.held_out <= self.rows, "held_out", f"must lie between 0 and the {self.rows} rows")
        self.require(self.draw_seed >= 0, "draw_seed", "must not be negative")

    def held_out_rows(self) -> int:
        """How many rows are wanted as held out."""
        return round(self.held_out * self.rows) if self.held_out < 1 else int(self.held_out)
