"""What an index holds, and how it is stored: tables of its datasets, of the tables in it, and of its header.

Legend of shapes: R rows indexed, F latents of a dictionary, n firings of a dictionary in these rows.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from hiersae_cli.formats.fields import COMMON, COUNT, HOST, SIZE
from hiersae_cli.formats.fields import RUN as RUN_FIELDS
from hiersae_cli.formats.stored import CONTIGUOUS, Stored, check_datasets

RUN, BASELINE = "run", "baseline"  # the dictionaries

Array = np.ndarray[Any, Any]

# Every dataset. DICT is a dictionary; V is the number of tokens with a text, D of documents.
DATASETS: dict[str, Stored] = {
    "header": Stored("string"),
    "rows/cache_row": Stored("int64", ("R",), (CONTIGUOUS,)),
    "rows/token": Stored("int32", ("R",), (CONTIGUOUS,)),
    "rows/document": Stored("int32", ("R",), (CONTIGUOUS,)),
    "rows/position": Stored("int32", ("R",), (CONTIGUOUS,)),
    "rows/split": Stored("uint8", ("R",), (CONTIGUOUS,)),
    "documents": Stored("string", ("D",)),
    "vocabulary/id": Stored("int32", ("V",)),
    "vocabulary/text": Stored("string", ("V",)),
    "DICT/start_R": Stored("int64", ("R + 1",), (CONTIGUOUS,)),
    "DICT/latent": Stored("int32", ("n",), (CONTIGUOUS,)),
    "DICT/start_F": Stored("int64", ("F + 1",), (CONTIGUOUS,)),
    "DICT/row": Stored("int32", ("n",), (CONTIGUOUS,)),
    "DICT/value": Stored("float32", ("n",), (CONTIGUOUS,)),
}


def _table(kind: str, columns: int = 0, needed: bool = True) -> Stored:
    return Stored(kind, ("F", columns) if columns else ("F",), (CONTIGUOUS,), needed)


_LENS = {
    "promoted": _table("int32", 10, needed=False),
    "promoted_logits": _table("float32", 10, needed=False),
    "suppressed": _table("int32", 10, needed=False),
    "suppressed_logits": _table("float32", 10, needed=False),
}
# Figures of latents by dictionary.
TABLES: dict[str, dict[str, Stored]] = {
    RUN: {
        **_LENS,
        "own_tokens": _table("int32", 5, needed=False),  # version 1 had none
        "own_shares": _table("float32", 5, needed=False),
        "parent": _table("int64"),
        "active": _table("int64"),
        "both": _table("int64"),
        "active_soft": _table("int64", needed=False),
        "both_soft": _table("int64", needed=False),
        "fvu_increase": _table("float32"),
    },
    BASELINE: {
        **_LENS,
        "verdict": _table("uint8"),
        "part": _table("int32", 8),
        "share": _table("float32", 8),
        "within": _table("float32", 8),
        "counted": _table("uint8", 8),
        "covered": _table("float32"),
    },
}
_TOGETHER = (("promoted", "promoted_logits"), ("suppressed", "suppressed_logits"), ("own_tokens", "own_shares"))
HEADER: dict[str, Any] = {
    **COMMON,
    "made_of": {
        "run": str,
        "acts": [str],
        "baseline": (str, None),
        "host": (str, None),
        "rows": COUNT,
        "seed": int,
    },
    "run": {**RUN_FIELDS, "widths": [SIZE]},
    "baseline": (RUN_FIELDS, None),
    "host": HOST,
    "tokens": str,
}


def check_dictionary(file: h5py.File, name: str, sizes: dict[str, int]) -> int:
    """Check the datasets of a dictionary, and return the number of its latents."""
    for letter in ("n", "F"):
        sizes.pop(letter, None)
    lists = {path.replace("DICT", name): stored for path, stored in DATASETS.items() if path.startswith("DICT/")}
    check_datasets(file, lists, sizes)
    check_datasets(file, {f"{name}/tables/{table}": stored for table, stored in TABLES[name].items()}, sizes)
    for first, second in _TOGETHER:
        if (f"{name}/tables/{first}" in file) != (f"{name}/tables/{second}" in file):
            raise ValueError(f"{name}/tables has only one of {first} and {second}")
    return sizes["F"]


def check_starts(start: Array, firings: int) -> None:
    """Raise ``ValueError`` unless ``start`` begins at 0, ends at the number of firings, and never falls."""
    if start[0] != 0 or start[-1] != firings or (np.diff(start) < 0).any():
        raise ValueError("the firings of a row or a latent do not begin where the ones before it end")


def check_range(name: str, values: Array, first: int, end: int) -> None:
    """Raise ``ValueError`` for a number below ``first``, or from ``end`` on."""
    if values.size and not first <= values.min() <= values.max() < end:
        raise ValueError(f"{name} holds a number that is not from {first} to {end - 1:,}")
