"""The training step, the same for every architecture, and its state between steps.

Legend of shapes: B rows, D width, F latents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch

from hiersae_cli.config.train import TrainConfig
from hiersae_cli.distributed.ranks import nth_largest_of_rows
from hiersae_cli.errors import HierSAEError
from hiersae_cli.sae.base import SparseAutoencoder, StepContext
from hiersae_cli.sae.hier import HierarchicalSAE
from hiersae_cli.sae.kernels.row_adam import RowAdam
from hiersae_cli.sae.kernels.sparse import SparseCode, rows_of
from hiersae_cli.sae.parts import BACKWARD, DECODING, OPTIMIZER, profiled

# Dead latents that take part in a revival loss, for each that may be active in it. They take turns, because among all
# of them the same few would always be the best.
_DEAD_PER_ACTIVE = 4


class Trainer:
    """Adam with warm-up and linear decay, unit decoder rows, gradient clipping and dead-latent revival.

    The model is trained on x * scale * relative_D, whose mean squared deviation from the mean is D; ``folded`` returns
    its weights for x itself.

    Args:
        model: an initialised model, on its device.
        config: the training configuration.
        scale: the factor of the activations.
        relative_D: a further factor of each coordinate; 1 everywhere if None.
        shared: how many of the model's latents, the first ones, all ranks have, if latents are split over ranks.
    """

    def __init__(
        self,
        model: SparseAutoencoder,
        config: TrainConfig,
        scale: float,
        relative_D: torch.Tensor | None = None,
        shared: int = 0,
    ):
        self.mesh, self.shared = model.mesh, shared
        self.model, self.config, self.scale = model, config, scale
        device = model.b_dec_D.device
        self.relative_D = torch.ones(model.width) if relative_D is None else relative_D
        self._factor_D = (self.relative_D * scale).to(device)
        fused = device.type in ("cpu", "cuda")
        self.row_adam: RowAdam | None = None
        by_row: list[torch.nn.Parameter] = []
        if config.optimizer == "row-adam":
            by_row = [model.W_enc_FD, model.W_dec_FD]
            row_gradients = model.collect_row_gradients()
            compiled = "compiled" if config.compile else ""
            moments = getattr(torch, config.moments)
            self.row_adam = RowAdam(by_row, row_gradients, (False, True), moments, implementation=compiled)
        others = [p for p in model.parameters() if not any(p is matrix for matrix in by_row)]
        self.optimizer = torch.optim.Adam(others, lr=config.lr, fused=fused)
        self.silent_F = torch.zeros(model.latents, dtype=torch.long, device=device)
        self.step_number = 0

    def step(self, x_BD: torch.Tensor) -> dict[str, Any]:
        """Train on a batch of raw activations (B, D), the same on all ranks; returns the figures of the step.

        Tensors are sums over the rows or the steps, which ``rows`` and ``steps`` count, and stay on the device; other
        values describe this step.
        """
        model, config = self.model, self.config
        context = StepContext(self.step_number, self.step_number / config.steps)
        x_BD = self._scaled(x_BD)
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            with profiled(DECODING):
                out = model.step(x_BD, context)
            dead_F = self.silent_F > config.dead_after
            loss = out.loss
            if config.aux_weight and self.mesh.latents.sum(dead_F.any().int()):
                loss = loss + config.aux_weight * self._revival_loss(
                    x_BD, [code.detach() for code in out.codes], dead_F
                )
            if self.mesh.rows.count > 1:
                loss = loss / self.mesh.rows.count
        self.optimizer.zero_grad(set_to_none=True)
        fired_n = torch.cat([code.fired.latent_n for code in out.codes])
        sums = {
            "rows": torch.full((), float(len(x_BD)), device=x_BD.device),
            "sum": x_BD.sum(0),
            "square": x_BD.square().sum(),
            "loss": loss.detach(),
            "error": out.error,
            **{name: value for name, value in out.figures.items() if isinstance(value, torch.Tensor)},
        }
        with profiled(BACKWARD):
            loss.backward()
            if self.mesh.rows.count > 1:
                sums, fired_n = self._add_up(sums, fired_n)
        if self.row_adam is None:  # RowAdam keeps the length of the rows itself
            model.project_decoder_gradient()
        lr = config.lr * self._lr_factor(context.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with profiled(OPTIMIZER):
            norm = self._optimize(lr)
        self.silent_F += len(x_BD) * self.mesh.rows.count
        self.silent_F[fired_n] = 0
        if self.row_adam is None:
            model.normalise_decoder()
        order_F = model.after_step(context)
        if order_F is not None:
            self._permute_state(order_F)
        self.step_number += 1
        parts = [((fired_n >= part.start) & (fired_n < part.stop)).sum() for part in model.level_slices()]
        return {
            "steps": torch.ones((), device=x_BD.device),
            **out.figures,
            **sums,
            "active": torch.stack([*parts[:-1], self.mesh.latents.sum(parts[-1])]),
            "gradient_norm": norm,
        }

    def _add_up(
        self, sums: dict[str, torch.Tensor], fired_n: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Add up the gradients and some sums of the ranks that have other rows, in one message.

        Returns the sums, and the latents (n,) of all firings. ``RowAdam`` adds up the gradients of single rows.
        """
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        fired_F = fired_n.bincount(minlength=self.model.latents)
        totals = self.mesh.rows.sums({**sums, **gradients, "fired_F": fired_F})
        for name, parameter in self.model.named_parameters():
            if name in gradients:
                parameter.grad = totals[name]
        latent_F = torch.arange(self.model.latents, device=fired_n.device)
        return {name: totals[name] for name in sums}, latent_F.repeat_interleave(totals["fired_F"].long())

    def _optimize(self, lr: float) -> torch.Tensor:
        """Clip the gradients and step the optimizers; returns the norm before clipping."""
        clip = self.config.clip or math.inf
        if self.mesh.latents.count > 1:
            norm = self._clip_parts(clip)
        elif self.row_adam is None:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        else:
            gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
            other_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), math.inf)
            norm = (other_norm.square() + self.row_adam.gather(self.mesh.rows)).sqrt()
            scale = (clip / (norm + 1e-6)).clamp_max(1.0)  # as clip_grad_norm_
            for gradient in gradients:
                gradient *= scale
            self.row_adam.step(lr, scale)
        self.optimizer.step()
        return norm

    def _clip_parts(self, clip: float) -> torch.Tensor:
        """``_optimize`` up to the steps if latents are split over ranks; those that all have count once."""
        split = {id(parameter) for parameter in self.model.per_latent()}
        gradients = [(id(p) in split, p.grad) for p in self.model.parameters() if p.grad is not None]
        squares = self.silent_F.new_zeros(2, dtype=torch.float32)  # of what all ranks have, and of the others
        for is_split, gradient in gradients:
            first = gradient[: self.shared] if is_split else gradient
            squares[0] += first.square().sum()
            squares[1] += gradient[self.shared :].square().sum() if is_split else 0.0
        if self.row_adam is not None:
            squares += self.row_adam.gather(self.mesh.rows, self.shared)
        norm = (squares[0] + self.mesh.latents.sum(squares[1:])[0]).sqrt()
        scale = (clip / (norm + 1e-6)).clamp_max(1.0)
        for _, gradient in gradients:
            gradient *= scale
        if self.row_adam is not None:
            self.row_adam.step(self.optimizer.param_groups[0]["lr"], scale)
        return norm

    def finish(self, batches: Iterable[torch.Tensor]) -> dict[str, float]:
        """End training: ``calibrate`` and ``harden`` on the same batches."""
        if self.config.harden:
            batches = list(batches)  # they are read more than once
        self.calibrate(batches)
        return self.harden(batches)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[torch.Tensor]) -> None:
        """Make the updates that are missing at the end, and set the thresholds of inference by ``batches``."""
        if self.row_adam is not None:
            self.row_adam.catch_up(self.config.lr * self._lr_factor(1 - 1 / self.config.steps))
        self.model.finish()
        self.model.calibrate(self._scaled(x_BD) for x_BD in batches)

    @torch.no_grad()
    def harden(self, batches: Iterable[torch.Tensor]) -> dict[str, float]:
        """With ``harden``, close the gate, and return FVU and L0 on ``batches`` with the gate open and closed."""
        model = self.model
        if not self.config.harden or not isinstance(model, HierarchicalSAE):
            return {}
        model.eval().harden()
        return self._gate_figures(model, batches)

    def _gate_figures(self, model: HierarchicalSAE, batches: Iterable[torch.Tensor]) -> dict[str, float]:
        """FVU and L0 with the gate closed, and, in names that end in ``_soft``, with the gate open."""
        rows, square, total_D = 0, 0.0, torch.zeros_like(model.b_dec_D)
        sums = dict.fromkeys(("fvu_soft", "l0_soft", "fvu", "l0"), 0.0)
        for raw_BD in batches:
            x_BD = self._scaled(raw_BD)
            y_BD = x_BD - model.b_dec_D  # near the mean, so that the squares are small numbers
            rows, square, total_D = rows + len(y_BD), square + float(y_BD.square().sum()), total_D + y_BD.sum(0)
            for hard, suffix in ((False, "_soft"), (True, "")):
                code_BF = model.encode(x_BD, hard=hard)
                sums[f"fvu{suffix}"] += float((x_BD - model.decode(code_BF)).square().sum())
                sums[f"l0{suffix}"] += float((code_BF > 0).sum())
        variance = square - float(total_D.square().sum()) / rows
        return {name: value / (variance if name.startswith("fvu") else rows) for name, value in sums.items()}

    def dead_share(self) -> float:
        """Share of latents that have not fired for ``dead_after`` rows."""
        dead_F = (self.silent_F > self.config.dead_after).float()
        if self.mesh.latents.count == 1:
            return float(dead_F.mean())
        dead = dead_F[: self.shared].sum() + self.mesh.latents.sum(dead_F[self.shared :].sum())
        return float(dead) / self.model.whole_latents

    def folded(self) -> dict[str, torch.Tensor]:
        """The weights of inference for unscaled activations, on the CPU."""
        model = deepcopy(self.model).cpu()
        model.fold_scale(self.scale, self.relative_D)
        return model.weights()

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that the next step depends on, by name."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, group in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in group.items()}
        if self.row_adam is not None:
            tensors |= {f"rows.{name}": value for name, value in self.row_adam.state().items()}
        tensors |= {"silent": self.silent_F, "step": torch.tensor(self.step_number)}
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load the tensors that ``state`` returned; raises ``KeyError`` or ``ValueError`` for others."""
        self._require_own(tensors)
        self.model.load_state_dict(_without_prefix(tensors, "model."))
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, number, slot = name.split(".")
                slots.setdefault(int(number), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        if self.row_adam is not None:
            self.row_adam.restore(_without_prefix(tensors, "rows."))
        self.silent_F.copy_(tensors["silent"])
        self.step_number = int(tensors["step"])
        if not 0 <= self.step_number <= self.config.steps:
            raise ValueError(f"step {self.step_number} of {self.config.steps}")

    def _require_own(self, tensors: dict[str, torch.Tensor]) -> None:
        """Raise ``KeyError`` or ``ValueError`` for tensors that ``state`` cannot have returned."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        own = self.state()
        for name in own.keys() | tensors.keys():
            value = tensors[name]
            if name.startswith("adam."):
                _, number, slot = name.split(".")
                like = parameters[int(number)].new_zeros(()) if slot == "step" else parameters[int(number)]
            elif name in own:
                like = own[name]
            else:  # of the interval of the log
                continue
            if value.shape != like.shape or value.dtype != like.dtype:
                raise ValueError(f"{name} is {value.dtype} of the shape {tuple(value.shape)}")

    def require_finite(self, loss: float) -> None:
        """Raise ``HierSAEError`` if the loss is not finite: more steps would only spoil the saved weights."""
        if not math.isfinite(loss):
            raise HierSAEError(
                f"training diverged at step {self.step_number}: the loss is {loss}",
                "Use a smaller --lr; if the cache has outlier rows, leave them out with --drop-outliers.",
            )

    def _scaled(self, x_BD: torch.Tensor) -> torch.Tensor:
        """This rank's rows of raw activations, on the model's device, times the factor of each coordinate."""
        return x_BD[self.mesh.rows.part(len(x_BD))].to(self.model.b_dec_D.device, torch.float32) * self._factor_D

    def _permute_state(self, order_F: torch.Tensor) -> None:
        """Reorder the state of each latent as the model has reordered its latents."""
        self.silent_F = self.silent_F[order_F]
        if self.row_adam is not None:
            self.row_adam.permute(order_F)
        for parameter in self.model.per_latent():
            for name, slot in self.optimizer.state.get(parameter, {}).items():
                if name != "step":
                    slot.copy_(slot[order_F])

    def _lr_factor(self, progress: float) -> float:
        """The learning rate as a share of its peak."""
        config = self.config
        rising = (progress + 1 / config.steps) / config.warmup if config.warmup else 1.0
        falling = (1 - progress) / config.decay if config.decay else 1.0
        return min(1.0, rising, falling)

    def _next_dead(self, dead_F: torch.Tensor, count: int) -> torch.Tensor:
        """The ``count`` dead latents whose turn it is, as a mask (F,); all ranks' latents take turns together."""
        dead = dead_F.nonzero().squeeze(1)
        total, before = len(dead), 0  # dead latents on all ranks; those of the last level on the ranks before this one
        if self.mesh.latents.count > 1:
            shared = int((dead < self.shared).sum())
            split = [int(number) for number in self.mesh.latents.parts(dead.new_tensor([len(dead) - shared]))]
            total, before = shared + sum(split), sum(split[: self.mesh.latents.rank])
        if total <= count:
            return dead_F
        turn = (torch.arange(count, device=dead.device) + self.step_number * count) % total
        if self.mesh.latents.count > 1:
            own = turn - torch.where(turn < shared, 0, before)
            turn = own[((turn < shared) | (own >= shared)) & (own < len(dead))]
        return torch.zeros_like(dead_F).index_fill_(0, dead[turn], True)

    def _revival_loss(self, x_BD: torch.Tensor, codes: list[SparseCode], dead_F: torch.Tensor) -> torch.Tensor:
        """The share of the reconstruction's error that the dead latents leave unexplained.

        Source: the auxiliary loss of Gao et al. (2024), k_aux = D / 2. Each level gets the input of its encoder, and
        only some of the dead latents take part in a step.
        """
        model = self.model
        most_active = max(1, model.width // 2)
        with torch.no_grad():
            error_BD = x_BD - model.reconstruct(codes)
            inputs = model.revival_inputs(x_BD, codes)
        dead_F = self._next_dead(dead_F, _DEAD_PER_ACTIVE * most_active)
        pre, decoder = [], []
        for part, input_BD in zip(model.level_slices(), inputs, strict=True):
            dead = dead_F[part].nonzero().squeeze(1) + part.start
            if len(dead):
                encoder_DF = rows_of(model.W_enc_FD, dead, model.encoder_gradients).T
                pre.append(torch.relu(input_BD @ encoder_DF + model.b_enc_F[dead]))
                decoder.append(rows_of(model.W_dec_FD, dead, model.decoder_gradients))
        if not pre:  # only other ranks have dead latents
            pre, decoder = [x_BD.new_zeros(len(x_BD), 0)], [x_BD.new_zeros(0, model.width)]
        pre_BF, decoder_FD = torch.cat(pre, 1), torch.cat(decoder)
        k = min(pre_BF.shape[1], most_active)
        shared = int(dead_F[: self.shared].sum())
        if self.mesh.latents.count > 1:
            own_Bn = pre_BF if self.mesh.latents.rank == 0 else pre_BF[:, shared:]  # all ranks have the first
            pre_BF = pre_BF * (pre_BF >= nth_largest_of_rows(own_Bn, most_active, self.mesh.latents))
        elif k < pre_BF.shape[1]:
            values, places = pre_BF.topk(k, dim=1, sorted=False)
            pre_BF = torch.zeros_like(pre_BF).scatter(1, places, values)
        explained_BD = self.mesh.latents.summed(pre_BF[:, shared:] @ decoder_FD[shared:])
        if shared:
            explained_BD = explained_BD + pre_BF[:, :shared] @ decoder_FD[:shared]
        unexplained = (error_BD - explained_BD).square().sum()
        return unexplained / self.mesh.rows.mean(error_BD.square().sum()).clamp_min(1e-12)


def _without_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
