"""Data for the scripts of the pages, as scripts: a page on a disk can load nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hiersae_cli.browse.tree_model import Overview
from hiersae_cli.pages.text import one_line


def tree(tree: Overview, widths: Sequence[int], order: list[int]) -> str:
    """The tree for the map, in columns; ``order`` is the number of every place in the files of contexts."""
    columns = {
        "widths": widths,
        "parent": tree.parent,
        "rate": _rounded(tree.rate),
        "over": _rounded(tree.mi_over_max),
        "bits": _rounded(tree.mi_bits),
        "fvu": _rounded(tree.fvu_increase),
        "lift": _rounded(tree.lift),
        "inside": _rounded(tree.p_parent_given_child),
        "share": _rounded(tree.share),
        "overlap": _rounded(tree.overlap),
        "alone": _rounded(tree.alone),
        "order": order,
        "rows": tree.rows,
        "dead": [place for place, dead in enumerate(tree.dead) if dead],
        "hint": [one_line(hint) for hint in tree.hint],
    }
    return script("tree", columns)


def script(name: str, data: Any, merge: bool = False) -> str:
    """The script that sets ``hiersae.NAME`` to ``data``, or adds the members of ``data`` to it."""
    # Parsing JSON is several times faster than parsing a literal of the same data.
    parsed = f"JSON.parse({json.dumps(json.dumps(data, separators=(',', ':')))})"
    value = f"Object.assign(hiersae.{name} ?? {{}}, {parsed})" if merge else parsed
    return f"(window.hiersae ??= {{}}).{name} = {value};\n"


def _rounded(figures: list[Any]) -> list[float | None]:
    """Three significant figures: more would not be visible in the map and would slow down the load of a large tree."""
    return [None if figure is None else float(f"{figure:.3g}") for figure in figures]
