"""What a module gives to its forward hooks: a tensor, or several values of which the first is the tensor."""

from __future__ import annotations

from typing import Any

import torch


def first_of(output: Any) -> Any:
    """The tensor of a module's output; of what is no module of tensors whatever it gives."""
    return output[0] if isinstance(output, (tuple, list)) and output else output


def with_first(output: Any, tensor: torch.Tensor) -> Any:
    """The same output with another tensor in its place."""
    return type(output)([tensor, *output[1:]]) if isinstance(output, (tuple, list)) else tensor
