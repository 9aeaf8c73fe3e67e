"""What ``hiersae info`` says of a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hiersae_cli.errors import FileError
from hiersae_cli.formats.activations import outliers
from hiersae_cli.formats.activations.activation_set import ActivationSet
from hiersae_cli.formats.activations.reader import Activations
from hiersae_cli.formats.activations.sampled import spectrum_of
from hiersae_cli.formats.activations.summary import SPLITS, row_uses, summary_of
from hiersae_cli.formats.activations.writer import summarise
from hiersae_cli.formats.described import Described, Lines, host_line
from hiersae_cli.formats.hdf5 import attributes
from hiersae_cli.metrics.spectrum import Spectrum, in_words

_WIDEST = 2048  # modules whose spectrum takes a few seconds at most
_PCA_K = (8, 16, 32, 64)
_TOLERANCE = 1e-6  # of statistics: sums may be taken in another order elsewhere


def describe(path: Path, verify: bool) -> Described:
    """A cache, finished or not; raises ``FileError`` if it is damaged."""
    with Activations(path, allow_unfinished=True) as acts:
        complete = bool(acts.fingerprint) and acts.rows_committed == acts.rows
        header = acts.header
        split = acts.column("split")
        if split.size and split.max() > max(SPLITS.values()):
            raise ValueError(f"split holds {split.max()}")
        splits = {name: int((split == value).sum()) for name, value in SPLITS.items()}
        modules: dict[str, dict[str, Any]]
        modules = {name: {"width": acts.width(name), "dtype": acts.dtype(name)} for name in acts.modules}
        if complete:
            modules = summary_of(acts)["modules"]
        shards = header.get("shards", [])
        details: dict[str, Any] = {
            "rows": acts.rows,
            "rows_committed": acts.rows_committed,
            "documents": acts.documents,
            "splits": splits,
            "modules": modules,
            "host": header["host"],
            "shards": shards,
            "fingerprint": acts.fingerprint,
        }
        lines: Lines = [("rows", f"{acts.rows:,} of {acts.documents:,} documents")]
        if not complete:
            lines.append(("", ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in splits.items())))
        for name, module in modules.items():
            lines.append(("module", f"{name}, width {module['width']:,}, {module['dtype']}"))
            if complete:
                lines.append(("", f"{row_uses(module, splits['dropped'])}; median norm {module['median_norm']:.4g}"))
                warning, spectrum = _examined(path, name)
                pca_fvu = {str(k): spectrum.pca_fvu(k) for k in _PCA_K if k < spectrum.width} if spectrum else {}
                module["warning"] = warning
                module["spectrum"] = {**spectrum.as_json(), "pca_fvu": pca_fvu} if spectrum else None
                if spectrum:
                    kept = module["outliers"] > 0 and not module["outliers_dropped"]
                    lines.append(("", "without outliers: " * kept + in_words(module["spectrum"])))
                if pca_fvu:
                    lines.append(("", f"FVU of PCA {', '.join(f'{fvu:.3g} at k {k}' for k, fvu in pca_fvu.items())}"))
                lines += [("warning", warning)] * bool(warning)
        lines.append(host_line(header["host"]))
        if acts.truth is not None:
            truth = {"features": len(acts.truth), "edges": int((acts.truth.parent_N >= 0).sum())}
            details["truth"] = truth
            lines.append(("truth", f"{truth['features']:,} features, {truth['edges']:,} of them with a parent"))
        if shards:
            lines.append(("shards", ", ".join(shards)))
        if complete:
            lines.append(("fingerprint", acts.fingerprint))
            if verify:
                _verify(acts)
        return Described(
            "cache, joined" if shards else "cache",
            {**attributes(acts.file), **header},
            details,
            lines,
            "" if complete else f"{acts.rows_committed:,} of {acts.rows:,} rows are written",
            "hiersae cache",
            "the content has the fingerprint and the statistics that the file says" if verify and complete else "",
        )


def _examined(path: Path, module: str) -> tuple[str, Spectrum | None]:
    """A warning about outliers, if one is due, and the spectrum of the rows, if it takes no more than a few seconds."""
    acts = ActivationSet([str(path)], module)
    try:
        return outliers.warning(acts), spectrum_of(acts) if acts.width <= _WIDEST else None
    finally:
        acts.close()


def _verify(acts: Activations) -> None:
    """Raise ``FileError`` if the file's own summary is not that of its content."""
    for name, computed in summarise(acts.path).items():
        stored = acts.file[name][()]
        if name == "fingerprint":
            same = stored == computed[()]
        elif not np.isfinite(computed).all():
            raise FileError(f"{acts.path}: its activations are not all finite", "Make it again with 'hiersae cache'.")
        else:
            same = np.allclose(stored, computed, rtol=_TOLERANCE, atol=_TOLERANCE * float(np.abs(computed).max()))
        if not same:
            raise FileError(
                f"{acts.path}: damaged: its {name} is not that of its content", "Make it again with 'hiersae cache'."
            )
