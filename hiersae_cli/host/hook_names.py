"""Hook names of TransformerLens and nnsight as modules of a host, such as ``blocks.6.hook_resid_post``.

A host is a Hugging Face model, so a name means the module whose output has the same values. TransformerLens changes the
weights when it loads a model, unless it is loaded with ``from_pretrained_no_processing``; then its residual stream
differs from the host's by the mean of each row.
"""

from __future__ import annotations

import re

from torch import nn

from hiersae_cli.errors import UsageError
from hiersae_cli.host.model import Host

_BLOCK_HOOK = re.compile(r"(?:blocks|layers|h)\.(\d+)\.(?P<hook>(?:\w+\.)?hook_\w+)")
_NNSIGHT = re.compile(r"(?P<path>.+)\.(?P<end>output|input)(?:\.0)?")
_AFTER, _BEFORE = ("hook_resid_post", "hook_out"), ("hook_resid_pre", "hook_in")
# The parts of a block by their hooks, and what libraries of models call them. If a block has a norm after a part, the
# hook comes after the norm.
_PARTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("hook_attn_out", "attn.hook_out"), ("attn", "self_attn", "attention", "self_attention")),
    **dict.fromkeys(("hook_mlp_out", "mlp.hook_out"), ("mlp", "feed_forward", "ffn")),
}
_NORM_AFTER = {"hook_attn_out": "post_attention_layernorm", "hook_mlp_out": "post_feedforward_layernorm"}
_NORM_BEFORE_MLP = "pre_feedforward_layernorm"  # a block that has it has norms after its parts too
_UNDERSTOOD = (
    "Understood: blocks.N.hook_resid_post, blocks.N.hook_resid_pre (N from 1), blocks.N.hook_attn_out, "
    "blocks.N.hook_mlp_out, and PATH.output of nnsight."
)


def module_path(host: Host, name: str) -> str:
    """The path of the module that a name means: a path, or a hook name of TransformerLens or nnsight.

    Raises ``UsageError`` for a hook that is no module's output; any other name is returned unchanged.
    """
    modules = dict(host.model.named_modules())
    path = re.sub(r"\[(-?\d+)\]", r".\1", name)
    if name in modules or path in modules:
        return name if name in modules else path
    if match := _NNSIGHT.fullmatch(path):
        module = _without_variable(match["path"], modules)
        return module if match["end"] == "output" else _input_of(host, name, module)
    if match := _BLOCK_HOOK.fullmatch(path):
        return _of_block(host, name, int(match[1]), match["hook"])
    return name


def _of_block(host: Host, name: str, block: int, hook: str) -> str:
    path = host.layer_path(block)
    if hook in _AFTER:
        return path
    if hook in _BEFORE:
        if block == 0:
            raise UsageError(f"--module {name}: the sum of the embeddings is no module's output", _UNDERSTOOD)
        return host.layer_path(block - 1)
    parts = dict(host.module(path).named_children())
    norm = _NORM_AFTER.get(hook, "")
    if _NORM_BEFORE_MLP in parts and norm in parts:
        return f"{path}.{norm}"
    part = next((part for part in _PARTS.get(hook, ()) if part in parts), None)
    if part is None:
        raise UsageError(f"--module {name}: no module of {host.name} has this output", _UNDERSTOOD)
    return f"{path}.{part}"


def _input_of(host: Host, name: str, path: str) -> str:
    """The module whose output is the input of a block: the block before it."""
    blocks, _ = host.blocks()
    parent, _, number = path.rpartition(".")
    if parent != blocks or not number.isdigit() or number == "0":
        raise UsageError(f"--module {name}: only the input of a block from 1 on is a module's output", _UNDERSTOOD)
    return host.layer_path(int(number) - 1)


def _without_variable(path: str, modules: dict[str, nn.Module]) -> str:
    """A path without the variable of nnsight's model in front: ``model.transformer.h.6`` for ``transformer.h.6``."""
    inner = path.partition(".")[2]
    return inner if path not in modules and inner in modules else path
