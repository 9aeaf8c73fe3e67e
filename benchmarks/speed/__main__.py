"""Tokens a second of a training step and of encoding, ours beside its peers, and what each part of our step costs.

    python -m benchmarks.speed --latents 16384,131072 --d 512 --k 32 --batch 2048 --json speed.json \\
        --plot speed.html

Every implementation and size is a process of its own; they take turns for --rounds, forwards and backwards. A row has
the median over the steps of all rounds. A step is all of it: forward, backward, clipping where it is the tool's own
default, the optimizer, decoder rows' norm. Peers: ``pip install -r benchmarks/requirements-speed.txt``; one that is
absent is reported.

Legend of shapes: B rows, D width.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.cases import CASES
from hiersae_cli.device import keep_freed_memory
from hiersae_cli.workflows import bench


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One process's work."""
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
        found_version = version(CASES[name].package)
        case = CASES[name](size)
    except (ImportError, PackageNotFoundError) as error:
        return {"implementation": name, "absent": str(error)}
    found = bench.measure(case, options.warmup, options.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {
        "implementation": name,
        "version": found_version,
        "latents": size.latents,
        "peak_mb": round(peak),
        "dtype": size.dtype,
        "device": size.device,
        **found,
    }


def child(name: str, latents: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    given = [
        f"--{key}={getattr(options, key)}"
        for key in ("d", "k", "batch", "dtype", "moments", "device", "steps", "warmup")
    ]
    given += ["--compile"] if options.compile else []
    command = [sys.executable, "-m", "benchmarks.speed", "--one", name, f"--latents={latents}", *given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return {"implementation": name, "latents": latents, "failed": last}
    return {"latents": latents, **json.loads(done.stdout.splitlines()[-1])}


def joined(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of all rounds."""
    if any("steps" not in one for one in rounds):
        return next(one for one in rounds if "steps" not in one)
    found = {key: [value for one in rounds for value in one[key]] for key in ("steps", "codes")}
    last, batch = rounds[-1], rounds[-1].pop("batch")
    found["parts"] = {part: statistics.median(one["parts"][part] for one in rounds) for part in last["parts"]}
    found["counted"] = last["counted"]
    return {
        **last,
        **bench.summary(found, batch),
        "steps": len(found["steps"]),
        "codes": len(found["codes"]),
        "peak_mb": max(one["peak_mb"] for one in rounds),
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
        base = ours.get(row["latents"])
        ratios = [f"{row[key] / base[key]:.2f}" if base else "" for key in ("step_ms", "encode_ms")]
        print(
            f"| {name} {row['version']} | {row['latents']:,} "
            f"| {row['step_ms']:.1f} | {row['tokens_per_s']:,} | {ratios[0]} "
            f"| {row['encode_tokens_per_s']:,} | {ratios[1]} | {row['peak_mb']:,} |"
        )
    print("\n".join(bench.parts_of(ours.values())))


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Tokens a second by latents, both logarithmic."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in dict.fromkeys(row["implementation"] for row in rows if "step_ms" in row):
        own = [row for row in rows if row["implementation"] == name and "step_ms" in row]
        figure.add_scatter(x=[row["latents"] for row in own], y=[row["tokens_per_s"] for row in own], name=name)
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
    parser.add_argument("--compile", action="store_true", help="our row-adam's moves by torch.compile")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--implementations", default=",".join(CASES))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", help="file to write the rows to")
    parser.add_argument("--plot", help="HTML file to draw the rates in")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    names = options.implementations.split(",")
    wrong = [name for name in names if name not in CASES]
    if wrong:
        parser.error(f"--implementations {wrong[0]}: one of {', '.join(CASES)}")
    rates, rows = bench.machine(options.device), []
    for latents in options.latents:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                found[name].append({**child(name, latents, options), "batch": options.batch})
        rows += [joined(rounds) for rounds in found.values()]
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
