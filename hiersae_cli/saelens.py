"""The hierarchical model as an architecture of SAELens: importing this module registers it.

    import hiersae_cli.saelens
    sae = sae_lens.SAE.load_from_disk("folder")  # written by: hiersae convert runs/hier --to sae-lens -o folder
    sae.tree.children("a3")

Codes and reconstructions are the run's; every function of SAELens that takes an SAE takes this one. Needs the extra
``sae-lens``. Legend of shapes: B rows, D width, F latents, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from hiersae_cli.config.architectures import HierOptions
from hiersae_cli.errors import install_hint
from hiersae_cli.formats.dictionaries.saelens import ARCHITECTURE, OWN_TENSORS
from hiersae_cli.formats.tree import Tree, bare_nodes
from hiersae_cli.levels import Levels
from hiersae_cli.sae import HierarchicalSAE

try:
    from sae_lens import SAE, SAEConfig, register_sae_class
    from sae_lens.registry import SAE_CLASS_REGISTRY
except ImportError as error:
    raise ImportError(f"hiersae_cli.saelens needs SAELens. {install_hint('sae-lens')}") from error


@dataclass
class HierSAEConfig(SAEConfig):
    """The fields of ``cfg.json`` in addition to SAELens' own; the tree is in ``metadata.tree``.

    Attributes:
        refine: whether the encoder has a second pass.
        hard: whether a child fires only if its parent does.
        sibling_weight: factor on the price of a child if a stronger child of its parent fires.
    """

    refine: bool = False
    hard: bool = False
    sibling_weight: float = 1.0

    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE


class _Encoder(HierarchicalSAE):
    """The model without weights: it gets them with every input."""

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self.encode(x_BD)


class HierSAE(SAE):
    """Levels of latents with a tree, for inference."""

    b_enc: nn.Parameter
    parent: torch.Tensor

    def initialize_weights(self) -> None:
        super().initialize_weights()
        tree = self.cfg.metadata.tree
        if tree is None:
            raise ValueError("the metadata of this SAE has no tree: was it written by 'hiersae convert'?")
        place = {"dtype": self.dtype, "device": self.device}
        self.levels = tuple(tree["widths"])
        self.b_enc = nn.Parameter(torch.zeros(self.cfg.d_sae, **place))
        for ours, theirs in OWN_TENSORS.items():
            if self.cfg.refine or ours not in ("refine_F", "b_refine_F", "threshold_first_L"):
                size = len(self.levels) if ours.endswith("_L") else self.cfg.d_sae
                self.register_buffer(theirs, torch.zeros(size, **place))
        # On the CPU even if all other tensors have no memory yet: it comes from the configuration, not from the file.
        self.register_buffer("parent", torch.tensor(tree["parent"], device="cpu"), persistent=False)

    @cached_property
    def tree(self) -> Tree:
        """The tree, without statistics and evidence; ``hiersae export-tree`` writes one with them."""
        ours, levels = self.cfg.metadata.hiersae, Levels.of(self.levels)
        run = {"name": ours["run"], "arch": "hier", "module": self.cfg.metadata.hf_hook_name}
        header = {"run": {**run, "width": self.cfg.d_in, "widths": list(self.levels), "hard": self.cfg.hard}}
        return Tree(header, bare_nodes(levels, self.parent.tolist()))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The code (…, F) of activations (…, D)."""
        centred = self.process_sae_in(x)
        tensors = {
            "W_enc_FD": self.W_enc.T,
            "b_enc_F": self.b_enc,
            "W_dec_FD": self.W_dec,
            "b_dec_D": torch.zeros_like(self.b_dec),  # already subtracted from the input
            "parent_F": self.parent,
            "hard": torch.tensor(self.cfg.hard),
        }
        tensors |= {ours: getattr(self, theirs) for ours, theirs in OWN_TENSORS.items() if hasattr(self, theirs)}
        code_BF = torch.func.functional_call(self._encoder, tensors, centred.reshape(-1, self.cfg.d_in))
        return self.hook_sae_acts_post(code_BF.view(*centred.shape[:-1], self.cfg.d_sae))

    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        """The reconstruction (…, D) of codes (…, F)."""
        return self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)

    def fold_W_dec_norm(self) -> None:
        """Nothing is done: prices and thresholds are for the codes as they are."""

    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        raise NotImplementedError("thresholds are for unscaled activations; train the run on scaled ones")

    def fold_activation_whitening(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("thresholds are for activations without whitening; train the run on whitened ones")

    @cached_property
    def _encoder(self) -> _Encoder:
        # Not a submodule, because its empty weights would then be in the file.
        with torch.device("meta"):
            options = HierOptions(
                widths=self.levels,
                k=(1.0,) * len(self.levels),
                refine=self.cfg.refine,
                sibling_weight=self.cfg.sibling_weight,
            )
            encoder = _Encoder(self.cfg.d_in, options)
        return encoder.eval()


if ARCHITECTURE not in SAE_CLASS_REGISTRY:
    register_sae_class(ARCHITECTURE, HierSAE, HierSAEConfig)
