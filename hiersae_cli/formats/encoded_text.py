"""The code of a text: which latents of a run fire at each of its tokens.

Legend of shapes: S tokens, F latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from hiersae_cli.concepts.tokens import joined
from hiersae_cli.formats import notebook
from hiersae_cli.formats.optional import optional_package
from hiersae_cli.host.one_text import TextRows
from hiersae_cli.levels import Levels
from hiersae_cli.sae import SparseAutoencoder

_ROWS, _NAMED = 40, 8  # tokens, and latents of each, that a notebook shows


@dataclass(frozen=True, repr=False)
class EncodedText:
    """A text with its code.

    Attributes:
        tokens: the text of each token; joined, they are the text.
        ids: (S,) int32: the tokens.
        code_SF: the activation of every latent at every token, float32 on the CPU.
        levels: the levels of the latents.
        cut_off: how many tokens at the end did not fit the host's window.
    """

    tokens: list[str]
    ids: np.ndarray
    code_SF: torch.Tensor
    levels: Levels
    cut_off: int

    @classmethod
    @torch.inference_mode()
    def of(cls, rows: TextRows, model: SparseAutoencoder) -> EncodedText:
        """The rows of a text, encoded by a model."""
        code_SF = model.encode(rows.x_SD.to(model.W_dec_FD.device, torch.float32)).cpu()
        tokens = joined(rows.pieces, code_SF.sum(1).tolist())
        return cls(tokens, rows.ids, code_SF, model.levels, rows.cut_off)

    def sparse(self) -> csr_matrix:
        """The code (S, F) as a sparse matrix, as ``Codes.read`` returns it."""
        return csr_matrix(self.code_SF.numpy())

    def firings(self) -> list[list[tuple[int, float]]]:
        """The (latent, activation) pairs that fire at each token, strongest first; latents are columns of the code."""
        firings = []
        for code_F in self.code_SF:
            latents = code_F.nonzero().squeeze(1)
            latents = latents[code_F[latents].argsort(descending=True, stable=True)]
            firings.append(list(zip(latents.tolist(), code_F[latents].tolist(), strict=True)))
        return firings

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row per firing: ``place``, ``token``, ``latent`` (its id), ``activation``.

        Raises ``HierSAEError`` if pandas is not installed.
        """
        rows = [
            (place, self.tokens[place], self.levels.ids[latent], activation)
            for place, pairs in enumerate(self.firings())
            for latent, activation in pairs
        ]
        pandas = optional_package("pandas", "to_dataframe()")
        return pandas.DataFrame(rows, columns=["place", "token", "latent", "activation"])

    def __repr__(self) -> str:
        firings = int((self.code_SF > 0).sum())
        return f"EncodedText({len(self.tokens):,} tokens, {firings:,} firings of {self.levels.latents:,} latents)"

    def _repr_html_(self) -> str:
        pairs = zip(self.tokens[:_ROWS], self.firings(), strict=False)
        rows = [(notebook.shown(token), self._strongest(firings)) for token, firings in pairs]
        note = "the strongest latents of each token"
        note += f"; only the first {_ROWS} tokens" if len(self.tokens) > _ROWS else ""
        note += f"; {self.cut_off:,} more tokens did not fit the window" if self.cut_off else ""
        return notebook.card(f"{len(self.tokens):,} tokens", note, notebook.table(rows))

    def _strongest(self, firings: list[tuple[int, float]]) -> str:
        return ", ".join(f"{self.levels.ids[latent]} {value:.3g}" for latent, value in firings[:_NAMED])
