"""Which latents fire on a text, by the host model and a run's dictionary on this machine."""

from __future__ import annotations

from hiersae_cli.formats.encoded_text import EncodedText
from hiersae_cli.formats.run import Run
from hiersae_cli.host.model import Host
from hiersae_cli.host.one_text import TextReader


class TextEncoder:
    """Encodes texts as they would be in a cache of the run's module, in one window.

    Args:
        host: the model whose activations the run was trained on.
        run: the run.
        context, bos: as in ``host.one_text.TextReader``.
    """

    def __init__(self, host: Host, run: Run, context: int, bos: int | None):
        self._read, self._run = TextReader(host, run.module, context, bos), run

    def __call__(self, text: str) -> tuple[list[str], list[list[tuple[int, float]]], int]:
        """The tokens' texts, the (latent, activation) pairs that fire at each, and how many tokens were cut off.

        Raises ``UsageError`` for an empty text, ``FileError`` for characters that the tokenizer lacks.
        """
        encoded = EncodedText.of(self._read(text), self._run.model)
        return encoded.tokens, encoded.firings(), encoded.cut_off
