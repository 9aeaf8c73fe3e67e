"""What every sparse autoencoder of this project is: tensors in, tensors out, no files.

Legend of shapes: B rows of a batch, D width of the activations, F latents, L levels.

Every architecture here is positively homogeneous: ReLU pre-activations, and a selection that compares
pre-activations with each other. So scaling the input by s scales codes and biases by s and nothing
else, and a scale used in training folds into the saved biases and thresholds exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class Step:
    """What one training step gives.

    Attributes:
        loss: scalar to minimise.
        code_BF: the code, active latents positive.
        error: scalar, summed squared reconstruction error.
        figures: more for the log: tensors are sums over the rows, anything else describes the moment.
    """

    loss: torch.Tensor
    code_BF: torch.Tensor
    error: torch.Tensor
    figures: dict[str, Any]


class SparseAutoencoder(nn.Module):
    """Base of the architectures: parameters, decoding, scale, refinement, and selection by batch.

    Args:
        width: D.
        widths: latents of each level; one level for a flat dictionary.
        k: wanted mean of active latents of each level (L0).
        refine: whether a second look at what the first code leaves corrects it (``_refined``).
    """

    threshold_L: torch.Tensor
    threshold_first_L: torch.Tensor
    threshold_rate = 0.05  # of the running mean of batches' thresholds

    def __init__(self, width: int, widths: tuple[int, ...], k: tuple[float, ...], refine: bool = False):
        super().__init__()
        self.width, self.widths, self.k, self.refine = width, widths, k, refine
        self.latents = sum(widths)
        self.W_enc_FD = nn.Parameter(torch.zeros(self.latents, width))
        self.b_enc_F = nn.Parameter(torch.zeros(self.latents))
        self.W_dec_FD = nn.Parameter(torch.zeros(self.latents, width))
        self.b_dec_D = nn.Parameter(torch.zeros(width))
        self.register_buffer("threshold_L", torch.zeros(len(widths)))
        if refine:
            self.refine_F = nn.Parameter(torch.ones(self.latents))
            self.b_refine_F = nn.Parameter(torch.zeros(self.latents))
            self.register_buffer("threshold_first_L", torch.zeros(len(widths)))

    def initialise(self, mean_D: torch.Tensor, seed: int) -> None:
        """Random unit decoder rows, encoder rows equal to them, and the data's mean as the decoder's bias."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(self.latents, self.width, generator=generator)
        with torch.no_grad():
            self.W_dec_FD.copy_(rows / rows.norm(dim=1, keepdim=True))
            self.W_enc_FD.copy_(self.W_dec_FD)
            self.b_dec_D.copy_(mean_D)

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The code (B, F) of activations (B, D), each row by itself: at inference no row sees its batch."""
        raise NotImplementedError

    def decode(self, code_BF: torch.Tensor) -> torch.Tensor:
        """The reconstruction (B, D) of a code (B, F)."""
        return code_BF @ self.W_dec_FD + self.b_dec_D

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        """The reconstruction (B, D): ``decode(encode(x))``."""
        return self.decode(self.encode(x_BD))

    def step(self, x_BD: torch.Tensor, progress: float) -> Step:
        """Loss and code of a training batch at ``progress`` in [0, 1) of training."""
        raise NotImplementedError

    def after_step(self, step_number: int, progress: float) -> torch.Tensor | None:
        """Whatever has to happen without gradients after an optimizer step; decoder rows stay unit vectors.

        Returns the order (F,) in which the latents have been laid out anew, if they have: see ``permute``.
        """
        with torch.no_grad():
            self.W_dec_FD.div_(self.W_dec_FD.norm(dim=1, keepdim=True).clamp_min(1e-12))
        return None

    def finish(self) -> None:
        """Whatever has to happen after the last step, before the thresholds are set for good."""

    def before_step(self) -> None:
        """Take out of the decoder's gradient what would only change its rows' length."""
        gradient = self.W_dec_FD.grad
        if gradient is not None:
            gradient -= (gradient * self.W_dec_FD.data).sum(1, keepdim=True) * self.W_dec_FD.data

    def level_slices(self) -> list[slice]:
        """Which latents belong to each level."""
        ends = [sum(self.widths[: level + 1]) for level in range(len(self.widths))]
        return [slice(end - width, end) for end, width in zip(ends, self.widths, strict=True)]

    def revival_inputs(self, x_BD: torch.Tensor, code_BF: torch.Tensor) -> list[torch.Tensor]:
        """What each level's encoder reads, (B, D) each, for the loss that revives dead latents."""
        return [x_BD - self.b_dec_D]

    def fold_scale(self, scale: float) -> None:
        """Make a model of activations x * ``scale`` one of x: codes and reconstructions in the units of x."""
        with torch.no_grad():
            for bias in (self.b_enc_F, self.b_dec_D, *([self.b_refine_F] if self.refine else [])):
                bias.div_(scale)
            for threshold_L in (self.threshold_L, *([self.threshold_first_L] if self.refine else [])):
                threshold_L.div_(scale**2)

    def permute(self, order_F: torch.Tensor) -> None:
        """Lay the latents out anew: the one at place f comes from place ``order_F[f]``."""
        with torch.no_grad():
            for tensor in self.per_latent():
                tensor.copy_(tensor[order_F])

    def per_latent(self) -> list[torch.Tensor]:
        """Every parameter whose first dimension is F."""
        refine = [self.refine_F, self.b_refine_F] if self.refine else []
        return [self.W_enc_FD, self.b_enc_F, self.W_dec_FD, *refine]

    def _pre_activation(self, input_BD: torch.Tensor, part: slice) -> torch.Tensor:
        # Whatever type the product is taken in: selection and thresholds need float32 to tell values apart.
        return torch.relu(nn.functional.linear(input_BD, self.W_enc_FD[part], self.b_enc_F[part]).to(input_BD.dtype))

    def _refined(self, code_BF: torch.Tensor, left_BD: torch.Tensor) -> torch.Tensor:
        """Pre-activations (B, F) once more, from a first code and what it leaves unexplained (B, D).

        One step of ISTA with a learned step size for each latent: what other latents have explained no longer
        disturbs. Source: Gregor, LeCun (2010), Learning Fast Approximations of Sparse Coding.
        """
        first = slice(code_BF.shape[1])  # the curriculum may give only the first levels a code
        step_BF = nn.functional.linear(left_BD, self.W_enc_FD[first]).to(code_BF.dtype)
        return torch.relu(code_BF + self.refine_F[first] * step_BF + self.b_refine_F[first])

    def _select_batch(self, score_BF: torch.Tensor, threshold: torch.Tensor, k: float) -> torch.Tensor:
        """Mask (B, F) of the best scores such that ``k`` a row are kept on average (BatchTopK).

        ``threshold``, a scalar, follows in place as a running mean of the least score kept, for inference.
        Source: Bussmann, Leask, Nanda (2024), BatchTopK Sparse Autoencoders.
        """
        least = self._least_kept(score_BF, threshold, k)
        if self.training:
            threshold.lerp_(least, 1.0 if threshold == 0 else self.threshold_rate)
        return (score_BF >= least) & (score_BF > 0)

    def _least_kept(self, score_BF: torch.Tensor, near: torch.Tensor | float, k: float) -> torch.Tensor:
        """The least of the best scores such that ``k`` a row are kept on average; it lies about ``near``, or above."""
        count = max(1, min(round(k * len(score_BF)), score_BF.numel()))
        scores = score_BF.detach().flatten()
        # Only scores near the last threshold can matter: sorting these alone is exact and 10 x faster.
        candidates = scores[scores > near / 4]
        return (candidates if len(candidates) >= count else scores).topk(count, sorted=False).values.min()
