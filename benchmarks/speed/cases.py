"""The peers that ``python -m benchmarks.speed`` times: a training step, and encoding.

Legend of shapes: B rows, D width.
"""

from __future__ import annotations

import torch

from hiersae_cli.workflows import bench
from hiersae_cli.workflows.bench import Case, Size


class Sparsify(Case):
    """sparsify's SparseCoder (TopK) with its normalisation and Adam, one of its optimizers."""

    package = "eai-sparsify"

    def __init__(self, size: Size):
        super().__init__(size)
        from sparsify import SparseCoder, SparseCoderConfig

        config = SparseCoderConfig(num_latents=size.latents, k=size.k)
        self.sae = SparseCoder(size.d, config, device=size.device)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=1e-4)

    def step(self, x_BD: torch.Tensor) -> None:
        self.sae.set_decoder_norm_to_unit_norm()
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self.size.dtype == "bfloat16"):
            loss = self.sae(x_BD).fvu
        loss.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.sae.encode(x_BD)


class SAELens(Case):
    """SAELens' own training step for TopK."""

    package = "sae-lens"
    kind = "TopK"

    def __init__(self, size: Size):
        super().__init__(size)
        import sae_lens
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        config = getattr(sae_lens, f"{self.kind}TrainingSAEConfig")(
            d_in=size.d, d_sae=size.latents, k=size.k, device=size.device
        )
        self.sae = getattr(sae_lens, f"{self.kind}TrainingSAE")(config)
        settings = SAETrainerConfig(
            total_training_samples=10**6 * size.batch,
            train_batch_size_samples=size.batch,
            lr=1e-4,
            lr_end=1e-4,
            device=size.device,
            autocast=size.dtype == "bfloat16",
            logger=LoggingConfig(log_to_wandb=False),
        )
        self.trainer = SAETrainer(cfg=settings, sae=self.sae, data_provider=iter(()))

    def step(self, x_BD: torch.Tensor) -> None:
        self.trainer._train_step(sae=self.sae, sae_in=x_BD)

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.sae.encode(x_BD)


class SAELensBatchTopK(SAELens):
    """SAELens' own training step for BatchTopK."""

    kind = "BatchTopK"


class DictionaryLearning(Case):
    """The update of dictionary_learning's TopK trainer."""

    package = "dictionary-learning"

    def __init__(self, size: Size):
        super().__init__(size)
        from dictionary_learning.trainers.top_k import TopKTrainer

        self.number = 0
        self.trainer = TopKTrainer(
            steps=10**6,
            activation_dim=size.d,
            dict_size=size.latents,
            k=size.k,
            layer=0,
            lm_name="none",
            device=size.device,
        )

    def step(self, x_BD: torch.Tensor) -> None:
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self.size.dtype == "bfloat16"):
            self.trainer.update(self.number, x_BD)
        self.number += 1

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.trainer.ae.encode(x_BD)


CASES: dict[str, type[Case]] = {
    **bench.CASES,
    "sparsify": Sparsify,
    "saelens-topk": SAELens,
    "saelens-batchtopk": SAELensBatchTopK,
    "dictionary-learning": DictionaryLearning,
}
