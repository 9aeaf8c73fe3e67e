"""The contexts of a folder of pages, with the text of every token stored once.

A context is a line of HTML on a served page. A folder has a hundred contexts for each feature, and many of them show
the same text. So a page of a folder holds only where a context begins and what fires in it, and ``lines.js`` makes the
same line as ``marked_text.context_line`` from that and from the texts of all contexts, which are one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup, escape

from hiersae_cli.browse.model import Context
from hiersae_cli.pages import text

# Around a line in a page and between the tokens in the file of texts. Pages show this character as its code, so no
# text has it; JSON holds it as one byte.
MARK = "\x7f"
BLOCK = 256  # rows whose texts are one string, the same as in lines.js

# Where a run of rows is: document, position in the window, held out, part of the document, place in the document.
_Place = tuple[int, int, bool, int, int]


class SharedTexts:
    """Collects the texts of contexts while pages are made."""

    def __init__(self) -> None:
        self._token_of_row: dict[int, str] = {}
        self._place_of_row: dict[int, _Place] = {}
        self._documents: dict[str, int] = {}

    def lines(self, contexts: Iterable[Context], most: float | None) -> Markup:
        """What a page holds for the lines of ``text.contexts``, with ``MARK`` before and after each."""
        return Markup("").join(Markup(MARK + self._line(context, most) + MARK) for context in contexts)

    def _line(self, context: Context, most: float | None) -> str:
        """A context in short; the whole line if its texts are not those of the other contexts of its rows.

        They differ if several tokens share a character: the token that fires most gets it.
        """
        start = context.row - context.focus
        tokens = [str(text.running(token)) for token in context.tokens]
        place = self._place(context)
        same_tokens = all(self._token_of_row.setdefault(row, token) == token for row, token in enumerate(tokens, start))
        if not same_tokens or self._place_of_row.setdefault(context.row, place) != place:
            return str(text.context(context, most))
        marks = [
            f"{offset},{text.step(activation, most)},{text.value(activation)}"
            for offset, activation in enumerate(context.activations)
            if activation
        ]
        return ";".join([f"{start},{context.focus},{len(tokens)}", *marks])

    def _place(self, context: Context) -> _Place:
        """The place of a context's focus. Along consecutive rows of a window it stays the same."""
        document = self._documents.setdefault(context.document, len(self._documents))
        number, place = context.source
        return document, context.position - context.row, context.held_out, number, place - context.row

    def data(self) -> dict[str, Any]:
        """The texts for ``lines.js``: names of documents, runs of rows at one place, and the tokens in blocks."""
        runs: list[list[int]] = []
        for row in sorted(self._place_of_row):
            place = list(map(int, self._place_of_row[row]))
            if not runs or runs[-1][1:] != place:
                runs.append([row, *place])
        blocks: dict[int, list[str]] = {}
        for row in sorted(self._token_of_row):
            block = blocks.setdefault(row // BLOCK, [])
            block += [""] * (row % BLOCK - len(block))
            block.append(self._token_of_row[row])
        return {
            "documents": [str(escape(text.one_line(name))) for name in self._documents],
            "runs": runs,
            "blocks": {number: MARK.join(tokens) for number, tokens in blocks.items()},
        }
