"""Which latents fire on a text, by the host model and a run's dictionary on this machine.

Legend of shapes: S tokens, D width, F latents.
"""

from __future__ import annotations

import torch

from hiersae_cli.concepts.tokens import joined
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.run import Run
from hiersae_cli.host.model import Host
from hiersae_cli.host.text import Document
from hiersae_cli.host.windows import tokenized
from hiersae_cli.workflows.common.evidence import token_texts

_NAME = "the text"


class TextEncoder:
    """Encodes texts as they would be in a cache of the run's module, in one window.

    Args:
        host: the model whose activations the run was trained on.
        run: the run.
        context: tokens that the host saw at once when the cache was made; longer texts are cut.
        bos: token that begins every window of the cache, if there is one.
    """

    def __init__(self, host: Host, run: Run, context: int, bos: int | None):
        self._host, self._run, self._bos = host, run, bos
        self._context = min(context, host.max_context)
        self._texts = token_texts(host)

    @torch.inference_mode()
    def __call__(self, text: str) -> tuple[list[str], list[list[tuple[int, float]]], int]:
        """The tokens' texts, the (latent, activation) pairs that fire at each, and how many tokens were cut off.

        Raises ``UsageError`` for an empty text, ``FileError`` for characters that the tokenizer lacks.
        """
        if not text.strip():
            raise UsageError("there is no text", "Type or paste some.")
        encoded, _ = tokenized(self._host.tokenizer, Document(_NAME, text), 0)
        room = self._context - (self._bos is not None)
        tokens_S = encoded[:room]
        seen = ([] if self._bos is None else [self._bos]) + tokens_S.tolist()
        module = self._run.module
        x_SD = self._host.capture(torch.tensor([seen]), [module])[module][0, -len(tokens_S) :]
        code_SF = self._run.model.encode(x_SD.to(self._run.model.W_dec_FD.device, torch.float32)).cpu()
        firings = []
        for code_F in code_SF:
            latents = code_F.nonzero().squeeze(1)
            latents = latents[code_F[latents].argsort(descending=True, stable=True)]
            firings.append(list(zip(latents.tolist(), code_F[latents].tolist(), strict=True)))
        pieces = joined(self._texts(tokens_S), code_SF.sum(1).tolist())
        return pieces, firings, len(encoded) - len(tokens_S)
