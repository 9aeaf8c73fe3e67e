"""Drawing text with a key-value cache: the same logits as without one, and what happens when the context is full."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hiersae_cli.host.generation import CachedLogits, generate
from hiersae_cli.host.model import Host
from tests.fixtures_chain import CONTEXT


@pytest.fixture(scope="module")
def host(tiny_host: Path) -> Host:
    return Host.load(str(tiny_host), torch.device("cpu"))


def plain(host: Host, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return host.model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()


def test_cached_logits_are_those_of_the_plain_forward(host: Host) -> None:
    tokens = torch.randint(host.model.config.vocab_size, (3 * CONTEXT,), generator=torch.Generator().manual_seed(0))
    cached = CachedLogits(host.model, CONTEXT)
    taken = 0
    lengths = []
    for size in (5, *[1] * (len(tokens) - 5)):
        new = tokens[taken : taken + size].tolist()
        logits = cached.after(new)
        taken += size
        # It sees the end of the text and nothing else, and of that at least half a context.
        assert cached.seen == tokens[taken - len(cached.seen) : taken].tolist()
        assert min(taken, CONTEXT // 2) <= len(cached.seen) <= CONTEXT
        torch.testing.assert_close(logits, plain(host, cached.seen), rtol=1e-4, atol=1e-5)
        lengths.append(len(cached.seen))
    assert max(lengths) == CONTEXT and lengths.count(CONTEXT // 2) >= 3


def test_a_prompt_longer_than_the_context_is_cut(host: Host) -> None:
    cached = CachedLogits(host.model, CONTEXT)
    cached.after([1] * (2 * CONTEXT))
    assert len(cached.seen) == CONTEXT // 2


def test_one_token_of_choice_is_greedy_and_a_seed_draws_the_same(host: Host) -> None:
    def drawn(top_k: int, seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return generate(
            host.model, [3], CONTEXT + 9, context=CONTEXT, temperature=0.8, top_k=top_k, generator=generator
        )

    assert len(drawn(200, 0)) == CONTEXT + 9
    assert drawn(200, 0) == drawn(200, 0) != drawn(200, 1)
    assert drawn(1, 0) == drawn(1, 1)
    assert drawn(1, 0)[0] == int(plain(host, [3]).argmax())
