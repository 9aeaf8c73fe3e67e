"""A hierarchy of labels for the tokens of a text: the concepts that downstream tasks look for in a dictionary.

Pure: texts in, labels out. A labeller is a function from passages to a label for every character; a token has the
label of one of its characters, see ``tokens``.
"""

from __future__ import annotations

from collections.abc import Callable

from hiersae_cli.concepts import plain, python_source
from hiersae_cli.concepts.labels_file import LabelsFile
from hiersae_cli.concepts.nouns import WordNetNouns
from hiersae_cli.concepts.structure import OUTSIDE, UNKNOWN, Array, Concepts, Passage, Vocabulary, choose

__all__ = [
    "LABELLERS",
    "OUTSIDE",
    "UNKNOWN",
    "Concepts",
    "Labeller",
    "LabelsFile",
    "Passage",
    "Vocabulary",
    "WordNetNouns",
    "choose",
]

# From passages to the label of every character, (families, characters) for each passage. A labeller adds new concepts
# to the vocabulary.
Labeller = Callable[[list[Passage], Vocabulary], list[Array]]

# The labellers that read only the text, by name, with their families.
LABELLERS: dict[str, tuple[Labeller, tuple[str, ...]]] = {
    "text": (plain.label_text, plain.FAMILIES),
    "python": (python_source.label_python, python_source.FAMILIES),
}
