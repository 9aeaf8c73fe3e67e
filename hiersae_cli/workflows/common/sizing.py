"""What the rows' spectrum says about the sizes of a run: whether latents can be stable, and a code worth its sparsity.

The numbers are argued in ``docs/metrics.md``.
"""

from __future__ import annotations

from hiersae_cli.config.base import typed
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.metrics.spectrum import GIANT_COORDINATE, MOST_VARIANCE, Spectrum, in_words

BATCHES = (2048, 1024, 512, 384, 256)  # that are proposed
STABLE_STEPS = 5_000
FEW_STEPS = 2_000
LATENTS_PER_DIMENSION = 5  # more than this need ``STABLE_STEPS``
_SPARSE = 4  # an L0 of the dimensions of most of the variance over this is proposed


def figures_of(config: TrainConfig, spectrum: Spectrum) -> str:
    """The spectrum of the rows and how a run's sizes relate to it, in a line."""
    l0, latents = sum(config.k), sum(config.widths)
    return (
        f"{in_words(spectrum.as_json())}; FVU of PCA {spectrum.pca_fvu(l0):.3g} at k {l0:g}; "
        f"{config.tokens / latents:,.0f} tokens per latent"
    )


def warnings(config: TrainConfig, spectrum: Spectrum | None) -> list[str]:
    """Why the sizes of a run do not fit its rows, each with what to do about it; without a spectrum only its steps."""
    latents, l0 = sum(config.widths), sum(config.k)
    doubts = []
    most = round(LATENTS_PER_DIMENSION * spectrum.effective_rank) if spectrum else latents
    if latents > most and config.steps < STABLE_STEPS:
        doubts.append(
            f"another seed would find other latents: {latents:,} are many for rows of effective rank "
            f"{most / LATENTS_PER_DIMENSION:,.0f} and {config.steps:,} steps. Pass --widths with at most {most:,} in "
            f"all, or {longer(config, STABLE_STEPS)} for {STABLE_STEPS:,} steps"
        )
    elif config.steps < FEW_STEPS:
        doubts.append(
            f"{config.steps:,} steps are too few for latents to settle: pass {longer(config, FEW_STEPS)} for "
            f"{FEW_STEPS:,} steps"
        )
    dimensions = spectrum.dimensions_of(MOST_VARIANCE) if spectrum else 0
    if spectrum and l0 >= dimensions:
        doubts.append(
            f"L0 {l0:g} is not sparse: {dimensions:,} principal components hold {MOST_VARIANCE:.0%} of the variance. "
            f"Pass a smaller --k, such as {max(1, dimensions // _SPARSE)} in all"
        )
    if spectrum and spectrum.largest_coordinate > GIANT_COORDINATE and config.normalise == "overall":
        doubts.append(
            f"one coordinate holds {spectrum.largest_coordinate:.0%} of the variance and decides what is learned: pass "
            "--normalise capped"
        )
    return doubts


def batch_for(tokens: int, steps: int) -> int:
    """The largest of ``BATCHES`` with which ``tokens`` give ``steps``; the smallest if none does."""
    return next((size for size in BATCHES if tokens >= steps * size), BATCHES[-1])


def longer(config: TrainConfig, steps: int) -> str:
    """The flags with which a run has at least ``steps`` steps: smaller batches first, then more tokens."""
    batch = min(batch_for(config.tokens, steps), config.batch)
    tokens = max(config.tokens, steps * batch)
    flags = [f"--batch {batch}"] if batch != config.batch else []
    flags += [f"--tokens {typed(tokens)}"] if tokens != config.tokens else []
    return " ".join(flags)
