"""Cutting documents into windows, and choosing the documents that are held out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.host.charlm import character_tokenizer
from hiersae_cli.host.text import Document
from hiersae_cli.host.windows import Windows, choose_held_out, cut_windows
from tests.random_hosts import ALPHABET, byte_tokenizer, prose

CHARACTERS = character_tokenizer(ALPHABET, 64)
BOS = 99  # no character's token

quick = settings(derandomize=True, deadline=None, max_examples=60)


def text_of(tokens: np.ndarray) -> str:
    return CHARACTERS.decode([token for token in tokens.tolist() if token != BOS])


def cut(texts: list[str], context: int, **options: object) -> Windows:
    documents = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    return cut_windows(CHARACTERS, documents, context=context, **options)  # type: ignore[arg-type]


texts_with_a_long_one = st.lists(st.text(ALPHABET, min_size=1, max_size=60), min_size=1, max_size=5).filter(
    lambda texts: max(map(len, texts)) >= 9
)


@quick
@given(texts_with_a_long_one, st.integers(2, 9), st.booleans(), st.sampled_from([0, 1, 7, 20]))
def test_windows_hold_every_document_whole_and_never_cross_one(
    texts: list[str], context: int, with_bos: bool, document_tokens: int
) -> None:
    bos = BOS if with_bos else None
    windows = cut(texts, context, bos=bos, document_tokens=document_tokens)
    assert windows.tokens.dtype == windows.document.dtype == windows.position.dtype == np.int32
    assert windows.starts[0] == 0 and windows.starts[-1] == len(windows.tokens)
    lengths = np.diff(windows.starts)
    assert lengths.min() >= 1 + with_bos and lengths.max() <= context
    for start, stop in pairwise(windows.starts):
        assert len(set(windows.document[start:stop])) == 1
        assert windows.position[start:stop].tolist() == list(range(stop - start))
        found = windows.tokens[start:stop] == BOS
        assert found.tolist() == [with_bos] + [False] * (stop - start - 1)
    assert (np.diff(windows.document) >= 0).all()
    assert len(windows.names) == len(windows.offsets) == windows.document[-1] + 1
    by_source: dict[str, str] = {}
    for number, (name, offset) in enumerate(zip(windows.names, windows.offsets, strict=True)):
        part = text_of(windows.tokens[windows.document == number])
        assert offset == len(by_source.get(name, ""))
        by_source[name] = by_source.get(name, "") + part
    assert list(by_source.values()) == texts


@quick
@given(st.integers(1, 400), st.integers(2, 9), st.integers(1, 60), st.booleans())
def test_long_documents_become_parts_of_whole_windows(
    length: int, context: int, document_tokens: int, with_bos: bool
) -> None:
    text = prose(max(length, context))
    windows = cut([text], context, bos=BOS if with_bos else None, document_tokens=document_tokens)
    sizes = np.bincount(windows.document)
    full = context * max(1, document_tokens // context)
    assert (sizes[:-1] == full).all() and 0 < sizes[-1] <= full


@quick
@given(texts_with_a_long_one, st.integers(2, 9), st.integers(1, 120), st.sampled_from([None, BOS]))
def test_the_limit_is_exact_and_a_prefix_of_everything(
    texts: list[str], context: int, limit: int, bos: int | None
) -> None:
    everything = cut(texts, context, bos=bos)
    windows = cut(texts, context, bos=bos, limit=limit)
    count = min(limit, len(everything.tokens))
    assert len(windows.tokens) == windows.starts[-1] == count
    for name in ("tokens", "document", "position"):
        assert np.array_equal(getattr(windows, name), getattr(everything, name)[:count])
    assert len(windows.names) == windows.document[-1] + 1
    assert windows.starts[:-1].tolist() == [start for start in everything.starts if start < count]


def test_offsets_count_from_where_the_document_begins() -> None:
    windows = cut_windows(
        CHARACTERS, [Document("book", "ab\ncd\nefgh", offset=1000)], context=4, bos=BOS, document_tokens=4
    )
    assert windows.names == ["book"] * 4
    assert windows.offsets.tolist() == [1000, 1003, 1006, 1009]


def test_offsets_count_characters_not_bytes() -> None:
    text = "naïve café – ok " * 20
    windows = cut_windows(byte_tokenizer(False), [Document("d", text)], context=8, document_tokens=8)
    tokenizer = byte_tokenizer(False)
    for number, offset in enumerate(windows.offsets):
        shown = tokenizer.decode(windows.tokens[windows.document == number].tolist()).strip("\ufffd")
        assert text[offset : offset + 12].find(shown[:4]) in (0, 1)


def test_a_huge_text_is_cut_at_lines_and_read_only_as_far_as_needed() -> None:
    lines = "".join(prose(70, seed).replace("\n", " ") + "\n" for seed in range(64)) * 128
    assert text_of(cut([lines], 8).tokens) == lines

    class Counting:
        is_fast, unk_token_id = True, None
        seen = 0

        def __call__(self, text: str, **options: object) -> object:
            self.seen += len(text)
            assert text.endswith("\n")
            return CHARACTERS(text, **options)

    counting = Counting()
    windows = cut_windows(counting, [Document("d", lines)], context=8, limit=100)
    assert len(windows.tokens) == 100 and counting.seen < len(lines) / 2


def test_characters_that_the_tokenizer_lacks_are_named() -> None:
    with pytest.raises(FileError, match="d1: characters that the tokenizer lacks, at 3 places: 'é', '…'") as caught:
        cut(["plain text", "a caf\xe9 … \xe9"], 4)
    assert "train the host" in caught.value.hint


def test_a_text_that_spells_the_unknown_token_itself_is_taken() -> None:
    assert len(cut(["some \ufffd of it"], 4).tokens) == 12


def test_a_text_shorter_than_the_context_is_refused_unless_so_many_tokens_are_wanted() -> None:
    with pytest.raises(FileError, match="shorter than the context: its longest document has 9 tokens") as caught:
        cut(["too short", "shorter"], 32)
    assert caught.value.hint == "Give more text, or --context 9."
    assert len(cut(["too short", "shorter"], 9).tokens) == 16
    assert len(cut(["too short", "shorter"], 32, limit=5).tokens) == 5


def test_a_context_with_room_for_nothing_but_bos_is_refused() -> None:
    with pytest.raises(UsageError, match="--context 1"):
        cut(["some text"], 1, bos=BOS)


@quick
@given(st.integers(0, 300), st.floats(0, 0.99), st.integers(0, 5))
def test_held_out_documents_are_spread_evenly(documents: int, share: float, seed: int) -> None:
    held_out = choose_held_out(documents, share, seed)
    assert held_out.dtype == bool and len(held_out) == documents
    count = int(held_out.sum())
    if share == 0 or documents < 2:
        assert count == 0
    else:
        assert count == min(max(1, round(share * documents)), documents - 1)
        # One in every stretch: no stretch of three times the mean distance is without any.
        longest = np.diff(np.flatnonzero(np.concatenate([[True], held_out, [True]]))).max()
        assert longest <= 2 * -(-documents // count) + 1
    assert np.array_equal(held_out, choose_held_out(documents, share, seed))


def test_another_seed_holds_out_other_documents() -> None:
    choices = {choose_held_out(100, 0.1, seed).tobytes() for seed in range(8)}
    assert len(choices) == 8
