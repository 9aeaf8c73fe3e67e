"""Ask a causal language model on this machine: a Hugging Face folder or id, or a GGUF file.

Legend of shapes: V tokens of the vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hiersae_cli.console import Console
from hiersae_cli.device import has_fast_bfloat16, resolve_device
from hiersae_cli.errors import HierSAEError, UsageError
from hiersae_cli.host.generation import CachedLogits
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.common.chat import Chat, ChatEndpoint, Cost, key_of

_MOST_TOKENS = 40  # of an answer


class LocalChat(Chat):
    """A local model that answers without chance: the likeliest token each time.

    A model with a chat template gets it. Any other model continues the text after ``Answer:``.

    Args:
        model: a folder, a GGUF file or a Hugging Face id.
        device: cpu, cuda, …, or auto.
        console: reports the conversion of a GGUF file.
    """

    def __init__(self, model: str, device: str = "auto", console: Console | None = None):
        place = resolve_device(device)
        self._host = Host.load(model, place, "bfloat16" if has_fast_bfloat16(place) else "float32", console=console)
        self.name, self.address, self.cost = _short(model), "", Cost()

    def ask(self, system: str, user: str) -> str:
        """The likeliest continuation, up to the end of a line that is not empty."""
        begin = time.monotonic()
        logits_of, prompt = self._logits(), self._prompt(system, user)
        logits_V, written, text = logits_of.after(prompt), list[int](), ""
        while len(written) < _MOST_TOKENS:
            token = int(logits_V.argmax())
            if token in self._ends():
                break
            written.append(token)
            text = self._host.tokenizer.decode(written)
            if text.strip() and text.endswith("\n"):
                break
            logits_V = logits_of.after([token])
        self._count(begin, prompt, len(written))
        return text.strip()

    def choose(self, system: str, user: str, options: Sequence[str]) -> tuple[str | None, str]:
        """The option that is the likeliest next word, by its first token.

        The probabilities of ``yes``, ``Yes``, `` yes`` and `` Yes`` are added. Options whose first tokens are the same
        cannot be distinguished: this raises ``UsageError``.
        """
        begin = time.monotonic()
        firsts = [self._first_tokens(option) for option in options]
        if len(set().union(*firsts)) < sum(map(len, firsts)):
            raise UsageError(f"--model {self.name}: its tokenizer begins {', '.join(options)} with the same token")
        prompt = self._prompt(system, user)
        logits_V = self._logits().after(prompt)
        weights = [float(logits_V[sorted(tokens)].logsumexp(0)) for tokens in firsts]
        self._count(begin, prompt, 1)
        chosen = options[weights.index(max(weights))]
        return chosen, chosen

    def _prompt(self, system: str, user: str) -> list[int]:
        tokenizer = self._host.tokenizer
        if tokenizer.chat_template:
            text = self._templated(system, user)
            tokens: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        else:
            tokens = tokenizer(f"{system}\n\n{user}\n\nAnswer:").input_ids
        if len(tokens) + _MOST_TOKENS > self._host.max_context:
            raise HierSAEError(
                f"{self.name}: a prompt of {len(tokens):,} tokens does not fit its context "
                f"of {self._host.max_context:,}",
                "Show fewer texts with --contexts, or take a model with a longer context.",
            )
        return tokens

    def _templated(self, system: str, user: str) -> str:
        from jinja2 import TemplateError

        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        joined = [{"role": "user", "content": f"{system}\n\n{user}"}]  # some templates refuse the first role
        for attempt in (messages, joined):
            try:
                return str(
                    self._host.tokenizer.apply_chat_template(attempt, tokenize=False, add_generation_prompt=True)
                )
            except TemplateError as error:
                reason = error
        raise HierSAEError(f"{self.name}: its chat template cannot be used ({reason})", "Take another model.")

    def _logits(self) -> CachedLogits:
        return CachedLogits(self._host.model, self._host.max_context)

    def _first_tokens(self, word: str) -> set[int]:
        variants = (word, word.capitalize(), f" {word}", f" {word.capitalize()}")
        encoded = (self._host.tokenizer(text, add_special_tokens=False).input_ids for text in variants)
        return {tokens[0] for tokens in encoded if self._host.tokenizer.decode(tokens[:1]).strip()}

    def _ends(self) -> set[int]:
        """The tokens that end an answer."""
        ends: Any = [self._host.tokenizer.eos_token_id]
        of_model = getattr(self._host.model.generation_config, "eos_token_id", None)
        return {*ends, *(of_model if isinstance(of_model, list) else [of_model])} - {None}

    def _count(self, begin: float, prompt: list[int], written: int) -> None:
        self.cost.calls += 1
        self.cost.tokens_read += len(prompt)
        self.cost.tokens_written += written
        self.cost.seconds += time.monotonic() - begin


def open_chat(
    endpoint: str, llm: str, key_env: str, timeout: float, model: str, device: str, console: Console | None = None
) -> Chat:
    """The service at ``endpoint``, or the local ``model`` if that is named."""
    if model:
        return LocalChat(model, device, console)
    return ChatEndpoint(endpoint, llm, key_of(key_env), timeout)


def _short(model: str) -> str:
    """The name of a model: of a file or folder its last part."""
    path = Path(model)
    return path.resolve().name if path.exists() else model
