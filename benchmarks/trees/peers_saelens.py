"""Dictionaries trained by SAELens as published: its classes, its trainer, its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import torch
from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.training.sae_trainer import SAETrainer

from hiersae_cli.config.train import TrainConfig


def train(config: TrainConfig, batches: Iterator[torch.Tensor], width: int, device: torch.device, folder: Path) -> None:
    """Train BatchTopK, or Matryoshka BatchTopK, and save it for inference in ``folder``.

    Uses ``widths`` (of the nested dictionaries, or of the only one), ``k``, ``tokens``, ``batch``, ``lr`` and ``seed``
    of the configuration.
    """
    common = {"d_in": width, "d_sae": sum(config.widths), "k": config.k[0], "device": str(device)}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        if len(config.widths) > 1:
            nested = MatryoshkaBatchTopKTrainingSAEConfig(matryoshka_widths=list(accumulate(config.widths)), **common)
            sae = MatryoshkaBatchTopKTrainingSAE(nested)
        else:
            sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common))
        settings = SAETrainerConfig(
            total_training_samples=config.steps * config.batch,
            train_batch_size_samples=config.batch,
            lr=config.lr,
            lr_end=config.lr,
            device=str(device),
            logger=LoggingConfig(log_to_wandb=False),
        )
        SAETrainer(cfg=settings, sae=sae, data_provider=batches).fit()
    sae.save_inference_model(folder)
