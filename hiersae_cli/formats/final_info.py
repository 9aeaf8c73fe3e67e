"""The results of a run of the experiment: ``final_info.json``, ``all_results.json`` and ``all_results.npy``.

Readers of such experiments expect this layout, and ``all_results.npy`` as a pickle. It is written for them and never
read here, since loading a pickle runs the code in it; ``all_results.json`` has the same content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hiersae_cli.formats import atomic

FINAL_INFO, ALL_RESULTS = "final_info.json", "all_results"

Values = Sequence[float | None]


def mean(values: Values) -> float | None:
    """The mean; None if a value is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def standard_error(values: Values) -> float | None:
    """s / √n with the deviation s of a sample (n - 1 below); None for fewer than two values, or if one is missing."""
    known = [value for value in values if value is not None]
    return stdev(known) / len(known) ** 0.5 if len(known) > 1 and len(known) == len(values) else None


def summarised(of_seeds: Mapping[str, Values]) -> dict[str, Any]:
    """The entry of one data set: ``means``, ``stderrs`` and ``final_info_dict``, the values of each seed."""
    return {
        "means": {f"{key}_mean": mean(values) for key, values in of_seeds.items()},
        "stderrs": {f"{key}_stderr": standard_error(values) for key, values in of_seeds.items()},
        "final_info_dict": {key: list(values) for key, values in of_seeds.items()},
    }


def write(folder: Path, info: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write all three files, ``final_info.json`` last: a run that has it is complete."""
    import numpy as np

    atomic.write_json(folder / f"{ALL_RESULTS}.json", results)
    with atomic.replacing(folder / f"{ALL_RESULTS}.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.array(dict(results), dtype=object), allow_pickle=True)
    atomic.write_json(folder / FINAL_INFO, info)
