"""Dictionaries trained by SAELens, as published: its classes, its trainer, its defaults.

Legend of shapes: B rows of a batch, D width, F latents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import version

import torch
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.training.sae_trainer import SAETrainer

LIBRARY = f"sae-lens {version('sae-lens')}"


class SAELensDictionary:
    """What SAELens saves for inference, with the names that our measures read.

    That is a threshold in place of the choice by batch, and decoder rows of length 1.
    """

    def __init__(self, sae: SAE):
        self._sae = sae
        self.W_dec_FD = sae.W_dec.detach()
        self.latents = len(self.W_dec_FD)

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code (B, F) of activations (B, D)."""
        return self._sae.encode(x_BD)

    def decode(self, code_BF: torch.Tensor) -> torch.Tensor:
        """The reconstruction (B, D) of a code (B, F)."""
        return self._sae.decode(code_BF)


def train(
    batches: Iterator[torch.Tensor],
    width: int,
    latents: int,
    l0: float,
    nested: tuple[int, ...],
    samples: int,
    batch: int,
    lr: float,
    seed: int,
    device: torch.device,
) -> SAELensDictionary:
    """BatchTopK or, where ``nested`` gives the ends of the nested dictionaries, Matryoshka BatchTopK."""
    common = {"d_in": width, "d_sae": latents, "k": l0, "device": str(device)}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if nested:
            config = MatryoshkaBatchTopKTrainingSAEConfig(matryoshka_widths=list(nested), **common)
            sae = MatryoshkaBatchTopKTrainingSAE(config)
        else:
            sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common))
        settings = SAETrainerConfig(
            total_training_samples=samples,
            train_batch_size_samples=batch,
            lr=lr,
            lr_end=lr,
            device=str(device),
            logger=LoggingConfig(log_to_wandb=False),
        )
        SAETrainer(cfg=settings, sae=sae, data_provider=batches).fit()
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        return SAELensDictionary(SAE.load_from_disk(folder, device=str(device)).eval())
