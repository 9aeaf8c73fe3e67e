"""Names of a place in a model, by tool: ``transformer.h.2``, ``blocks.2.hook_resid_post``, ``layers.2``."""

from __future__ import annotations

import re
from typing import Any

# The output of a block, which is the residual stream after it, as libraries of models, TransformerLens and
# dictionary_learning call it.
_BLOCK = re.compile(r"(?:^|\.)(?:h|layers|blocks)\.(\d+)(?:\.hook_resid_post)?$|^resid_post_layer_(\d+)$")
_BEFORE = re.compile(r"^blocks\.([1-9]\d*)\.hook_resid_pre$")


def block_number(name: str) -> int | None:
    """The block, counted from 0, whose output a name means; None for other names."""
    if before := _BEFORE.search(name):
        return int(before[1]) - 1
    block = _BLOCK.search(name)
    return int(block[1] or block[2]) if block else None


def same_place(first: str, other: str) -> bool | None:
    """Whether two names mean the same module's output; None if the names do not say."""
    if first == other or first.endswith(f".{other}") or other.endswith(f".{first}"):
        return True
    numbers = block_number(first), block_number(other)
    return None if None in numbers else numbers[0] == numbers[1]


def hook_name(module: str, host: dict[str, Any]) -> tuple[str, str]:
    """The class with which SAELens loads the host, and its name for the module.

    For a model of the Hugging Face hub, which has a commit, TransformerLens names the blocks; it cannot load folders.
    """
    block = block_number(module)
    if block is not None and len(str(host.get("fingerprint"))) == 40:
        return "HookedTransformer", f"blocks.{block}.hook_resid_post"
    return "AutoModelForCausalLM", module
