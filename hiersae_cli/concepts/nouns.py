"""Nouns of a text as concepts: the senses of WordNet, below their hypernyms."""

from __future__ import annotations

import re

import numpy as np

from hiersae_cli.concepts.function_words import FUNCTION
from hiersae_cli.concepts.plain import plain_name
from hiersae_cli.concepts.structure import OUTSIDE, UNKNOWN, Array, Passage, Vocabulary
from hiersae_cli.concepts.wordnet import NOUN, OTHERS, WordNet

# An address, a tag's name or an entity, which no sense is looked up for, or a word.
_PIECES = re.compile(r"(?P<code>\w+://[^\s\]|<>]+|www\.[^\s\]|<>]+|(?:</?|&(?:lt;/?)?)\w+)|\b[^\W\d_]+")
_BEFORE, _AFTER = re.compile(r"\b([^\W\d_a-z]\w*)\.? $"), re.compile(r" ([^\W\d_a-z]\w*)")
_NOUN_SHARE = 0.8  # least share of a word's annotated occurrences at which it counts as a noun, or as no noun
_SENSE_SHARE = 0.4  # the same of its first sense among its occurrences as a noun
_NO_NOUNS = {"led", "won", "sat", "met", "felt"}  # forms of verbs, which only some copies of WordNet list


class WordNetNouns:
    """A labeller of nouns that are whole tokens, with WordNet's files in a folder; see ``WordNet`` for errors.

    A noun belongs to its most frequent sense and to all senses above it. Labels are

    - a sense, if at least ``_NOUN_SHARE`` of the word's annotated occurrences are nouns and ``_SENSE_SHARE`` of these
      have its first sense. Small letters and capitals must be as in that sense: "bush" the plant, "Bush" the president;
    - outside for other parts of speech, function words, numbers and punctuation;
    - unknown for words of several tokens, words that are often something else as well, words that WordNet lacks,
      names of several words, most other names, single letters, words in capitals, tags and addresses.
    """

    families = ("noun",)

    def __init__(self, folder: str):
        self._wordnet = WordNet(folder)

    def __call__(self, passages: list[Passage], vocabulary: Vocabulary) -> list[Array]:
        """Labels of every character, (1, characters) for each passage, whose ``tokens`` must be known."""
        label_of: dict[str, int] = {}
        labels_of_passages = []
        for passage in passages:
            labels = np.full(len(passage.text), OUTSIDE, np.int32)
            token_starts = np.unique(np.array(passage.tokens, np.int64))
            pieces = list(_PIECES.finditer(passage.text))
            bounds = np.searchsorted(token_starts, np.array([piece.span() for piece in pieces], int).reshape(-1, 2))
            for piece, (first, last) in zip(pieces, bounds.tolist(), strict=True):
                start, end = piece.span()
                word = piece.group()
                whole = last - first == 1 and token_starts[first] == start
                if piece["code"] or not whole or _in_name(passage.text, start, end):
                    labels[start:end] = UNKNOWN
                    continue
                if word not in label_of:
                    label_of[word] = self._label(word, vocabulary)
                labels[start:end] = label_of[word]
            labels_of_passages.append(labels[None])
        return labels_of_passages

    def _label(self, word: str, vocabulary: Vocabulary) -> int:
        small = word.lower()
        if small in FUNCTION or small in _NO_NOUNS:
            return OUTSIDE if len(word) == 1 or not word.isupper() else UNKNOWN
        if len(word) == 1 or word not in (small, small.capitalize()):
            return UNKNOWN
        nouns = self._wordnet.base_forms(small, NOUN)
        others = {(form, part) for part in OTHERS for form in self._wordnet.base_forms(small, part)}
        if not nouns:
            return OUTSIDE if others else UNKNOWN
        noun = max(nouns, key=lambda form: self._wordnet.count(form, NOUN))  # "years" is the plural of "year"
        as_noun = self._wordnet.count(noun, NOUN)
        as_other = sum(self._wordnet.count(form, part) for form, part in others)
        share = as_noun / (as_noun + as_other) if as_noun + as_other else 0.5
        if others and share < _NOUN_SHARE:
            return OUTSIDE if share <= 1 - _NOUN_SHARE else UNKNOWN
        offset = self._sense(noun, word)
        if offset is None:
            return UNKNOWN
        return vocabulary.number(0, *(plain_name(self._wordnet.name(above)) for above in self._wordnet.path(offset)))

    def _sense(self, noun: str, word: str) -> int | None:
        """The first sense that is written with a capital or small letter like ``word``; None if it is too rare."""
        for place, offset in enumerate(self._wordnet.senses(noun)):
            spellings = [spelling for spelling in self._wordnet.synset(offset).words if spelling.lower() == noun]
            if any(spelling[0].isupper() == word[0].isupper() for spelling in spellings):
                frequent = self._wordnet.sense_share(noun, place) >= _SENSE_SHARE
                return offset if frequent or not self._wordnet.has_counts else None
        return None


def _in_name(text: str, start: int, end: int) -> bool:
    """Whether a capitalised word stands next to another one, as in "New York"; function words do not count."""
    if not text[start].isupper() or text[start:end].lower() in FUNCTION:
        return False
    before, after = _BEFORE.search(text, max(start - 40, 0), start), _AFTER.match(text, end)
    return any(word and word[1].lower() not in FUNCTION for word in (before, after))
