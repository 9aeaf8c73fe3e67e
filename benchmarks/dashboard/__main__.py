"""How long the dashboard's index takes to build, its size, and the speed of its pages; with SAEDashboard.

    OMP_NUM_THREADS=2 python -m benchmarks.dashboard ACTS HOST [--latents 4096] [--l0 32] [--tokens 1M] [--json FILE]
    OMP_NUM_THREADS=2 python -m benchmarks.dashboard ACTS HOST --latents 100000 --tokens 100k --no-folder
    OMP_NUM_THREADS=2 python -m benchmarks.dashboard ACTS HOST --peer PEER/bin/python [--peer-features 256]

Pass the runs as --run and --baseline; otherwise the script makes one with a tree and one flat, of random directions
with thresholds that give --l0. Every step is the real command in a separate process; its peak memory includes pages of
mapped files. Pages are fetched from the server, one after another. Then Chromium opens the same pages, of the server
and of the folder, and counts what they write to its console.

--peer builds a page of SAEDashboard and a folder of ours for the same flat run on the same tokens, a part of ACTS.
Theirs has the first --peer-features latents, because its time and size grow with them; ours has all. The costs of one
latent are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.base import parse_count
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import SCHEMA, SCHEMA_VERSION, RunFolder
from hiersae_cli.levels import latent_id
from hiersae_cli.sae import HierarchicalSAE, build

SAMPLED_PAGES = 200
PEER_SCRIPT = Path(__file__).with_name("peer_saedashboard.py")


def make_run(path: Path, acts: ActivationSet, arch: str, latents: int, l0: float) -> None:
    """Make a run of random directions with mean L0 ``l0``, and with a random tree if ``arch`` has one."""
    parents = max(1, latents // 8)
    sizes: dict[str, Any] = {"widths": (latents,), "k": (l0,)}
    if arch == "hier":
        sizes = {"widths": (parents, latents - parents), "k": (l0 / 4, l0 * 3 / 4)}
    config = TrainConfig(acts=[], arch=arch, tokens=2048, **sizes)
    model = build(config, acts.width)
    rows = np.linspace(0, acts.rows - 1, 512).astype(int)
    x_BD = acts.rows_at(np.unique(rows)).float()
    mean_D, _ = acts.moments()
    model.initialise(torch.from_numpy(mean_D).float(), seed=0)
    with torch.no_grad():
        if isinstance(model, HierarchicalSAE):
            draw = torch.Generator().manual_seed(0)
            model.parent_F[parents:] = torch.randint(0, parents, (latents - parents,), generator=draw)
        residual_BD = x_BD - model.b_dec_D
        for level, part in enumerate(model.level_slices()):
            score = torch.relu(residual_BD @ model.W_enc_FD[part].T).square()
            lowest = score.flatten().topk(round(float(config.k[level]) * len(x_BD))).values[-1]
            price = model.price_on_F[0] if isinstance(model, HierarchicalSAE) else 1.0
            model.threshold_L[level] = lowest / price
            residual_BD = residual_BD - torch.where(score >= lowest, score.sqrt(), 0.0) @ model.W_dec_FD[part]
    folder = RunFolder(path)
    folder.write_header(
        {
            **header(SCHEMA, SCHEMA_VERSION, config, acts.fingerprints()),
            "module": acts.module,
            "width": acts.width,
            "host": acts.host,
        }
    )
    folder.write_model(model.weights(), config.steps, config.steps)


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "hiersae_cli", *map(str, args)]


def timed(*args: object) -> tuple[dict[str, Any], float, float]:
    """The JSON that a command prints, its seconds, and its peak memory in GB."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command(*args, "--json", "--quiet"), stdout=out)
        _, status, used = _wait(process)
        if status:
            raise SystemExit(f"{' '.join(map(str, args))}: exit code {status}")
        out.seek(0)
        return json.load(out), time.perf_counter() - started, used.ru_maxrss * 1024 / 1e9


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, int, resource.struct_rusage]:
    pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return pid, process.returncode, used


def served_pages(flags: list[object], ids: list[str], browser: bool) -> dict[str, Any]:
    """Milliseconds of pages from the real server, after it has started; with ``browser``, also in Chromium."""
    started = time.perf_counter()
    process = subprocess.Popen(command("dashboard", *flags, "--serve", "--port", 0), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = ""
        for line in process.stderr:
            if match := re.search(r"http://\S+/", line):
                address = match[0]
                break
        if not address:
            raise SystemExit("the server did not start")
        ready = time.perf_counter() - started
        overview = [fetched(address) for _ in range(3)]
        pages = [fetched(f"{address}feature/{id}") for id in ids]
        drawn = in_browser(address, ids) if browser else {}
    finally:
        process.terminate()
        process.wait()
    milliseconds = np.array([spent for spent, _ in pages]) * 1000
    return {
        "seconds_until_ready": ready,
        "first_overview_ms": overview[0][0] * 1000,
        "overview_ms": overview[-1][0] * 1000,
        "page_ms_median": float(np.median(milliseconds)),
        "page_ms_95": float(np.quantile(milliseconds, 0.95)),
        "page_ms_most": float(milliseconds.max()),
        "slowest": ids[int(milliseconds.argmax())],
        "page_bytes_mean": float(np.mean([size for _, size in pages])),
        **drawn,
    }


# From the change of the address to the first frame with the page.
_OPEN = """(path) => new Promise((resolve) => {
    const started = performance.now();
    const drawn = () => requestAnimationFrame(() => resolve(performance.now() - started));
    addEventListener("hiersae:open", drawn, { once: true });
    location.hash = path;
})"""
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def in_browser(address: str, ids: list[str]) -> dict[str, Any]:
    """Milliseconds until Chromium has loaded a page of a server, or has opened one of a folder, and its messages."""
    from docs.pictures import opened_page

    milliseconds = []
    with opened_page(1400, 1000) as (page, messages):
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        for id in ids:
            if address.startswith("file:"):
                milliseconds.append(page.evaluate(_OPEN, f"/feature/{id}"))
            else:
                page.goto(f"{address}feature/{id}", wait_until="load")
                milliseconds.append(page.evaluate(_LOADED))
    return {
        "browser_ms_median": float(np.median(milliseconds)),
        "browser_ms_most": float(np.max(milliseconds)),
        "console_messages": messages,
    }


def fetched(address: str) -> tuple[float, int]:
    """Seconds and bytes of a response."""
    started = time.perf_counter()
    with urllib.request.urlopen(address, timeout=60) as response:
        size = len(response.read())
    return time.perf_counter() - started, size


def sampled_ids(widths: list[int]) -> list[str]:
    """Latents of every level, evenly spaced, parents first."""
    share = SAMPLED_PAGES // len(widths)
    return [
        latent_id(level, latent)
        for level, width in enumerate(widths)
        for latent in np.unique(np.linspace(0, width - 1, share).astype(int)).tolist()
    ]


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure index, server and folder of a run and its baseline."""
    acts = ActivationSet([arguments.acts])
    run, baseline = (Path(arguments.run or scratch / "hier"), Path(arguments.baseline or scratch / "flat"))
    for path, arch, existing in ((run, "hier", arguments.run), (baseline, "batchtopk", arguments.baseline)):
        if not existing and not path.exists():
            make_run(path, acts, arch, arguments.latents, arguments.l0)
    acts.close()
    index = scratch / "index.h5"
    flags = [run, "--acts", arguments.acts, "--baseline", baseline, "--model", arguments.host, "--index", index]
    flags += ["--tokens", arguments.tokens]
    figures: dict[str, Any] = {
        "latents": arguments.latents,
        "tokens": arguments.tokens,
        "cpus": torch.get_num_threads(),
    }
    _, figures["index_seconds"], figures["index_peak_gb"] = timed("dashboard", *flags, "--rebuild")
    figures["index_bytes"] = index.stat().st_size
    widths = RunFolder(run).read_header()["config"]["widths"]
    ids = sampled_ids(widths)
    figures["served"] = served_pages(flags, ids, arguments.browser)
    if arguments.folder:
        folder = scratch / "pages"
        output, figures["folder_seconds"], figures["folder_peak_gb"] = timed(
            "dashboard", *flags, "-o", folder, "--overwrite"
        )
        figures["folder_bytes"] = output["bytes"]
        if arguments.browser:
            figures["folder"] = in_browser(Path(output["pages"]).absolute().as_uri(), ids)
    if arguments.peer:
        figures["peer"] = compare_with_peer(arguments, scratch, baseline)
    return figures


def compare_with_peer(arguments: argparse.Namespace, scratch: Path, flat: Path) -> dict[str, Any]:
    """Measure SAEDashboard and ours on the same flat run and tokens."""
    acts = ActivationSet([arguments.acts])
    position, tokens = acts.column("position"), acts.column("tokens")
    module = acts.module
    acts.close()
    context = int(position.max()) + 1
    windows = arguments.peer_tokens // context
    whole = position[: windows * context].reshape(windows, context)
    if not (whole == np.arange(context)).all():
        raise SystemExit(f"{arguments.acts}: SAEDashboard needs whole windows, which it does not start with")
    np.save(scratch / "tokens.npy", tokens[: windows * context].reshape(windows, context))
    timed("convert", flat, "--to", "sae-lens", "-o", scratch / "sae", "--overwrite")
    layer = re.findall(r"\d+", module)[0]
    peer_arguments = [
        arguments.host,
        scratch / "sae",
        scratch / "tokens.npy",
        layer,
        arguments.peer_features,
        scratch / "p.html",
    ]
    done = subprocess.run([arguments.peer, str(PEER_SCRIPT), *map(str, peer_arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"SAEDashboard failed:\n{done.stderr[-2000:]}")
    theirs = json.loads(done.stdout.splitlines()[-1])
    folder, index = scratch / "peer-pages", scratch / "peer.h5"
    flags = [flat, "--acts", arguments.acts, "--model", arguments.host, "--index", index]
    flags += ["--tokens", windows * context, "-o", folder, "--rebuild", "--overwrite"]
    output, seconds, peak = timed("dashboard", *flags)
    ours = {"seconds": seconds, "bytes": output["bytes"], "features": output["features"], "peak_gb": peak}
    ratios = {
        name: (theirs[name] / theirs["features"]) / (ours[name] / ours["features"]) for name in ("seconds", "bytes")
    }
    return {"theirs": theirs, "ours": ours, "times_less_a_latent": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("acts", help="a cache of the host's activations")
    parser.add_argument("host", help="the host model")
    parser.add_argument("--run", help="run with a tree (default: a random one)")
    parser.add_argument("--baseline", help="flat run (default: a random one)")
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--l0", type=float, default=32)
    parser.add_argument("--tokens", type=parse_count, default=10**6)
    parser.add_argument("--no-folder", dest="folder", action="store_false", help="leave out the folder of pages")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="leave out Chromium")
    parser.add_argument("--peer", metavar="PYTHON", help="Python of an environment that has sae-dashboard")
    parser.add_argument("--peer-features", type=int, default=256)
    parser.add_argument("--peer-tokens", type=parse_count, default=2**17)
    parser.add_argument("--scratch", help="folder for all files, which later runs use again")
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(arguments.scratch or temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        figures = measure(arguments, scratch)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
