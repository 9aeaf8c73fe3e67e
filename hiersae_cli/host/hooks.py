"""The outputs of modules in forward hooks: a tensor, or several values with the tensor first.

Legend of shapes: B sequences, T tokens of each, d width of a module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def first_of(output: Any) -> Any:
    """The first of several values, else the output itself: the tensor, for a module that returns one."""
    return output[0] if isinstance(output, (tuple, list)) and output else output


def with_first(output: Any, tensor: torch.Tensor) -> Any:
    """The same output with another tensor in its place."""
    return type(output)([tensor, *output[1:]]) if isinstance(output, (tuple, list)) else tensor


def misfit(output: Any, tokens_shape: torch.Size) -> str:
    """Why a module's output is not one vector (B, T, d) per token of shape (B, T); empty if it is."""
    tensor = first_of(output)
    if not isinstance(tensor, torch.Tensor):
        return f"its output is not one vector per token but of type {type(tensor).__name__}"
    if tensor.ndim != 3 or tensor.shape[:2] != tokens_shape:
        sequences, tokens = tokens_shape
        return (
            f"its output is not one vector per token: its shape is {tuple(tensor.shape)} "
            f"for a batch of {sequences} x {tokens} tokens"
        )
    return "" if tensor.is_floating_point() else f"its output has whole numbers ({str(tensor.dtype).split('.')[1]})"


def all_outputs(model: nn.Module, tokens_BT: torch.Tensor) -> dict[str, Any]:
    """The first output of every module that a forward pass calls, by the module's path."""
    outputs: dict[str, Any] = {}

    def keep_first(path: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs.setdefault(path, output)

        return keep

    handles = [module.register_forward_hook(keep_first(path)) for path, module in model.named_modules() if path]
    try:
        model(tokens_BT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
