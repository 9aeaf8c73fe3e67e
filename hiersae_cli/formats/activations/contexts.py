"""The rows of a context, those around a row, as far as its window goes; and their text.

Legend of shapes: R rows, E rows to look around, W rows of a context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiersae_cli.concepts.tokens import MORE_TOKENS, excerpt

Array = np.ndarray[Any, Any]


def rows_around(row_E: Array, around: int, document_R: Array, *consecutive: Array) -> tuple[Array, Array]:
    """The rows (E, W) from ``around`` before each of ``row_E`` to ``around`` after it, and which lie in its window.

    Args:
        document_R: the number of each row's document.
        consecutive: columns (R,) that grow by one from row to row within a window, such as the position.
    """
    row_EW = row_E[:, None] + np.arange(-around, around + 1)
    inside_EW = (row_EW >= 0) & (row_EW < len(document_R))
    row_EW = row_EW.clip(0, len(document_R) - 1)
    inside_EW &= document_R[row_EW] == document_R[row_E][:, None]
    for column_R in consecutive:
        inside_EW &= column_R[row_EW] - column_R[row_E][:, None] == row_EW - row_E[:, None]
    return row_EW, inside_EW


class TextAround:
    """The texts of contexts of ``around`` tokens on each side of rows, with whole characters at both ends.

    A window may begin or end within a character. So the text goes on into the neighbouring windows of its document.

    Args:
        row_E: the rows.
        texts: the texts of tokens, each on its own.
        token_R, document_R: columns of the rows.
        consecutive: as of ``rows_around``, but only that of the row's number in the caches, if there are gaps.
    """

    def __init__(
        self,
        row_E: Array,
        around: int,
        texts: Callable[[Array], list[str]],
        token_R: Array,
        document_R: Array,
        *consecutive: Array,
    ):
        self._around, self._texts, self._token_R = around, texts, token_R
        self._row_EW, self._inside_EW = rows_around(row_E, around + MORE_TOKENS, document_R, *consecutive)

    def excerpt(self, number: int, activations: list[float], focus: int) -> list[str]:
        """The texts of the tokens of a context, as ``concepts.tokens.excerpt``: it may be shorter than ``around``."""
        first = self._around - focus
        part = slice(first, first + len(activations) + 2 * MORE_TOKENS)
        inside = self._inside_EW[number, part]
        pieces = self._texts(self._token_R[self._row_EW[number, part][inside]])
        return excerpt(pieces, int(inside[:MORE_TOKENS].sum()), activations, focus)


@dataclass(frozen=True)
class RowText:
    """The text around a row of a cache.

    Attributes:
        before, token, after: the text before the row's token, the token and the text after it, within its window.
        document: name of the document.
        position: of the token within its window, counted from 0.
    """

    before: str
    token: str
    after: str
    document: str
    position: int

    def __str__(self) -> str:
        return self.before + self.token + self.after


def words_around(
    row: int, around: int, texts: Callable[[Array], list[str]], token_R: Array, document_R: Array, position_R: Array
) -> tuple[list[str], int]:
    """The texts of the tokens around a row, within its window, and the place of the row's own token.

    The columns are those of consecutive rows of a cache; ``texts`` is that of ``TextAround``.
    """
    row_E = np.array([row])
    inside_W = rows_around(row_E, around, document_R, position_R)[1][0]
    place = int(inside_W[:around].sum())
    text = TextAround(row_E, around, texts, token_R, document_R)
    return text.excerpt(0, [0.0] * int(inside_W.sum()), place), place
