"""Damaged copies of every kind of file, made from a seed: each changes one thing that the format says.

``drill`` damages a kind of file in many ways and reads it in every way that commands do. Only our own errors may come
of it. ``python -m tests.mutations --count 5000`` runs more of it than the tests do.
"""

from __future__ import annotations

import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from hiersae_cli.errors import HierSAEError
from tests.mutations.kinds import KINDS as KINDS
from tests.mutations.kinds import Kind


def drill(kind: Kind, folder: Path, count: int, seed: int) -> list[str]:
    """Damage a kind of file in up to ``count`` ways, chosen by ``seed``; returns what went wrong, one text for each.

    Reading may succeed, or raise our own error, whose message is one line that names a file.
    """
    whole, copy = folder / "whole", folder / "copy"
    whole.mkdir(parents=True)
    kind.make(whole)
    for reader in kind.readers:
        reader(whole / kind.file)
    shutil.copytree(whole, copy, symlinks=True)
    names = [name for name, _ in kind.changes(copy / kind.file)]
    chosen = set(random.Random(seed).sample(range(len(names)), min(count, len(names))))
    problems = []
    for number, (name, change) in enumerate(kind.changes(copy / kind.file)):
        if number not in chosen:
            continue
        # Some changes cannot be made: not every number is a text.
        with suppress(TypeError, ValueError, OSError, RuntimeError, ArithmeticError, LookupError):
            change()
        problems += [f"{name}: {problem}" for reader in kind.readers for problem in _problems(reader, copy / kind.file)]
        shutil.rmtree(copy)
        shutil.copytree(whole, copy, symlinks=True)
    return problems


def _problems(reader: Callable[[Path], object], path: Path) -> Iterator[str]:
    try:
        reader(path)
    except HierSAEError as error:
        if "\n" in error.message or "/" not in error.message:
            yield f"an unclear message: {error.message!r}"
    except Exception as error:
        # The command line has words for errors of the system, such as a link to itself.
        if isinstance(error, OSError) and error.errno and error.filename:
            return
        yield f"{type(error).__name__}: {str(error)[:200]}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
