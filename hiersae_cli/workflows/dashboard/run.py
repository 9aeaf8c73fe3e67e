"""``hiersae dashboard``: run folder + acts.h5 (+ baseline, host, report) -> an index, and pages made from it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.index import summary as report_summary
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import ActivationSet, outliers
from hiersae_cli.formats.atomic import human_bytes, refuse_folder
from hiersae_cli.formats.labels import Labels
from hiersae_cli.formats.report import load_report
from hiersae_cli.formats.run import Run, load_run
from hiersae_cli.host.model import Host
from hiersae_cli.pages import static
from hiersae_cli.reading import reading
from hiersae_cli.workflows.common.inputs import load_host, open_acts
from hiersae_cli.workflows.dashboard.build_index import ensure_index
from hiersae_cli.workflows.dashboard.neuronpedia import TREE_FILE, is_ours, write_feature_rows
from hiersae_cli.workflows.dashboard.text_encoder import TextEncoder
from hiersae_cli.workflows.label import default_author


def run(config: DashboardConfig, console: Console | None = None) -> dict[str, Any]:
    """Build or open the index and write the outputs; returns the summary that ``--json`` prints.

    Serving ends with Ctrl-C. Raises as ``open_dashboard`` does, and before any work if an output exists.
    """
    console = console or Console.silent()
    if config.out:
        refuse_folder(config.out, config.overwrite, {"index.html", "assets"}.__contains__)
    if config.neuronpedia:
        refuse_folder(config.neuronpedia, config.overwrite, is_ours)
    index, host = open_dashboard(config, console)
    path, features = index.file.path, len(index.ids())
    console.say(f"{path}: {features:,} features on {index.file.rows:,} rows; {human_bytes(path.stat().st_size)}")
    summary: dict[str, Any] = {"index": str(path), "features": features, "rows": index.file.rows}
    if config.neuronpedia and host:
        with console.progress("rows", features, "features") as progress:
            summary["files"] = write_feature_rows(index, host, config, progress.advance, console)
        console.say(f"{config.neuronpedia}: {summary['files']:,} files of feature rows, and {TREE_FILE}")
    if config.out:
        with console.progress("pages", features + index.baseline_latents(), "features") as progress:
            written = static.write(index, Path(config.out), advance=progress.advance)
        console.say(f"{written.path}: {written.pages:,} pages, {human_bytes(written.size)}")
        summary |= {"pages": str(written.path), "bytes": written.size}
    if config.serve:
        _serve(config, index, console)
    return summary


def open_dashboard(config: DashboardConfig, console: Console | None = None) -> tuple[Index, Host | None]:
    """The index of a run, built first if it does not exist, and the host model, if it was named.

    Raises ``UsageError`` and ``FileError``, before any work, if run, baseline, caches, host and report do not belong
    together, or the existing index was built from other inputs; ``Interrupted`` if the user stops the building.
    """
    console = console or Console.silent()
    device = resolve_device(config.device)
    run = load_run(config.run, device)
    baseline = _baseline(config, run, device)
    report = _report(config)
    acts = open_acts(run, config.acts)
    if warning := outliers.warning(acts):
        console.warn(warning)
    host = load_host(config.model, run, acts, device, console) if config.model else None
    labels = Labels(config.run, run.sha256)
    labels.current()  # a file that cannot be read is an error before the work, not after it
    file = ensure_index(config, run, baseline, acts, host, device, console)
    encoder = TextEncoder(host, run, *_window(acts)) if host else None
    acts.close()
    warnings = [warning] if warning else []
    index = Index(file, _decoder(run), labels, _decoder(baseline) if baseline else None, report, encoder, warnings)
    return index, host


def _serve(config: DashboardConfig, index: Index, console: Console) -> None:
    from hiersae_cli.pages import server

    if config.host_address not in server.LOOPBACK:
        console.warn(f"--host-address {config.host_address}: others may read the texts and change the labels")
    with contextlib.suppress(KeyboardInterrupt):  # how serving ends
        server.serve(
            index,
            host=config.host_address,
            port=config.port,
            author=config.author or default_author(),
            ready=lambda address: console.say(f"serving at {address} (Ctrl-C ends it)"),
        )


def _baseline(config: DashboardConfig, run: Run, device: torch.device) -> Run | None:
    if not config.baseline:
        return None
    baseline = load_run(config.baseline, device)
    for what, ours, theirs in (
        ("module", run.module, baseline.module),
        ("width", run.model.width, baseline.model.width),
        ("host", run.header["host"]["fingerprint"], baseline.header["host"]["fingerprint"]),
    ):
        if ours != theirs:
            raise FileError(
                f"{config.baseline}: its {what} ({theirs}) is not that of {config.run} ({ours})",
                "Give a baseline that was trained on the same activations.",
            )
    if baseline.model.learned_F is not None:
        raise UsageError(
            f"--baseline {config.baseline}: a hierarchical run", "Give a flat one: batchtopk, topk, jumprelu …"
        )
    return baseline


def _report(config: DashboardConfig) -> dict[str, Any] | None:
    if not config.report:
        return None
    report = load_report(config.report).data
    with reading(config.report, "Evaluate again with 'hiersae eval'."):
        report_summary(report)
    return report


def _window(acts: ActivationSet) -> tuple[int, int | None]:
    """The longest window of a cache, and the token that begins each, if one does."""
    first = acts.caches[0]
    return int(first.column("position").max()) + 1, first.header["host"].get("bos")


def _decoder(run: Run) -> np.ndarray:
    decoder_FD: np.ndarray = run.model.W_dec_FD.detach().float().cpu().numpy()
    return decoder_FD
