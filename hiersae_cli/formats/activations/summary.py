"""What ``cache``, ``join`` and ``info`` say about a cache."""

from __future__ import annotations

from typing import Any

from hiersae_cli.formats.activations import DROPPED, HELD_OUT, TRAIN, Activations

SPLITS = {"train": TRAIN, "held_out": HELD_OUT, "dropped": DROPPED}


def summary_of(acts: Activations) -> dict[str, Any]:
    """The cache as the plain values that ``--json`` prints."""
    split = acts.column("split")
    return {
        "file": str(acts.path),
        "rows": acts.rows,
        "documents": acts.documents,
        "splits": {name: int((split == value).sum()) for name, value in SPLITS.items()},
        "modules": {
            module: {
                "width": acts.width(module),
                "dtype": acts.dtype(module),
                "median_norm": float(acts.statistics(module)["median_norm"]),
                "outliers": int(acts.statistics(module)["outliers"]),
                "outliers_dropped": bool(acts.header["config"].get("drop_outliers")),
                "train": int(acts.usable(module, TRAIN).sum()),
                "held_out": int(acts.usable(module, HELD_OUT).sum()),
            }
            for module in acts.modules
        },
        "fingerprint": acts.fingerprint,
    }


def row_uses(module: dict[str, Any], dropped: int) -> str:
    """The use of a module's rows, in one sentence; ``dropped`` rows are left out by their position."""
    outliers = f"{module['outliers']:,} outliers (norm over 10 x the median)"
    left_out = [f"{dropped:,} by position"] * bool(dropped)
    left_out += [outliers] * (module["outliers"] > 0 and module["outliers_dropped"])
    words = f"{module['train']:,} rows to train on, {module['held_out']:,} held out"
    if left_out:
        words += f"; left out: {' and '.join(left_out)}"
    return words if module["outliers_dropped"] or not module["outliers"] else f"{words}, {outliers} among them"
