"""A text as the host model sees it in a cache: its tokens and their activations.

Legend of shapes: S tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hiersae_cli.errors import UsageError
from hiersae_cli.host.model import Host
from hiersae_cli.host.text import Document
from hiersae_cli.host.tokenizer import texts_of
from hiersae_cli.host.windows import tokenized

_NAME = "the text"


@dataclass(frozen=True)
class TextRows:
    """The rows that a cache would have for a text.

    Attributes:
        ids: (S,) int32: the tokens.
        pieces: the text of each token on its own.
        x_SD: their activations.
        cut_off: how many tokens at the end did not fit the window.
    """

    ids: np.ndarray
    pieces: list[str]
    x_SD: torch.Tensor
    cut_off: int


class TextReader:
    """Reads texts as they would be in a cache of a module, in one window.

    Args:
        module: path of the module.
        context: tokens that the host saw at once when the cache was made; longer texts are cut.
        bos: token that begins every window of the cache, if there is one.
    """

    def __init__(self, host: Host, module: str, context: int, bos: int | None):
        self._host, self._module, self._bos = host, module, bos
        self._context = min(context, host.max_context)
        self._texts = texts_of(host.tokenizer)

    def __call__(self, text: str) -> TextRows:
        """The tokens of a text and their activations.

        Raises ``UsageError`` for an empty text, ``FileError`` for characters that the tokenizer lacks.
        """
        if not text.strip():
            raise UsageError("there is no text", "Type or paste some.")
        encoded, _ = tokenized(self._host.tokenizer, Document(_NAME, text), 0)
        room = self._context - (self._bos is not None)
        ids_S = encoded[:room]
        seen = ([] if self._bos is None else [self._bos]) + ids_S.tolist()
        x_SD = self._host.capture(torch.tensor([seen]), [self._module])[self._module][0, -len(ids_S) :]
        return TextRows(ids_S, self._texts(ids_S), x_SD, len(encoded) - len(ids_S))
