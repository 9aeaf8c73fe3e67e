"""Sparse autoencoders. To add an architecture: subclass ``SparseAutoencoder``, and name it in ``build``."""

from __future__ import annotations

from hiersae_cli.config.train import TrainConfig, parse_curriculum
from hiersae_cli.sae.base import SparseAutoencoder, Step
from hiersae_cli.sae.curriculum import Curriculum
from hiersae_cli.sae.flat import BatchTopK, Matryoshka, TopK
from hiersae_cli.sae.hier import HierarchicalSAE
from hiersae_cli.sae.jumprelu import JumpReLU

__all__ = ["BatchTopK", "HierarchicalSAE", "JumpReLU", "Matryoshka", "SparseAutoencoder", "Step", "TopK", "build"]


def build(config: TrainConfig, width: int, hierarchy: type[HierarchicalSAE] = HierarchicalSAE) -> SparseAutoencoder:
    """The untrained model that a configuration describes, for activations of ``width``.

    ``hierarchy`` is the class that ``hier`` stands for: a variant of it in experiments.
    """
    if config.arch == "hier":
        return hierarchy(
            width,
            config.widths,
            config.k,
            refine=config.refine,
            coarse_weight=config.coarse_weight,
            coarse_rows=config.coarse_rows,
            coherence_weight=config.coherence_weight,
            tree_weight=config.tree_weight,
            orphan_weight=config.orphan_weight,
            tree_every=config.tree_every,
            least_containment=config.least_containment,
            relevel=config.relevel,
            open_every=config.open_every,
            k_start=config.k_start,
            curriculum=Curriculum(**parse_curriculum(config.curriculum)),
        )
    if config.arch == "jumprelu":
        return JumpReLU(width, config.widths, config.k, l0_weight=config.l0_weight, bandwidth=config.bandwidth)
    flat = {"topk": TopK, "batchtopk": BatchTopK, "matryoshka": Matryoshka}[config.arch]
    return flat(width, config.widths, config.k, config.refine)
