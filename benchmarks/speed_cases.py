"""What ``speed.py`` times: a training step, and encoding, of ours and of its peers.

Legend of shapes: B rows, D width.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

THREE_LEVELS = 300_000  # latents from which on ours has three levels


class Case:
    """One implementation of one size: a training step, and encoding, as functions of a batch (B, D)."""

    package = "hiersae"

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.parts: dict[str, float] = {}
        self.counted: dict[str, float] = {}

    def step(self, x_BD: torch.Tensor) -> None:
        """A whole training step."""
        raise NotImplementedError

    def encode(self, x_BD: torch.Tensor) -> object:
        """The code at inference."""
        raise NotImplementedError


class Ours(Case):
    """The hierarchy behind a closed gate, its tree balanced, with the optimizer that follows touched rows."""

    changes: dict[str, Any] = {"curriculum": "closed=1", "harden": True, "optimizer": "row-adam", "compile": True}  # noqa: RUF012

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        from hiersae_cli.config import TrainConfig
        from hiersae_cli.sae import build
        from hiersae_cli.sae.training import Trainer

        config = TrainConfig(
            acts=["random"],
            batch=options.batch,
            tokens=10**6 * options.batch,
            dtype=options.dtype,
            **{"moments": options.moments, **self.shape(), **self.changes},
        )
        config.check()
        self.model = build(config, options.d)
        self.model.initialise(torch.zeros(options.d), 0)
        self.trainer = Trainer(self.model.to(options.device).train(), config, 1.0)

    def shape(self) -> dict[str, Any]:
        """Widths and L0s: parents such that the dense and the grouped product are of one size."""
        latents, k = self.options.latents[0], self.options.k
        if latents > THREE_LEVELS:
            return {"widths": (1024, 32_768, latents - 33_792), "k": (k / 4, k / 4, k / 2)}
        parents = 1 << round((k / 4 * latents) ** 0.5).bit_length() - 1
        return {"widths": (parents, latents - parents), "k": (k / 4, k * 3 / 4)}

    def step(self, x_BD: torch.Tensor) -> None:
        self.trainer.step(x_BD)

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        if self.trainer.config.harden and not self.model.hard:
            self.model.harden()
        return self.model.eval().codes(x_BD)

    def watch(self) -> None:
        """From now on, add up the seconds of each part of a step; nested parts are taken out of the outer one."""
        from hiersae_cli.sae import gated
        from hiersae_cli.sae.base import SparseAutoencoder

        stack: list[float] = []

        def timed(owner: Any, name: str, what: str) -> None:
            function: Callable[..., Any] = getattr(owner, name)

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                begun = time.perf_counter()
                stack.append(0.0)
                try:
                    return function(*args, **kwargs)
                finally:
                    spent, inner = time.perf_counter() - begun, stack.pop()
                    self.parts[what] = self.parts.get(what, 0.0) + spent - inner
                    if stack:
                        stack[-1] += spent

            setattr(owner, name, wrapped)

        timed(SparseAutoencoder, "_read", "dense product")
        timed(gated, "above", "grouped product")
        timed(SparseAutoencoder, "_select", "selection and exact values")
        timed(type(self.model), "step", "decoding and loss")
        timed(torch.Tensor, "backward", "backward")
        timed(type(self.trainer), "_move", "optimizer")
        timed(type(self.trainer), "step", "the rest")

    def count(self, x_BD: torch.Tensor) -> None:
        """Operations and bytes of a step, from what was active in it."""
        options, model = self.options, self.model
        codes = model.train().step(x_BD, 0.5).codes
        fired = [code.fired for code in codes]
        tokens, width, item = len(x_BD), options.d, 4
        first = model.widths[0] if len(codes) > 1 else model.latents
        self.counted["dense_flop"] = 2.0 * tokens * width * first
        grouped = 0.0
        for level in range(1, len(codes)):
            blocks = model._blocks(level)  # type: ignore[operator]
            if blocks is not None:
                grouped += float(blocks.first_P.diff()[fired[level - 1].latent_n - model.parts[level - 1].start].sum())  # type: ignore[index,union-attr]
        self.counted["grouped_flop"] = 2.0 * width * grouped
        places = sum(len(pattern) for pattern in fired)
        # Two products forward, four backward: each reads a row of D numbers for every active place.
        self.counted["sparse_bytes"] = 6.0 * places * width * item
        touched = sum(len(pattern.latent_n.unique()) for pattern in fired)
        moments = 2 if options.moments == "bfloat16" else 4
        # Encoder and decoder: the weight and two moments, read and written, and the gradient, written and read twice.
        self.counted["optimizer_bytes"] = 2.0 * touched * width * (2 * item + 4 * moments + 3 * item)
        self.counted["touched_rows"] = touched


class OursDense(Ours):
    """The hierarchy with its gate open, and dense Adam: the defaults of training."""

    changes: dict[str, Any] = {"curriculum": "none", "moments": "float32"}  # noqa: RUF012


class OursFlat(Ours):
    """BatchTopK of ours with dense Adam."""

    changes: dict[str, Any] = {"arch": "batchtopk", "moments": "float32"}  # noqa: RUF012

    def shape(self) -> dict[str, Any]:
        return {"widths": (self.options.latents[0],), "k": (self.options.k,)}


class Sparsify(Case):
    """sparsify's SparseCoder (TopK) with Adam, which is one of its optimizers, and its normalisation."""

    package = "eai-sparsify"

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        from sparsify import SparseCoder, SparseCoderConfig

        config = SparseCoderConfig(num_latents=options.latents[0], k=options.k)
        self.sae = SparseCoder(options.d, config, device=options.device)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=1e-4)

    def step(self, x_BD: torch.Tensor) -> None:
        self.sae.set_decoder_norm_to_unit_norm()
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self.options.dtype == "bfloat16"):
            loss = self.sae(x_BD).fvu
        loss.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.sae.encode(x_BD)


class SAELens(Case):
    """SAELens' own training step, of TopK."""

    package = "sae-lens"
    kind = "TopK"

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        import sae_lens
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        config = getattr(sae_lens, f"{self.kind}TrainingSAEConfig")(
            d_in=options.d, d_sae=options.latents[0], k=options.k, device=options.device
        )
        self.sae = getattr(sae_lens, f"{self.kind}TrainingSAE")(config)
        settings = SAETrainerConfig(
            total_training_samples=10**6 * options.batch,
            train_batch_size_samples=options.batch,
            lr=1e-4,
            lr_end=1e-4,
            device=options.device,
            autocast=options.dtype == "bfloat16",
            logger=LoggingConfig(log_to_wandb=False),
        )
        self.trainer = SAETrainer(cfg=settings, sae=self.sae, data_provider=iter(()))

    def step(self, x_BD: torch.Tensor) -> None:
        self.trainer._train_step(sae=self.sae, sae_in=x_BD)

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.sae.encode(x_BD)


class SAELensBatchTopK(SAELens):
    """SAELens' own training step, of BatchTopK."""

    kind = "BatchTopK"


class DictionaryLearning(Case):
    """dictionary_learning's own update, of its TopK trainer."""

    package = "dictionary-learning"

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        from dictionary_learning.trainers.top_k import TopKTrainer

        self.number = 0
        self.trainer = TopKTrainer(
            steps=10**6,
            activation_dim=options.d,
            dict_size=options.latents[0],
            k=options.k,
            layer=0,
            lm_name="none",
            device=options.device,
        )

    def step(self, x_BD: torch.Tensor) -> None:
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self.options.dtype == "bfloat16"):
            self.trainer.update(self.number, x_BD)
        self.number += 1

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.trainer.ae.encode(x_BD)


CASES: dict[str, type[Case]] = {
    "hiersae": Ours,
    "hiersae-open": OursDense,
    "hiersae-batchtopk": OursFlat,
    "sparsify": Sparsify,
    "saelens-topk": SAELens,
    "saelens-batchtopk": SAELensBatchTopK,
    "dictionary-learning": DictionaryLearning,
}
