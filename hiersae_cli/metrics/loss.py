"""The cost of a reconstruction for the host: next-token loss and divergence when it is spliced in.

Legend of shapes: B windows, T tokens, D width, K blocks, n weightings of the blocks.

Definitions, over tokens that have a successor in their window:
    CE recovered = (CE_ablated - CE_spliced) / (CE_ablated - CE_clean), with ablation by zero (or by the mean);
    KL = sum p_clean (log p_clean - log p_spliced), in nats per token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from hiersae_cli.host.model import Host
from hiersae_cli.metrics.ratio import ratio
from hiersae_cli.metrics.reconstruction import Statistic

ZERO, MEAN = "(zero)", "(mean)"  # the ablations among the interventions; no run folder has such a name

Replace = Callable[[torch.Tensor], torch.Tensor]


class LossSums:
    """Summed loss of each intervention for each block of documents.

    Args:
        blocks: K.
        interventions: by name, the function from activations (B, T, D) to their replacement.

    Attributes:
        tokens_K: tokens whose loss was measured.
        left_alone: positions that kept their activations under every intervention.
    """

    summed = ("tokens_K", "left_alone", "ce_K", "kl_K")  # see ``workflows.common.sharing``

    def __init__(self, blocks: int, interventions: Mapping[str, Replace]):
        self.interventions = interventions
        self.tokens_K = np.zeros(blocks)
        self.left_alone = 0
        self.ce_K = {name: np.zeros(blocks) for name in ("clean", *interventions)}
        self.kl_K = {name: np.zeros(blocks) for name in interventions}

    def add(
        self,
        host: Host,
        path: str,
        tokens_BT: torch.Tensor,
        lengths_B: torch.Tensor,
        replaced_BT: torch.Tensor,
        block_B: torch.Tensor,
    ) -> None:
        """Add a batch of windows of ``lengths_B`` tokens, padded on the right.

        ``replaced_BT`` marks the positions of the interventions; the other positions keep their activations.
        """
        tokens_BT, block_B, replaced_BT = (x.to(host.device) for x in (tokens_BT, block_B, replaced_BT))
        target_BT = tokens_BT[:, 1:]
        counted_BT = torch.arange(1, tokens_BT.shape[1], device=host.device) < lengths_B.to(host.device)[:, None]
        self.left_alone += int(lengths_B.sum() - replaced_BT.sum())
        clean = host.log_probabilities(tokens_BT)[:, :-1]
        self.tokens_K += self._by_block(counted_BT.double(), block_B)
        self.ce_K["clean"] += self._ce(clean, target_BT, counted_BT, block_B)
        for name, replace in self.interventions.items():
            with host.spliced(path, replace, replaced_BT):
                spliced = host.log_probabilities(tokens_BT)[:, :-1]
            self.ce_K[name] += self._ce(spliced, target_BT, counted_BT, block_B)
            kl_BT = (clean.exp() * (clean - spliced)).sum(-1).double() * counted_BT
            self.kl_K[name] += self._by_block(kl_BT, block_B)

    def statistics(self, name: str) -> dict[str, Statistic]:
        """Every metric of the intervention ``name``, as ``CodeSums.statistics``; needs ``ZERO`` and ``MEAN``."""
        return {
            "ce_recovered": partial(self.recovered, name, ZERO),
            "ce_recovered_mean": partial(self.recovered, name, MEAN),
            "kl": partial(self.kl, name),
        }

    def ce(self, name: str, weights_nK: np.ndarray) -> np.ndarray:
        """Mean loss in nats per token, (n,); NaN for weightings that count no token."""
        return ratio(weights_nK @ self.ce_K[name], weights_nK @ self.tokens_K)

    def kl(self, name: str, weights_nK: np.ndarray) -> np.ndarray:
        """Mean divergence from the clean host in nats per token, (n,)."""
        return ratio(weights_nK @ self.kl_K[name], weights_nK @ self.tokens_K)

    def recovered(self, name: str, ablated: str, weights_nK: np.ndarray) -> np.ndarray:
        """Share of the ablation's damage that the reconstruction avoids, (n,)."""
        worst = self.ce(ablated, weights_nK)
        return (worst - self.ce(name, weights_nK)) / (worst - self.ce("clean", weights_nK))

    def _ce(
        self, log_p: torch.Tensor, target_BT: torch.Tensor, counted_BT: torch.Tensor, block_B: torch.Tensor
    ) -> np.ndarray:
        loss_BT = -log_p.gather(-1, target_BT[..., None]).squeeze(-1).double() * counted_BT
        return self._by_block(loss_BT, block_B)

    def _by_block(self, values_BT: torch.Tensor, block_B: torch.Tensor) -> np.ndarray:
        sums = torch.zeros(len(self.tokens_K), dtype=torch.float64, device=values_BT.device)
        return sums.index_add_(0, block_B, values_BT.sum(1)).cpu().numpy()
