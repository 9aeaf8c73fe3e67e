"""Labels of a cache's rows: tokens are joined to texts, and a labeller gives every token its labels.

Legend of shapes: N rows, G families of concepts, W rows of a stretch of text.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from hiersae_cli.concepts import LABELLERS, UNKNOWN, Concepts, Labeller, LabelsFile, Passage, Vocabulary, WordNetNouns
from hiersae_cli.concepts.tokens import joined, places
from hiersae_cli.concepts.wordnet import DEFAULT_FOLDER
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.common.evidence import token_texts

_RUN_UP = 16  # documents of the same source before a wanted one, which help to label it


def label_rows(acts: ActivationSet, row_N: np.ndarray, host: Host, config: EvalConfig) -> tuple[Concepts, list[str]]:
    """The concepts of rows (N,), ascending, by the labeller of the configuration; and what to warn of.

    A document that is part of a longer text is labelled together with up to 16 parts before it, in which a string or
    a speech may begin.
    """
    label, families = _labeller(config)
    vocabulary = Vocabulary(families)
    tokens, document, position = (acts.column(name) for name in ("tokens", "document", "position"))
    names = acts.document_names()
    offsets = np.concatenate([cache.file["documents/offset"][...] for cache in acts.caches])
    pieces = _pieces(acts, host, tokens, position)
    stretches = _stretches(np.unique(document[row_N]), document, names, offsets)
    passages, place_of = [], []
    shifted = 0
    for first, last in stretches:
        texts = pieces(first, last)
        place_W = np.array(places(texts), np.int64)
        start_W = np.cumsum([0, *map(len, texts)])[:-1]
        begins = np.flatnonzero(np.diff(document[first:last], prepend=-1))
        anchors = [(int(start_W[at]), int(offsets[document[first + at]])) for at in begins]
        text = "".join(texts)
        known = [anchor for anchor in anchors if anchor[1] >= 0]
        shifted += sum(b[1] - a[1] != b[0] - a[0] for a, b in pairwise(known))
        passages.append(Passage(names[document[first]], text, anchors, place_W.tolist()))
        place_of.append(place_W)
    labels = label(passages, vocabulary)
    label_GN = np.full((len(vocabulary.families), len(row_N)), UNKNOWN, np.int32)
    for (first, last), place_W, labels_GC in zip(stretches, place_of, labels, strict=True):
        inside = np.flatnonzero((row_N >= first) & (row_N < last))
        place = place_W[row_N[inside] - first]
        labelled = place < labels_GC.shape[1]
        label_GN[:, inside[labelled]] = labels_GC[:, place[labelled]]
    warnings = []
    if config.labels and shifted:
        warnings.append(
            f"{config.labels}: {shifted:,} documents have another length in the cache's tokens than in the text, so "
            "their labels may be shifted"
        )
    return Concepts.of(vocabulary, label_GN), warnings


def _labeller(config: EvalConfig) -> tuple[Labeller, tuple[str, ...]]:
    """The labeller and the names of its families."""
    if config.labels:
        return LabelsFile(config.labels), LabelsFile.families
    if config.labeller == "wordnet":
        return WordNetNouns(config.wordnet or DEFAULT_FOLDER), WordNetNouns.families
    return LABELLERS[config.labeller]


def _stretches(
    wanted: np.ndarray, document_N: np.ndarray, names: list[str], offsets: np.ndarray
) -> list[tuple[int, int]]:
    """First and past-the-last row of stretches that hold the wanted documents and their run-up, each of one source."""
    numbers, starts = np.unique(document_N, return_index=True)
    ends = np.append(starts[1:], len(document_N))
    row_of = {int(number): place for place, number in enumerate(numbers)}

    def follows(number: int) -> bool:
        before = number - 1
        return before in row_of and names[before] == names[number] and 0 <= offsets[before] < offsets[number]

    stretches: list[tuple[int, int]] = []
    for number in wanted.tolist():
        first = number
        while number - first < _RUN_UP and follows(first):
            first -= 1
        start, stop = int(starts[row_of[first]]), int(ends[row_of[number]])
        if stretches and (start < stretches[-1][1] or (start == stretches[-1][1] and follows(first))):
            stretches[-1] = stretches[-1][0], stop
        else:
            stretches.append((start, stop))
    return stretches


def _pieces(acts: ActivationSet, host: Host, tokens: np.ndarray, position: np.ndarray) -> Any:
    """A function from the first and past-the-last row of a stretch to the text of each of its tokens."""
    texts = token_texts(host)
    bos = acts.caches[0].header["host"].get("bos")

    def pieces(first: int, last: int) -> list[str]:
        ids = tokens[first:last]
        words = joined(texts(ids))
        if bos is not None:
            for place in np.flatnonzero((ids == bos) & (position[first:last] == 0)):
                words[place] = ""  # not in the document
        return words

    return pieces
