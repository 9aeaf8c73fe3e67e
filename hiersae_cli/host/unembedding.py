"""What a direction of the residual stream adds to the logits by itself: the logit lens, through the host's layers.

Between the last block and the logits a host has a norm (with or without centring, with a gain of w or 1 + w), perhaps a
projection, the unembedding, and perhaps a scale or a soft cap. Their names differ between hosts, so the layers are
run on probes and their effect is measured.

Legend of shapes: F directions, D width of the residual stream, E width that the unembedding reads, P probes, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_pre_hook

from hiersae_cli.host.hooks import first_of, with_first

_ROOT_MEAN_SQUARE = 1024.0  # of probes: large compared with a norm's epsilon
_PROBES = 1024  # run through the last layers at once
_SMALL_LOGIT = 2.0**-6  # small enough that a soft cap is still linear
_TOLERANCE = 1e-2


class UnknownLayersError(Exception):
    """The layers after the last block are neither linear nor a norm followed by linear layers."""


class _Reached(Exception):
    """Raised by a hook when the probes have arrived, so that nothing after it is computed."""


@dataclass(frozen=True)
class Unembedding:
    """The linear part of the layers after the last block: without their biases and the norm's division.

    Attributes:
        final_ED: from the residual stream to the input of the unembedding: the norm's centring and gain, and the
            projection.
        head: the module of the output embeddings.
        scale: factor between its output and the logits; a soft cap is linear at 0 and changes nothing.

    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); without the division as in TransformerLens,
    whose ``fold_ln`` leaves the same linear part.
    """

    final_ED: Tensor
    head: nn.Module
    scale: float

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Any, last_block: nn.Module) -> Unembedding:
        """Measure the layers of ``model`` after ``last_block``; raises ``UnknownLayersError``."""
        head = model.get_output_embeddings()
        if head is None:
            raise UnknownLayersError("it has no output embeddings")
        try:
            final_ED = _linear_part(_LastLayers(model, last_block, head))
            return cls(final_ED, head, _scale_of_logits(model, head))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UnknownLayersError(str(error).splitlines()[0]) from error

    @torch.inference_mode()
    def logits(self, directions_FD: Tensor) -> Tensor:
        """What each direction adds to the logits, (F, V) float32."""
        read_FE = directions_FD.to(self.final_ED) @ self.final_ED.T
        weights = _in_float32(self.head)
        constant_V = functional_call(self.head, weights, (torch.zeros_like(read_FE[:1]),))
        logits_FV: Tensor = functional_call(self.head, weights, (read_FE,))
        if constant_V.any():
            logits_FV -= constant_V
        return logits_FV if self.scale == 1 else logits_FV * self.scale


class _LastLayers:
    """The layers between the last block and the unembedding, as a function of vectors (P, D), in float32."""

    def __init__(self, model: Any, last_block: nn.Module, head: nn.Module):
        self._model, self._last_block, self._head = model, last_block, head
        self.width = 0
        self._weights: dict[str, Tensor] = {}
        self._weights = self._find_weights()

    def __call__(self, x_PD: Tensor) -> Tensor:
        """The input of the unembedding, (P, E), when the residual stream is ``x_PD``."""

        def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
            return with_first(output, x_PD[:, None].to(self._model.device))

        try:
            return self._run(replace)[:, 0]  # with a single token as input, which is cheapest and works for most hosts
        except RuntimeError:
            return self._run(replace, len(x_PD))[:, 0]

    def _find_weights(self) -> dict[str, Tensor]:
        """The weights of these layers in float32, by name; also sets ``width``, that of the residual stream."""
        names = {module: name for name, module in self._model.named_modules()}
        weights: dict[str, Tensor] = {}

        def note_width(module: nn.Module, inputs: Any, output: Any) -> None:
            self.width = first_of(output).shape[-1]

        def note_weights(module: nn.Module, inputs: Any) -> None:
            if self.width and module is not self._head and module in names:
                weights.update({f"{names[module]}.{name}": weight for name, weight in _in_float32(module).items()})

        handle = register_module_forward_pre_hook(note_weights)
        try:
            self._run(note_width)
        finally:
            handle.remove()
        return weights

    def _run(self, after_last_block: Callable[..., Any], sequences: int = 1) -> Tensor:
        read: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any) -> None:
            read.append(inputs[0].float())
            raise _Reached

        handles = [
            self._last_block.register_forward_hook(after_last_block),
            self._head.register_forward_pre_hook(keep),
        ]
        try:
            functional_call(self._model, self._weights, (_one_token(self._model, sequences),), {"use_cache": False})
        except _Reached:
            return read[0]
        finally:
            for handle in handles:
                handle.remove()
        raise UnknownLayersError("its output embeddings are not used in its forward pass")


def _linear_part(layers: _LastLayers) -> Tensor:
    """The matrix (E, D) of the layers without their bias and without a norm's division.

    A norm divides by the size of its input: the standard deviation if it subtracts the mean, else the root mean square.
    That size is the same for the direction of every coordinate, so these directions give the matrix column by column.
    """
    width = layers.width
    probe_D = torch.randn(width, generator=torch.Generator().manual_seed(0)) * _ROOT_MEAN_SQUARE
    probe_PD = torch.stack([probe_D, -probe_D, 2 * probe_D, torch.full_like(probe_D, _ROOT_MEAN_SQUARE)])
    plus_E, minus_E, double_E, even_E = layers(probe_PD)
    bias_E = (plus_E + minus_E) / 2
    linear_E, linear_double_E, linear_even_E = plus_E - bias_E, double_E - bias_E, even_E - bias_E
    growth = float(linear_double_E.norm() / linear_E.norm())
    divides = growth < 1.5
    centres = divides and bool(linear_even_E.norm() < _TOLERANCE * linear_E.norm())

    def size(x_D: Tensor) -> float:
        if not divides:
            return 1.0
        return float((x_D - x_D.mean() if centres else x_D).square().mean().sqrt())

    step = _ROOT_MEAN_SQUARE * width**0.5
    columns = []
    for start in range(0, width, _PROBES):
        places = torch.arange(start, min(start + _PROBES, width))
        columns.append(layers(step * nn.functional.one_hot(places, width).float()) - bias_E)
    final_ED = torch.cat(columns).T / step * size(step * torch.eye(1, width)[0])
    expected_E = final_ED @ probe_D.to(final_ED) / size(probe_D)
    if not (expected_E - linear_E).norm() < _TOLERANCE * linear_E.norm():
        raise UnknownLayersError("the layers after its last block are not a norm with linear layers")
    return final_ED.contiguous()


def _scale_of_logits(model: Any, head: nn.Module) -> float:
    """The factor by which the model multiplies the output of the unembedding."""
    sides = []
    for value in (_SMALL_LOGIT, -_SMALL_LOGIT):

        def replace(module: nn.Module, inputs: Any, output: Tensor, value: float = value) -> Tensor:
            return torch.full_like(output, value, dtype=torch.float32)

        handle = head.register_forward_hook(replace)
        try:
            sides.append(model(_one_token(model), use_cache=False).logits.float())
        finally:
            handle.remove()
    return float((sides[0] - sides[1]).nanmedian() / (2 * _SMALL_LOGIT))


def _in_float32(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a module and the modules below it, with floating-point numbers in float32."""
    return {name: w.float() if w.is_floating_point() else w for name, w in module.named_parameters()}


def _one_token(model: Any, sequences: int = 1) -> Tensor:
    return torch.zeros(sequences, 1, dtype=torch.long, device=model.device)
