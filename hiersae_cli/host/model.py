"""The language model whose activations are studied: load it, hook a module, splice in a reconstruction.

Legend of shapes: B sequences, T tokens of each, d width of a module, F directions, D width of the residual stream, V
vocabulary.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.host import gguf
from hiersae_cli.host.hooks import all_outputs, first_of, misfit, with_first
from hiersae_cli.host.loading import fingerprint_of, load_model, not_causal
from hiersae_cli.host.tokenizer import fingerprint as tokenizer_fingerprint
from hiersae_cli.host.unembedding import Unembedding, UnknownLayersError
from hiersae_cli.reading import reason

_CANDIDATES = 24  # most modules that an error lists
_NOT_USED = "not used in the model's forward pass"
_PROBE_TOKENS = 8  # length of the sequences that test whether a host is causal
_EXAMPLE_SHAPE = (2, 3)  # of tokens; unequal and not 1, so that a module's output shows which axis is which
_CAUSAL_TOLERANCE = 1e-4  # largest change at earlier places, as a share of the change at the changed tokens


class _StopForward(Exception):
    """Raised by a hook when everything is captured, so that nothing after it is computed."""


class Host:
    """A Hugging Face causal language model with its tokenizer, frozen, in evaluation mode.

    Attributes:
        name: as the user gave it.
        fingerprint: sha256 of the weight and configuration files, or the hub's commit.
        tokenizer_fingerprint: of the tokenizer's behaviour (see ``host.tokenizer``).
        model, tokenizer: the Hugging Face objects.
    """

    def __init__(self, name: str, fingerprint: str, model: Any, tokenizer: Any):
        self.name, self.fingerprint, self.model, self.tokenizer = name, fingerprint, model, tokenizer

    @classmethod
    def load(
        cls, name: str, device: torch.device, dtype: str = "auto", revision: str = "", console: Console | None = None
    ) -> Host:
        """Load from a folder, a GGUF file or the hub; runs no code from the files, and no weights in pickle are read.

        A GGUF file is converted to a folder at first use, which ``console`` reports (see ``host.gguf``).
        Raises ``UsageError`` if there is no such model, ``FileError`` if its files are unusable or it is not a causal
        language model.
        """
        source = str(gguf.converted(Path(name), console or Console.silent())) if gguf.is_gguf(name) else name
        model, tokenizer, missing = load_model(source, dtype, revision)
        host = cls(name, fingerprint_of(source, model), model.to(device).eval().requires_grad_(False), tokenizer)
        host._require_causal()
        if missing:
            # transformers would give them random values.
            listed = ", ".join(missing[:4]) + (" …" if len(missing) > 4 else "")
            raise FileError(f"{name}: its files lack {len(missing)} of the model's weights: {listed}")
        return host

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        return tokenizer_fingerprint(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """The device that the model runs on."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> str:
        """The type of the model's weights: ``float32``, ``bfloat16`` …"""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the model knows."""
        return int(self.model.get_input_embeddings().num_embeddings)

    @property
    def max_context(self) -> int:
        """The longest sequence the model can take."""
        config = self._text_config()
        return int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 1 << 20)

    def blocks(self) -> tuple[str, int]:
        """The path of the list of transformer blocks, and their number."""
        config = self._text_config()
        count = int(getattr(config, "decoder_layers", 0) or getattr(config, "num_hidden_layers", 0))
        # In a multimodal host, other parts may have as many blocks: look in the decoder first.
        decoder = self.model.get_decoder() if hasattr(self.model, "get_decoder") else None
        named = list(self.model.named_modules())
        inside = next((f"{path}." for path, module in named if path and module is decoder), "")
        for path, module in sorted(named, key=lambda item: not item[0].startswith(inside)):
            if isinstance(module, nn.ModuleList) and len(module) == count:
                return path, count
        raise UsageError(f"{self.name}: its transformer blocks were not recognised", "Name the module: --module PATH.")

    def layer_path(self, layer: int) -> str:
        """The module path of block ``layer``, counted from 0; its output is the residual stream after it."""
        path, count = self.blocks()
        if not 0 <= layer < count:
            raise UsageError(
                f"--layer {layer}: {self.name} has {count} blocks, 0 to {count - 1}",
                f"For the middle of the model: --layer {count // 2}.",
            )
        return f"{path}.{layer}"

    def module(self, path: str) -> nn.Module:
        """The module at ``path``; raises ``UsageError`` that lists candidates if there is none."""
        modules = dict(self.model.named_modules())
        if path in modules and path:
            return modules[path]
        near = difflib.get_close_matches(path, modules, n=3, cutoff=0.5)
        candidates = near + [name for name in self._typical_modules() if name not in near]
        listed = "\n  ".join(candidates[:_CANDIDATES])
        raise UsageError(f"--module {path}: {self.name} has no such module", f"Candidates:\n  {listed}")

    @torch.inference_mode()
    def example(self, paths: list[str]) -> dict[str, torch.Tensor]:
        """Outputs (B, T, d) of the modules at ``paths`` for a few tokens.

        Raises ``UsageError`` that lists other modules if an output is not one vector per token. For example, a block of
        Gemma 3n returns several streams.
        """
        for path in paths:
            self.module(path)
        tokens_BT = torch.zeros(_EXAMPLE_SHAPE, dtype=torch.long, device=self.device)
        outputs = all_outputs(self.model, tokens_BT)
        fitting = {path for path, output in outputs.items() if not misfit(output, tokens_BT.shape)}
        for path in paths:
            if path not in fitting:
                problem = misfit(outputs[path], tokens_BT.shape) if path in outputs else _NOT_USED
                near = [name for name in self._typical_modules(path) if name in fitting]
                listed = "\n  ".join(near[:_CANDIDATES])
                raise UsageError(f"--module {path}: {problem}", f"Modules with one vector per token:\n  {listed}")
        return {path: first_of(outputs[path]) for path in paths}

    @torch.inference_mode()
    def capture(self, tokens_BT: torch.Tensor, paths: list[str]) -> dict[str, torch.Tensor]:
        """Outputs (B, T, d) of the modules at ``paths``; nothing after the last of them is computed.

        If a module is called several times, its first output counts.
        """
        captured: dict[str, torch.Tensor] = {}

        def hook(path: str) -> Callable[..., None]:
            def keep(module: nn.Module, inputs: Any, output: Any) -> None:
                if path in captured:
                    return
                x_BTd = _activations(path, output, tokens_BT.shape)
                last = len(captured) + 1 == len(paths)
                # Some models later add the next module's output to it in place.
                captured[path] = x_BTd if last else x_BTd.clone()
                if last:
                    raise _StopForward

            return keep

        handles = [self.module(path).register_forward_hook(hook(path)) for path in paths]
        try:
            self.model(tokens_BT.to(self.device), use_cache=False)
        except _StopForward:
            return captured
        finally:
            for handle in handles:
                handle.remove()
        missing = ", ".join(path for path in paths if path not in captured)
        raise UsageError(f"--module {missing}: {_NOT_USED}", "Choose another module.")

    def rows(self, tokens_BT: torch.Tensor, keep_BT: torch.Tensor, paths: list[str]) -> dict[str, torch.Tensor]:
        """Outputs (n, d) of the modules for the tokens that ``keep_BT`` marks; the others are padding on the right.

        A causal host does not see the padding, unless its rotary positions depend on the length of the sequence.
        """
        if keep_BT.all():
            return {path: x_BTd.flatten(0, 1) for path, x_BTd in self.capture(tokens_BT, paths).items()}
        if self._length_matters():
            parts = [
                self.capture(tokens_T[keep_T][None], paths) for tokens_T, keep_T in zip(tokens_BT, keep_BT, strict=True)
            ]
            return {path: torch.cat([part[path][0] for part in parts]) for path in paths}
        return {path: x_BTd[keep_BT.to(x_BTd.device)] for path, x_BTd in self.capture(tokens_BT, paths).items()}

    @contextmanager
    def spliced(
        self, path: str, replace: Callable[[torch.Tensor], torch.Tensor], where_BT: torch.Tensor | None = None
    ) -> Iterator[None]:
        """Within this context, the module's output x (B, T, d) becomes ``replace(x)`` in every forward pass.

        Positions outside ``where_BT`` keep x: a cache drops them, so no dictionary was trained on them. Like a cache,
        this uses only the first output of a module that is called several times in a forward pass.
        """
        tokens_shape: torch.Size | None = None  # of this forward pass, until the module is called

        def begin(model: nn.Module, inputs: Any) -> None:
            nonlocal tokens_shape
            tokens_shape = inputs[0].shape

        def replaced(x_BTD: torch.Tensor) -> torch.Tensor:
            y_BTD = replace(x_BTD)
            return y_BTD if where_BT is None else torch.where(where_BT[..., None], y_BTD, x_BTD)

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            nonlocal tokens_shape
            if tokens_shape is None:
                return output
            x_BTD, tokens_shape = _activations(path, output, tokens_shape), None
            return with_first(output, replaced(x_BTD))

        handles = [self.model.register_forward_pre_hook(begin), self.module(path).register_forward_hook(hook)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.inference_mode()
    def log_probabilities(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """log p of every next token, (B, T, V) float32."""
        logits_BTV = self.model(tokens_BT.to(self.device), use_cache=False).logits
        return logits_BTV.float().log_softmax(-1)

    def direct_logits(self, directions_FD: torch.Tensor) -> torch.Tensor:
        """What each direction of the residual stream adds to the logits by itself, (F, V) float32: the logit lens.

        The directions go through the linear parts of the host's final norm, which leaves out the division by the size
        of its input, and of its unembedding, without their biases (see ``host.unembedding``). So values can be compared
        within a direction, but not across the contexts of tokens. Raises ``FileError`` if the unembedding does not read
        this space.
        """
        try:
            unembedding = self._unembedding
        except UnknownLayersError as error:
            raise FileError(f"{self.name}: cannot tell which tokens a direction promotes: {error}") from None
        if unembedding.final_ED.shape[1] != directions_FD.shape[1]:
            raise FileError(
                f"{self.name}: its unembedding does not read this module's space",
                "Only directions of the residual stream promote tokens directly.",
            )
        return unembedding.logits(directions_FD)

    @cached_property
    def _unembedding(self) -> Unembedding:
        path, count = self.blocks()
        return Unembedding.of(self.model, self.module(f"{path}.{count - 1}"))

    def _require_causal(self) -> None:
        """Raise ``FileError`` if the output for a token depends on later tokens.

        A cached row would then depend on the padding of its batch, and the model would see the tokens that it predicts.
        """
        length = min(_PROBE_TOKENS, self.max_context)
        tokens_2T = torch.arange(2 * length).view(2, length) % self.vocabulary
        tokens_2T[1, : length // 2] = tokens_2T[0, : length // 2]
        try:
            # One sequence at a time has the same products in the same order: a causal model's first half stays equal.
            first_TV, other_TV = (self.log_probabilities(tokens_T[None])[0] for tokens_T in tokens_2T)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            problem = f"it does not run on only tokens ({reason(error)})"
            raise not_causal(self.name, self.model.config, problem) from None
        difference_T = (first_TV - other_TV).abs().amax(1)
        least = max(_CAUSAL_TOLERANCE, 2 * torch.finfo(getattr(torch, self.dtype)).eps) * difference_T.max()
        if (difference_T[: length // 2] > least).any():
            raise not_causal(self.name, self.model.config, "its output for a token depends on the tokens after it")

    def _length_matters(self) -> bool:
        """Whether activations depend on the length of the sequence, because it rescales rotary positions."""
        config = self._text_config()
        # Versions of transformers before 5 use the second name.
        parameters = json.dumps(
            [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")], default=str
        )
        return any(f'"{kind}"' in parameters for kind in ("dynamic", "longrope"))

    def _text_config(self) -> Any:
        config: Any = self.model.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    def _typical_modules(self, near: str = "") -> list[str]:
        """The blocks, and everything inside the block that has the module ``near``, or else inside the first block."""
        path, count = self.blocks()
        blocks = [f"{path}.{number}" for number in range(count)]
        inside = next((f"{block}." for block in blocks if f"{near}.".startswith(f"{block}.")), f"{blocks[0]}.")
        return blocks + [name for name, _ in self.model.named_modules() if name.startswith(inside)]


def _activations(path: str, output: Any, shape: torch.Size) -> torch.Tensor:
    """The output of a module as (B, T, d); raises ``UsageError`` if it is not one vector per token."""
    if problem := misfit(output, shape):
        raise UsageError(f"--module {path}: {problem}", "Choose a module whose output is (batch, tokens, width).")
    activations: torch.Tensor = first_of(output)
    return activations
