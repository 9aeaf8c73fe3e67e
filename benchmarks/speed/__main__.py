"""Tokens a second of a training step and of encoding, of ours and its peers, and the cost of each part of our step.

    python -m benchmarks.speed --latents 16384,131072 --d 512 --k 32 --batch 2048 --json speed.json \\
        --plot speed.html

Every implementation and size runs in a separate process; they take turns for --rounds, forwards and backwards. A row
has the median over the steps of all rounds. A step includes forward, backward, clipping if it is the tool's default,
the optimizer, and the decoder rows' norm. Peers: ``pip install -r benchmarks/requirements-speed.txt``; missing ones are
reported.

Legend of shapes: B rows, D width.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.cases import CASES
from hiersae_cli.device import keep_freed_memory
from hiersae_cli.workflows import bench


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure an implementation in this process."""
    if name in bench.CASES:
        keep_freed_memory()  # as ``hiersae train`` does
    size = bench.Size(
        options.latents[0],
        options.d,
        options.k,
        options.batch,
        options.dtype,
        options.moments,
        options.compile,
        options.device,
    )
    try:
        package_version = version(CASES[name].package)
        case = CASES[name](size)
    except (ImportError, PackageNotFoundError) as error:
        return {"implementation": name, "absent": str(error)}
    timings = bench.measure(case, options.warmup, options.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {
        "implementation": name,
        "version": package_version,
        "latents": size.latents,
        "peak_mb": round(peak),
        "dtype": size.dtype,
        "device": size.device,
        **asdict(timings),
    }


def child(name: str, latents: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure an implementation in a separate process."""
    flags = [
        f"--{key}={getattr(options, key)}"
        for key in ("d", "k", "batch", "dtype", "moments", "device", "steps", "warmup")
    ]
    flags += ["--compile"] if options.compile else []
    command = [sys.executable, "-m", "benchmarks.speed", "--measure", name, f"--latents={latents}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return {"implementation": name, "latents": latents, "failed": last_line}
    return {"latents": latents, **json.loads(done.stdout.splitlines()[-1])}


def joined(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The row for all rounds of an implementation; a failed or missing one if there is any."""
    for measured in rounds:
        if "steps" not in measured:
            return measured
    last, batch = rounds[-1], rounds[-1].pop("batch")
    timings = bench.Timings(
        steps=[seconds for measured in rounds for seconds in measured["steps"]],
        codes=[seconds for measured in rounds for seconds in measured["codes"]],
        parts={part: statistics.median(measured["parts"][part] for measured in rounds) for part in last["parts"]},
        counted=last["counted"],
    )
    return {
        **last,
        **bench.summary(timings, batch),
        "steps": len(timings.steps),
        "codes": len(timings.codes),
        "peak_mb": max(measured["peak_mb"] for measured in rounds),
    }


def show(rows: list[dict[str, Any]], rates: dict[str, Any]) -> None:
    """Print tables in Markdown: rates, their ratios to ours, and the parts of our steps."""
    print("machine:", json.dumps(rates))
    print("| implementation | latents | step, ms | tokens/s | ours / it | encode, tokens/s | ours / it | peak, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    ours = {row["latents"]: row for row in rows if row["implementation"] == "hiersae" and "step_ms" in row}
    for row in rows:
        name = row["implementation"]
        if "step_ms" not in row:
            print(f"| {name} | {row['latents']:,} | {row.get('absent') or row.get('failed')} | | | | | |")
            continue
        our_row = ours.get(row["latents"])
        ratios = [f"{row[key] / our_row[key]:.2f}" if our_row else "" for key in ("step_ms", "encode_ms")]
        print(
            f"| {name} {row['version']} | {row['latents']:,} "
            f"| {row['step_ms']:.1f} | {row['tokens_per_s']:,} | {ratios[0]} "
            f"| {row['encode_tokens_per_s']:,} | {ratios[1]} | {row['peak_mb']:,} |"
        )
    print("\n".join(bench.parts_of(ours.values())))


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Draw tokens a second by latents, both on logarithmic axes."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in dict.fromkeys(row["implementation"] for row in rows if "step_ms" in row):
        points = [row for row in rows if row["implementation"] == name and "step_ms" in row]
        figure.add_scatter(x=[row["latents"] for row in points], y=[row["tokens_per_s"] for row in points], name=name)
    figure.update_xaxes(type="log", title="latents")
    figure.update_yaxes(type="log", title="tokens a second, training")
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--latents", type=lambda text: [int(part) for part in text.split(",")], default=[16_384, 131_072]
    )
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of products")
    parser.add_argument("--moments", choices=("float32", "bfloat16"), default="float32", help="of our row-adam")
    parser.add_argument("--compile", action="store_true", help="compile our row-adam's moves with torch.compile")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--implementations", default=",".join(CASES))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", help="file to write the rows to")
    parser.add_argument("--plot", help="HTML file to draw the rates in")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return
    names = options.implementations.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"--implementations {unknown[0]}: one of {', '.join(CASES)}")
    rates, rows = bench.machine(options.device), []
    for latents in options.latents:
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                rounds[name].append({**child(name, latents, options), "batch": options.batch})
        rows += [joined(results) for results in rounds.values()]
    for row in rows:
        if row["implementation"] == "hiersae" and "counted" in row:
            row["at_best"] = bench.bounds(row["counted"], rates, options.dtype)
    show(rows, rates)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": rates, "rows": rows}, indent=1))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
