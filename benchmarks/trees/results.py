"""The file and the table of ``trees.py``."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from scipy.stats import t as student

from benchmarks.trees.measures import Measured
from hiersae_cli.console import Console
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.atomic import read_json, replacing, write_json
from hiersae_cli.metrics.stability import recurring_edges
from hiersae_cli.render.svg import STYLE, figure, svg

_LIBRARIES = ("hiersae", "torch", "numpy", "scipy", "sae-lens")
# Two tables, for one would be too wide: figures of rows by their headings.
_TABLES = {
    "dictionary": {
        "F1": "f1",
        "MCC": "mcc",
        "uniqueness": "uniqueness",
        "L0": "l0",
        "FVU": "fvu",
        "bits": "bits_per_token",
        "seconds": "seconds",
    },
    "tree": {
        "edge F1": "edge_f1",
        "precision": "edge_precision",
        "recall": "edge_recall",
        "bits": "bits_per_token_tree",
        "P(parent|child)": "p_parent_given_child",
        "hierarchy score": "hierarchy_score",
        "stability": "stability",
    },
}
_AGAINST = {"fvu": "FVU", "bits_per_token_tree": "bits a token under the tree"}
_SETTING = ("", "samples", "L0 wanted", "seeds")
_ALIKE = ("arch", "samples", "l0_wanted", "options", "tries", "data")  # in what the rows of one line of the table agree


class Results:
    """Rows in a JSON file, which several processes may add to, and dictionaries in the folder beside it."""

    def __init__(self, path: Path, device: torch.device):
        if path.suffix != ".json":
            raise UsageError(f"--json {path}: must end in .json", "What comes before is the folder of dictionaries.")
        self.path, self.folder, self.device = path, path.with_suffix(""), device
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not path.exists():
                write_json(path, {"machine": _machine(device), "versions": _versions(), "rows": []})

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows of the file."""
        return list(read_json(self.path)["rows"])

    def has(self, key: dict[str, Any]) -> bool:
        """Whether the training that ``key`` describes has its rows."""
        plain = json.loads(json.dumps(key))
        return any(all(row[name] == value for name, value in plain.items()) for row in self.rows)

    def add(
        self, key: dict[str, Any], trainer: str, seconds: float, decoder_FD: torch.Tensor, measured: list[Measured]
    ) -> None:
        """Add a row for each tree, and one for the better of post-hoc ones, under the name without a tree."""
        best = max(measured, key=lambda each: _merit(each.figures))
        named = {key["arch"]: best} | {f"{key['arch']}+{each.tree}": each for each in measured if each.tree}
        dictionary = self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz"
        with replacing(dictionary) as temporary, open(temporary, "wb") as file:
            trees = {arch: each.parent_F for arch, each in named.items()}
            np.savez(file, decoder_FD=decoder_FD.detach().cpu().numpy(), **trees)
        rows = [
            {**key, "arch": arch, "trainer": trainer, **each.figures, "seconds": seconds, "dictionary": dictionary.name}
            for arch, each in named.items()
        ]
        with self._locked():
            content = read_json(self.path)
            content["rows"] += rows
            write_json(self.path, content)

    def stability(self, rows: list[dict[str, Any]]) -> float | None:
        """Mean share of edges that recur, over all pairs of rows; None for a single row."""
        kept = []
        for row in rows:
            with np.load(self.folder / row["dictionary"]) as content:
                kept.append((torch.from_numpy(content["decoder_FD"]), content[row["arch"]]))
        shares = [recurring_edges(*one, *other) for one, other in combinations(kept, 2)]
        return float(np.mean(shares)) if shares else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _groups(results: Results, suite: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of a suite that differ in their seed alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in results.rows:
        if row["suite"] == suite:
            groups.setdefault(json.dumps([row[name] for name in _ALIKE]), []).append(row)
    return groups


def _changed(first: dict[str, Any], usual: dict[str, dict[str, Any]]) -> list[str]:
    """The options of a row that are not the usual ones of its kind."""
    ours = usual[next(kind for kind in usual if first["arch"].startswith(kind))]
    return [f"{name}={value}" for name, value in first["options"].items() if ours.get(name) != value]


def plot(results: Results, suite: str, usual: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw containment, that is P(parent|child), against FVU and against bits under the tree: an SVG of means."""
    with rc_context(STYLE):
        drawn, axes = figure(len(_AGAINST), 1.6)
        for rows in _groups(results, suite).values():
            first = rows[0]
            if first["p_parent_given_child"] is None or "+" in first["arch"]:
                continue
            label = " ".join([first["arch"], *_changed(first, usual)])
            for axis, (name, title) in zip(axes, _AGAINST.items(), strict=True):
                x, y = (np.mean([row[each] for row in rows]) for each in ("p_parent_given_child", name))
                axis.plot(x, y, "o" if first["arch"].startswith("hier") else "s", label=label)
                axis.set(xlabel="P(parent|child)", ylabel=title)
        drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
        with replacing(path) as temporary:
            temporary.write_text(svg(drawn))


def show(results: Results, suite: str, usual: dict[str, dict[str, Any]], console: Console) -> None:
    """The tables of a suite: means over seeds with 95 % intervals (Student's t); options that are not ``usual``."""
    groups = _groups(results, suite)
    stability = {alike: results.stability(rows) for alike, rows in groups.items()}
    for title, columns in _TABLES.items():
        lines = []
        for alike, rows in groups.items():
            first = rows[0]
            changed = _changed(first, usual)
            figures = [[stability[alike]] if n == "stability" else [row[n] for row in rows] for n in columns.values()]
            # Every row of the dictionary's table would stand there once for each of its trees.
            if title == "tree" or "+" not in first["arch"]:
                setting = [
                    " ".join([first["arch"], *changed]),
                    f"{first['samples'] / 1e6:g}M",
                    f"{first['l0_wanted']:g}",
                ]
                lines.append([*setting, str(len(rows)), *map(_interval, figures)])
        console.table(f"{suite}, {title}: mean and 95 % interval over seeds", [*_SETTING, *columns], lines)


def _merit(figures: dict[str, float | None]) -> float:
    """By what the better of two post-hoc trees is chosen."""
    merit = figures["hierarchy_score"] if figures["edge_f1"] is None else figures["edge_f1"]
    return -1.0 if merit is None else merit


def _interval(values: list[float | None]) -> str:
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return "-"
    digits = 3 if abs(known).max() < 2 else 1
    if len(known) == 1:
        return f"{known[0]:.{digits}f}"
    half = student.ppf(0.975, len(known) - 1) * known.std(ddof=1) / len(known) ** 0.5
    return f"{known.mean():.{digits}f} ±{half:.{digits}f}"


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        each.name: each.version for each in distributions() if each.name in _LIBRARIES
    }
