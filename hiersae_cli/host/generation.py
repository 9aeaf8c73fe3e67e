"""Drawing text from a host model with a key-value cache: a new token costs one position, not the whole context.

Legend of shapes: T tokens of a context, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class CachedLogits:
    """The logits of the next token after a growing sequence, (V,) float32, with a key-value cache.

    The model sees only the last tokens, at most ``context``. Its positions are absolute, so keys and values cannot
    move with a sliding window: when the context is full, the cache is rebuilt from its last half and grows again. So
    after the first ``context / 2`` tokens, every token depends on at least ``context / 2`` tokens before it.

    Attributes:
        seen: the tokens that the last logits depend on.
    """

    def __init__(self, model: Any, context: int):
        self._model, self._context = model, context
        self._cache: Any = None
        self.seen: list[int] = []

    @torch.inference_mode()
    def after(self, tokens: Sequence[int]) -> Tensor:
        """Append ``tokens``, one or more, and return the logits after them."""
        fresh = list(tokens)
        if len(self.seen) + len(fresh) > self._context:
            fresh = [*self.seen, *fresh][-max(1, self._context // 2) :]
            self.seen, self._cache = [], None
        ids = torch.tensor([fresh], device=self._model.device)
        output = self._model(ids, past_key_values=self._cache, use_cache=True)
        self.seen, self._cache = self.seen + fresh, output.past_key_values
        logits: Tensor = output.logits[0, -1].float()
        return logits


@torch.inference_mode()
def generate(
    model: Any,
    prompt: Sequence[int],
    tokens: int,
    *,
    context: int,
    temperature: float,
    top_k: int,
    generator: torch.Generator,
) -> list[int]:
    """``tokens`` new tokens after ``prompt``, each drawn from the ``top_k`` likeliest at ``temperature``."""
    logits_of = CachedLogits(model, context)
    drawn: list[int] = []
    last_tokens: Sequence[int] = prompt
    for _ in range(tokens):
        likeliest = torch.topk(logits_of.after(last_tokens) / temperature, min(top_k, model.config.vocab_size))
        place = torch.multinomial(likeliest.values.softmax(-1), 1, generator=generator)
        last_tokens = [int(likeliest.indices[place])]
        drawn += last_tokens
    return drawn
