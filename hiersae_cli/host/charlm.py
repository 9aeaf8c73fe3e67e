"""A character-level GPT: its tokenizer, its model, and the steps of its training, on tensors.

Legend of shapes: N characters of a text, B sequences of a batch, T characters of context, V tokens of the vocabulary,
W windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

# The token of every unknown character: Unicode's sign for a character that cannot be shown.
UNKNOWN = "\ufffd"
BETAS = (0.9, 0.99)  # of AdamW, as in nanoGPT for small character models
FINAL_LR = 0.1  # at the end of the schedule, as a share of the peak learning rate
_SLICE = 1 << 16  # characters encoded at once: the tokenizer needs a few hundred bytes of memory for each


def character_tokenizer(text: str, context: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the characters of ``text``, numbered by code point.

    Every character, line ends included, becomes exactly one token, nothing is added, and decoding only joins the
    tokens: ``decode(encode(x)) == x`` for every ``x`` over the alphabet. A character that is not in ``text`` becomes
    ``unk_token`` (U+FFFD, always in the vocabulary), so positions stay the same and ``unk_token_id`` shows the gap.
    ``context`` is recorded as the longest input of the model.
    """
    vocabulary = {character: index for index, character in enumerate(sorted({*text, UNKNOWN}))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> Tensor:
    """The tokens (N,) int64 of ``text``, one per character."""
    backend = tokenizer.backend_tokenizer
    ids_N = np.empty(len(text), dtype=np.int64)
    for start in range(0, len(text), _SLICE):
        encoding = backend.encode(text[start : start + _SLICE], add_special_tokens=False)
        ids_N[start : start + _SLICE] = encoding.ids
    return torch.from_numpy(ids_N)


def character_gpt(
    vocabulary: int, *, layers: int, width: int, heads: int, context: int, dropout: float, seed: int, bias: bool = True
) -> GPT2LMHeadModel:
    """A new GPT-2 of these sizes with tied input and output embeddings, initialised from ``seed``.

    Without ``bias``, the biases stay 0: Hugging Face's architecture always has them.
    """
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        # The same function as GPT-2's "gelu_new", in one kernel instead of eight.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # GPT-2 initialises them to 0
            parameter.requires_grad_(bias)
    return model


def adamw(model: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay only on matrices: shrinking a bias or a norm's scale does not regularise."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """The rate at ``step`` (from 0): linear up to ``peak`` over ``warmup`` steps, then a cosine down to a tenth."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (FINAL_LR + (1 - FINAL_LR) * (1 + math.cos(math.pi * progress)) / 2)


def random_windows(tokens_N: Tensor, batch: int, context: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) at random places: a pure function of ``seed`` and ``step``, so resuming is exact."""
    starts = np.random.default_rng((seed, step)).integers(len(tokens_N) - context, size=(batch, 1))
    windows = tokens_N[torch.from_numpy(starts) + torch.arange(context + 1)]
    return windows[:, :-1], windows[:, 1:]


def dropout_seed(seed: int, step: int) -> int:
    """The seed of a step's dropout: depends only on ``seed`` and ``step``, and differs from that of its windows."""
    return int(np.random.default_rng((seed, step, 1)).integers(2**32))


def training_step(
    model: GPT2LMHeadModel,
    optimizer: torch.optim.Optimizer,
    inputs_BT: Tensor,
    targets_BT: Tensor,
    *,
    lr: float,
    clip: float,
    dropout_seed: int,
    dtype: torch.dtype,
    forward: Callable[..., Any] | None = None,
) -> Tensor:
    """One step of ``optimizer`` at rate ``lr``; returns the loss before it, in nats per character.

    Args:
        clip: largest norm of the gradient; 0 for no limit.
        dropout_seed: decides the dropped units: if the model has dropout, it seeds torch's global generator.
        dtype: of the products.
        forward: the compiled model, if there is one.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    if model.config.resid_pdrop > 0:
        torch.manual_seed(dropout_seed)
    model.train()
    optimizer.zero_grad(set_to_none=True)
    loss = _loss(forward or model, inputs_BT, targets_BT, dtype, "mean")
    loss.backward()
    if clip > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def mean_loss(
    model: GPT2LMHeadModel, tokens_N: Tensor, *, context: int, batch: int, dtype: torch.dtype, limit: int = 0
) -> float:
    """The mean loss in nats per character over all of ``tokens_N`` except the first, each predicted once.

    ``batch`` windows are computed at a time. They do not overlap, so a character sees at most ``context`` characters
    before it, and half of that on average; a sliding window would give a lower figure at ``context`` times the cost.
    With a ``limit``, about that many characters are used, as whole windows spread evenly over the text, because parts
    of a text differ more than neighbouring windows.
    """
    model.eval()
    device = model.device
    whole = (len(tokens_N) - 1) // context * context
    shape = (whole // context, context)
    inputs_WT, targets_WT = tokens_N[:whole].view(shape), tokens_N[1 : whole + 1].view(shape)
    last_window = [(tokens_N[None, whole:-1], tokens_N[None, whole + 1 :])] if whole < len(tokens_N) - 1 else []
    if limit and limit < whole:
        places = torch.linspace(0, len(inputs_WT) - 1, max(1, limit // context)).long()
        inputs_WT, targets_WT, last_window = inputs_WT[places], targets_WT[places], []
    batches = [*zip(inputs_WT.split(batch), targets_WT.split(batch), strict=True), *last_window]
    total = count = 0.0
    for inputs, targets in batches:
        if inputs.numel():
            total += _loss(model, inputs.to(device), targets.to(device), dtype, "sum").item()
            count += inputs.numel()
    return total / count


def _loss(
    model: Callable[..., Any], inputs_BT: Tensor, targets_BT: Tensor, dtype: torch.dtype, reduction: str
) -> Tensor:
    with torch.autocast(inputs_BT.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits_BTV: Any = model(inputs_BT).logits
    return functional.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten(), reduction=reduction)
