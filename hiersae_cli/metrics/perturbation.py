"""Targeted probe perturbation: does removing a concept's latents blind its probe, and no other probe?

Legend of shapes: N rows, F latents, C concepts, J probes (as many as concepts), K blocks, n weightings of the blocks.

Source: Karvonen et al. (2024), Evaluating Sparse Autoencoders on Targeted Concept Erasure Tasks, arXiv 2411.18895. Here
the latents' contributions are subtracted from the activations themselves, so all dictionaries begin with the same
accuracy; accuracy is balanced; and the other probes are those of concepts that exclude the removed one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csc_array

from hiersae_cli.metrics.detection import Confusion, sums_by_block
from hiersae_cli.metrics.ratio import ratio

Array = np.ndarray[Any, Any]

ABLATED = 5  # latents removed per concept


def effects(mean_difference_CF: Array, along_FC: Array) -> Array:
    """How much more each latent adds to a probe's score in rows of its concept than in other rows, (C, F).

    Args:
        mean_difference_CF: difference of each latent's mean activation between the two kinds of rows.
        along_FC: decoder rows times the probes' weights.
    """
    effect_CF: Array = mean_difference_CF * along_FC.T
    return effect_CF


class Perturbation:
    """The answers of each probe when the latents of each concept are removed.

    Args:
        values_NF: the code.
        chosen: for each concept, the latents to remove.
        along_FJ: decoder rows times the probes' weights.
        score_NJ, least_J: the probes' scores, and the least score for yes.
        member_NJ, known_NJ: which rows belong to the concepts, and for which rows that is known.
        block_N, blocks: the rows' blocks, and K.
    """

    def __init__(
        self,
        values_NF: csc_array,
        chosen: list[Array],
        along_FJ: Array,
        score_NJ: Array,
        least_J: Array,
        member_NJ: Array,
        known_NJ: Array,
        block_N: Array,
        blocks: int,
    ):
        yes_NJ = score_NJ >= least_J
        self.before = Confusion.of(yes_NJ, member_NJ, known_NJ, block_N, blocks)
        concepts, probes = len(chosen), len(least_J)
        self.yes_KCJ, self.hit_KCJ = np.zeros((2, blocks, concepts, probes))
        for concept, latents in enumerate(chosen):
            values_Nk = values_NF[:, latents].tocsr()
            touched = np.flatnonzero(np.diff(values_Nk.indptr))
            after = score_NJ[touched] - values_Nk[touched] @ along_FJ[latents] >= least_J
            change = (after.astype(np.int8) - yes_NJ[touched]) * known_NJ[touched]
            self.yes_KCJ[:, concept] = sums_by_block(change, block_N[touched], blocks)
            self.hit_KCJ[:, concept] = sums_by_block(change * member_NJ[touched], block_N[touched], blocks)

    def drops(self, weights_nK: Array) -> Array:
        """Loss of balanced accuracy (n, C, J) of each probe by each concept's ablation."""
        known, positive = (weights_nK @ count_KC for count_KC in (self.before.known_KC, self.before.positive_KC))
        yes, hit = (np.tensordot(weights_nK, change_KCJ, 1) for change_KCJ in (self.yes_KCJ, self.hit_KCJ))
        share = np.full((2, *yes.shape), np.nan)
        for of, to, out in zip((hit, yes - hit), (positive, known - positive), share, strict=True):
            np.divide(of, to[:, None], out=out, where=(to > 0)[:, None])
        # Fewer hits lower the accuracy, fewer false alarms raise it.
        return (share[1] - share[0]) / 2


def targeted(drops_nCJ: Array, others_CJ: Array) -> Array:
    """Loss of each concept's own probe minus the mean loss of the others, (n, C); NaN for a concept without others.

    Args:
        others_CJ: bool, the other probes for each concept.
    """
    drop_nC = np.diagonal(drops_nCJ, axis1=1, axis2=2)
    known = np.isfinite(drops_nCJ) & others_CJ
    return drop_nC - ratio(np.where(known, drops_nCJ, 0.0).sum(2), known.sum(2))
