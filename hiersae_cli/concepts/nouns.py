"""Nouns of a text as concepts: the senses of WordNet, below their hypernyms."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hiersae_cli.concepts.function_words import CALENDAR, FUNCTION
from hiersae_cli.concepts.plain import plain_name
from hiersae_cli.concepts.structure import OUTSIDE, UNKNOWN, Array, Passage, Vocabulary
from hiersae_cli.concepts.wordnet import NOUN, OTHERS, WordNet

# An address, a tag's name or an entity, which no sense is looked up for, or a word.
_PIECES = re.compile(r"(?P<code>\b(?:\w{1,10}://|www\.)[^\s\]|<>]+|(?:</?|&(?:lt;/?)?)\w+)|\b[^\W\d_]+")
_BEFORE, _AFTER = re.compile(r"\b([^\W\d_a-z]\w*)\.? $"), re.compile(r" ([^\W\d_a-z]\w*)")
_NOUN_SHARE = 0.8  # least share of a word's annotated occurrences at which it counts as a noun, or as no noun
_SENSE_SHARE = 0.4  # the same of its first sense among its occurrences as a noun
_LEAST_LETTERS = 3
_NO_NOUNS = {"led", "won", "sat", "met", "felt"}  # forms of verbs, which only some copies of WordNet list


@dataclass(frozen=True)
class _Noun:
    """A noun, its sense and all senses above that, the top one first."""

    noun: str
    path: tuple[int, ...]


class WordNetNouns:
    """A labeller of nouns that are whole tokens, with WordNet's files in a folder; see ``WordNet`` for errors.

    A noun belongs to its most frequent sense and to all senses above it. Labels are

    - a sense, if at least ``_NOUN_SHARE`` of the word's annotated occurrences are nouns and ``_SENSE_SHARE`` of these
      have its first sense. Small letters and capitals must be as in that sense: "bush" the plant, "Bush" the president;
    - outside for other parts of speech, function words, numbers and punctuation;
    - unknown for words of several tokens, words that are often something else as well, words that WordNet lacks,
      names of several words, most other names, words of one or two letters, words in capitals, tags and addresses.

    Args:
        one_word: a sense of which one noun has a larger share than this in the passages is left out: to detect it is to
            detect a word, not a meaning. Its nouns have the sense above it.
    """

    families = ("noun",)

    def __init__(self, folder: str, one_word: float = 0.5):
        self._wordnet = WordNet(folder)
        self._one_word = one_word

    def __call__(self, passages: list[Passage], vocabulary: Vocabulary) -> list[Array]:
        """Labels of every character, (1, characters) for each passage, whose ``tokens`` must be known."""
        words_of_passages = [list(_words(passage)) for passage in passages]
        counts = Counter(word for words in words_of_passages for _, _, word in words)
        meanings = {word: self._meaning(word) if word else UNKNOWN for word in counts}
        label_of = self._labels(meanings, counts, vocabulary)
        labels_of_passages = []
        for passage, words in zip(passages, words_of_passages, strict=True):
            labels = np.full((1, len(passage.text)), OUTSIDE, np.int32)
            for start, end, word in words:
                labels[0, start:end] = label_of[word]
            labels_of_passages.append(labels)
        return labels_of_passages

    def _labels(self, meanings: dict[str, _Noun | int], counts: Counter[str], vocabulary: Vocabulary) -> dict[str, int]:
        """The label of each word, without the senses of which one noun has most occurrences."""
        nouns_of: defaultdict[int, Counter[str]] = defaultdict(Counter)
        for word, meaning in meanings.items():
            if isinstance(meaning, _Noun):
                for sense in meaning.path:
                    nouns_of[sense][meaning.noun] += counts[word]
        varied = {sense for sense, nouns in nouns_of.items() if max(nouns.values()) <= self._one_word * nouns.total()}
        label_of = {}
        for word, meaning in meanings.items():
            if isinstance(meaning, _Noun):
                names = [plain_name(self._wordnet.name(sense)) for sense in meaning.path if sense in varied]
                label_of[word] = vocabulary.number(0, *names) if names else UNKNOWN
            else:
                label_of[word] = meaning
        return label_of

    def _meaning(self, word: str) -> _Noun | int:
        """A noun with its senses, or ``OUTSIDE`` or ``UNKNOWN``."""
        small = word.lower()
        month = small in CALENDAR and word[0].isupper()  # "May"
        if (small in FUNCTION and not month) or small in _NO_NOUNS:
            return OUTSIDE if len(word) == 1 or not word.isupper() else UNKNOWN
        if len(word) < _LEAST_LETTERS or word not in (small, small.capitalize()):
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
        sense = self._sense(noun, word)
        return UNKNOWN if sense is None else _Noun(noun, tuple(self._wordnet.path(sense)))

    def _sense(self, noun: str, word: str) -> int | None:
        """The first sense that is written with a capital or small letter like ``word``; None if it is too rare."""
        for place, offset in enumerate(self._wordnet.senses(noun)):
            spellings = [spelling for spelling in self._wordnet.synset(offset).words if spelling.lower() == noun]
            if any(spelling[0].isupper() == word[0].isupper() for spelling in spellings):
                frequent = self._wordnet.sense_share(noun, place) >= _SENSE_SHARE
                return offset if frequent or not self._wordnet.has_counts else None
        return None


def _words(passage: Passage) -> Iterator[tuple[int, int, str]]:
    """The words of a passage with their places; "" for what no sense is looked up for."""
    token_starts = np.unique(np.array(passage.tokens, np.int64))
    pieces = list(_PIECES.finditer(passage.text))
    bounds = np.searchsorted(token_starts, np.array([piece.span() for piece in pieces], int).reshape(-1, 2))
    for piece, (first, last) in zip(pieces, bounds.tolist(), strict=True):
        start, end = piece.span()
        whole = last - first == 1 and token_starts[first] == start
        usable = whole and not piece["code"] and not _in_name(passage.text, start, end)
        yield start, end, piece.group() if usable else ""


def _in_name(text: str, start: int, end: int) -> bool:
    """Whether a capitalised word stands next to another one, as in "New York"; function words do not count."""
    if not text[start].isupper() or text[start:end].lower() in FUNCTION:
        return False
    before, after = _BEFORE.search(text, max(start - 40, 0), start), _AFTER.match(text, end)
    return any(word and word[1].lower() not in FUNCTION for word in (before, after))
