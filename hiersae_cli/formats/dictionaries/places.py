"""What different tools call one place in a model: ``transformer.h.2``, ``blocks.2.hook_resid_post``, ``layers.2``."""

from __future__ import annotations

import re
from typing import Any

# The output of a block, as the residual stream after it is called by libraries of models, TransformerLens and
# dictionary_learning.
_BLOCK = re.compile(r"(?:^|\.)(?:h|layers|blocks)\.(\d+)(?:\.hook_resid_post)?$|^resid_post_layer_(\d+)$")
_BEFORE = re.compile(r"^blocks\.([1-9]\d*)\.hook_resid_pre$")


def block_number(name: str) -> int | None:
    """The block, counted from 0, whose output a name means; None for names of anything else."""
    if before := _BEFORE.search(name):
        return int(before[1]) - 1
    block = _BLOCK.search(name)
    return int(block[1] or block[2]) if block else None


def same_place(one: str, other: str) -> bool | None:
    """Whether two names mean the same module's output; None where the names do not tell."""
    if one == other or one.endswith(f".{other}") or other.endswith(f".{one}"):
        return True
    numbers = block_number(one), block_number(other)
    return None if None in numbers else numbers[0] == numbers[1]


def hook_name(module: str, host: dict[str, Any]) -> tuple[str, str]:
    """The class that SAELens is to load the host with, and what it calls the module then.

    Of a model of the Hugging Face hub, known by a commit, TransformerLens has the blocks; it knows no folders.
    """
    block = block_number(module)
    if block is not None and len(str(host.get("fingerprint"))) == 40:
        return "HookedTransformer", f"blocks.{block}.hook_resid_post"
    return "AutoModelForCausalLM", module
