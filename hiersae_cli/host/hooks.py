"""The output of a module in a forward hook: a tensor, or several values with the tensor first."""

from __future__ import annotations

from typing import Any

import torch


def first_of(output: Any) -> Any:
    """The first of several values, else the output itself: the tensor, for a module that returns one."""
    return output[0] if isinstance(output, (tuple, list)) and output else output


def with_first(output: Any, tensor: torch.Tensor) -> Any:
    """The same output with another tensor in its place."""
    return type(output)([tensor, *output[1:]]) if isinstance(output, (tuple, list)) else tensor
