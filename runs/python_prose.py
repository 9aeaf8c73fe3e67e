"""English prose that every Python carries: its reference documentation and the docstrings of its standard library.

    python runs/python_prose.py FILE.jsonl

Writes a document per topic and per module. Paragraphs that are mostly signatures, code or tables are left out.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

_LEAST_WORDS = 8
_LEAST_LETTERS = 0.88  # share of letters among the characters of a paragraph that are not white space
_LEAST_DOCUMENT = 400  # characters
_NOT_PROSE = re.compile(r"^\s*(>>>|\.\.\. |\$ |\+[-=]|[-=~^*]{4,}|\|)|\s{3,}\S+\s{3,}", re.MULTILINE)


def prose(text: str) -> list[str]:
    """The paragraphs of a text that read as sentences, each on one line."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", dedent(text)):
        line = " ".join(paragraph.split())
        visible = line.replace(" ", "")
        letters = sum(character.isalpha() for character in visible)
        if (
            len(line.split()) >= _LEAST_WORDS
            and letters >= _LEAST_LETTERS * len(visible)
            and line.endswith((".", ":", "!", "?"))
            and not _NOT_PROSE.search(paragraph)
        ):
            paragraphs.append(line)
    return paragraphs


def topics() -> Iterator[tuple[str, str]]:
    """The reference documentation, by topic."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topic:{name}", topics[name]


def docstrings() -> Iterator[tuple[str, str]]:
    """The docstrings of each module of the standard library, which is read as text and not imported."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"} & set(name.parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        nodes = (n for n in ast.walk(module) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef)))
        yield str(name), "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def main() -> None:
    """Write the documents, one per line."""
    seen: set[str] = set()  # a paragraph that many methods repeat counts once
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        for name, text in [*topics(), *docstrings()]:
            new = [paragraph for paragraph in dict.fromkeys(prose(text)) if paragraph not in seen]
            seen.update(new)
            if len(cleaned := "\n\n".join(new)) >= _LEAST_DOCUMENT:
                file.write(json.dumps({"name": name, "text": cleaned}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
