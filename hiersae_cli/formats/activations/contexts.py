"""The rows of a context, those around a row, as far as its window goes; and the whole text of a row's token.

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


def whole_texts(
    row_E: Array, texts: Callable[[Array], list[str]], token_R: Array, document_R: Array, *consecutive: Array
) -> list[str]:
    """The text of the token in each of the rows; if it is part of a character, with the whole character.

    ``texts`` gives the texts of tokens on their own; the columns are those of ``rows_around``.
    """
    row_EW, inside_EW = rows_around(row_E, MORE_TOKENS, document_R, *consecutive)
    return [
        excerpt(texts(token_R[row_W[inside_W]]), [0.0], 0, inside_W.tolist())[0]
        for row_W, inside_W in zip(row_EW, inside_EW, strict=True)
    ]


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
    row: int, around: int, texts: Callable[[Array], list[str]], token_R: Array, document_R: Array, *consecutive: Array
) -> tuple[list[str], int]:
    """The texts of the tokens around a row, joined, and the place of the row's own; arguments as ``whole_texts``."""
    row_EW, inside_EW = rows_around(np.array([row]), around + MORE_TOKENS, document_R, *consecutive)
    row_W, inside_W = row_EW[0], inside_EW[0]
    inside_S = inside_W[MORE_TOKENS:-MORE_TOKENS]
    place = int(inside_S[:around].sum())
    words = excerpt(texts(token_R[row_W[inside_W]]), [0.0] * int(inside_S.sum()), place, inside_W.tolist())
    return words, place
