"""From documents to the windows of tokens that a model sees, and which documents are held out.

Legend of shapes: N rows (tokens), W windows, D documents, B windows of a batch, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.host.text import Document

_SLICE = 1 << 17  # characters tokenized at once (a few hundred bytes of memory each); cut at a line end


@dataclass(frozen=True)
class Windows:
    """Tokenized documents, cut into windows that never cross the boundary of a document.

    Attributes:
        tokens, document, position: (N,) int32: the token, the number of its document, its place in the window.
        starts: (W + 1,) int64: first row of each window, and N.
        names, offsets: of each document: its source, and the character of the source at which it begins (-1: unknown).
    """

    tokens: np.ndarray
    document: np.ndarray
    position: np.ndarray
    starts: np.ndarray
    names: list[str]
    offsets: np.ndarray


def padded(values_N: np.ndarray, starts_B: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
    """A column's values in some windows, (B, T): the rows of each window, then zeros up to the longest window."""
    place_T = np.arange(int(lengths_B.max()))
    inside_BT = place_T < lengths_B[:, None]
    padded_BT = np.zeros(inside_BT.shape, np.int64 if values_N.dtype.kind == "i" else values_N.dtype)
    padded_BT[inside_BT] = values_N[(starts_B[:, None] + place_T)[inside_BT]]
    return padded_BT


def cut_windows(
    tokenizer: Any,
    documents: Iterable[Document],
    *,
    context: int,
    bos: int | None = None,
    limit: int = 0,
    document_tokens: int = 0,
) -> Windows:
    """Tokenize ``documents`` and cut them into windows of at most ``context`` tokens, ``bos`` included.

    A document of more than ``document_tokens`` becomes several documents of whole windows, with about that many tokens,
    so that a book can be split into training and held-out parts. Stops at ``limit`` tokens (0: no limit).

    Raises ``FileError`` if the tokenizer lacks characters, or all documents are shorter than one window.
    """
    body = context - (bos is not None)
    if body < 1:
        raise UsageError(
            f"--context {context}: leaves no room for text after the beginning-of-sequence token",
            "Give a longer --context, or --bos no.",
        )
    windows_a_part = max(1, document_tokens // context) if document_tokens else 0
    tokens: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    names: list[str] = []
    offsets: list[int] = []
    count = 0
    for source in documents:
        ids, places = tokenized(tokenizer, source, limit - count if limit else 0)
        part = body * windows_a_part or len(ids)
        for start in range(0, len(ids), part or 1):
            rows, position, length = _one_document(ids[start : start + part], body, bos)
            tokens.append(rows)
            positions.append(position)
            lengths.append(length)
            names.append(source.name)
            offsets.append(source.offset + int(places[start]) if len(places) else -1)
            count += len(rows)
            if limit and count >= limit:
                break
        if limit and count >= limit:
            break
    longest = max((int(length.max()) for length in lengths if len(length)), default=0)
    if longest < context and not (limit and count >= limit):
        raise FileError(
            f"The text is shorter than the context: its longest document has {longest:,} tokens, "
            f"--context is {context:,}",
            f"Give more text, or --context {max(1, longest)}.",
        )
    return _assemble(tokens, positions, lengths, names, offsets, limit or count)


def choose_held_out(documents: int, share: float, seed: int) -> np.ndarray:
    """Which documents (D,) bool are held out: ``share`` of them, a random one in each of equal stretches.

    At least one is held out if ``share`` > 0 and there are two or more.
    """
    held_out = np.zeros(documents, bool)
    count = min(max(1, round(share * documents)), documents - 1) if share > 0 else 0
    edges = np.linspace(0, documents, max(count, 0) + 1).astype(int)
    generator = np.random.default_rng(seed)
    for low, high in pairwise(edges):
        held_out[generator.integers(low, high)] = True
    return held_out


def tokenized(tokenizer: Any, source: Document, enough: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a document, and the character at which each begins (empty if the tokenizer cannot tell).

    Stops after at least ``enough`` tokens (0: all), so that a few tokens of a huge text are fast.
    """
    ids, places, first, count = [], [], 0, 0
    for text in _slices(source.text):
        encoded = tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=tokenizer.is_fast,
            return_attention_mask=False,
            verbose=False,
        )
        ids.append(np.asarray(encoded["input_ids"], np.int32))
        if tokenizer.is_fast:
            spans = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2)
            _refuse_unknown(tokenizer, source, ids[-1], spans, text)
            places.append(spans[:, 0] + first)
        first += len(text)
        count += len(ids[-1])
        if enough and count >= enough:
            break
    if not ids:
        return np.zeros(0, np.int32), np.zeros(0, np.int64)
    return np.concatenate(ids), np.concatenate(places) if places else np.zeros(0, np.int64)


def _slices(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = min(start + _SLICE, len(text))
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def _refuse_unknown(tokenizer: Any, source: Document, ids: np.ndarray, spans: np.ndarray, text: str) -> None:
    unknown = tokenizer.unk_token_id
    # Byte-level tokenizers call their end-of-text token "unknown", but know every character.
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        return
    unknown_pieces = [text[low:high] for low, high in spans[ids == unknown]]
    bad = [piece for piece in unknown_pieces if piece != tokenizer.unk_token]  # some texts contain "<unk>" itself
    if bad:
        pieces = sorted(set(bad))
        listed = ", ".join(repr(piece) for piece in pieces[:8]) + (" …" if len(pieces) > 8 else "")
        raise FileError(
            f"{source.name}: characters that the tokenizer lacks, at {len(bad):,} places: {listed}",
            "Remove or replace them, or train the host on text that has them.",
        )


def _one_document(ids: np.ndarray, body: int, bos: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of a document: tokens (n,), positions (n,), and the lengths of its windows."""
    starts = np.arange(0, len(ids), body)
    lengths = np.diff(np.append(starts, len(ids)))
    if bos is not None:
        ids = np.insert(ids, starts, bos)
        lengths = lengths + 1
    firsts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return ids, (np.arange(len(ids)) - firsts).astype(np.int32), lengths


def _assemble(
    tokens: list[np.ndarray],
    positions: list[np.ndarray],
    lengths: list[np.ndarray],
    names: list[str],
    offsets: list[int],
    limit: int,
) -> Windows:
    document = np.repeat(np.arange(len(tokens), dtype=np.int32), [len(rows) for rows in tokens])
    total = min(sum(map(len, tokens)), limit)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    starts = np.append(starts[starts < total], total)
    return Windows(
        tokens=np.concatenate(tokens)[:total].astype(np.int32),
        document=document[:total],
        position=np.concatenate(positions)[:total],
        starts=starts.astype(np.int64),
        names=names,
        offsets=np.asarray(offsets, np.int64),
    )
