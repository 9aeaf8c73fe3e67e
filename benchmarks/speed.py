"""Tokens a second of a training step and of encoding, ours beside its peers, and what each part of our step costs.

    python benchmarks/speed.py --latents 16384,131072 --d 512 --k 32 --batch 2048 --json speed.json \\
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
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from speed_cases import CASES, Ours

BATCHES = 4  # different ones, by turns


def activations(rows: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Rows (B, D) with 32 of 4,096 random directions each, and a little noise."""
    directions_ND = torch.nn.functional.normalize(torch.randn(4096, width, generator=generator), dim=1)
    active_BK = torch.randint(0, 4096, (rows, 32), generator=generator)
    return torch.nn.functional.embedding_bag(active_BK, directions_ND, mode="sum") + 0.1 * torch.randn(
        rows, width, generator=generator
    )


def seconds(of: Callable[[torch.Tensor], object], batches: list[torch.Tensor], times: int) -> list[float]:
    """Seconds of each of ``times`` calls."""
    found = []
    for number in range(times):
        begun = time.perf_counter()
        of(batches[number % len(batches)])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return found


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One process's work."""
    from hiersae_cli.device import keep_freed_memory

    if name.startswith("hiersae"):
        keep_freed_memory()  # as ``hiersae train`` does
    try:
        found_version = version(CASES[name].package)
        case = CASES[name](options)
    except (ImportError, PackageNotFoundError) as error:
        return {"implementation": name, "absent": str(error)}
    generator = torch.Generator().manual_seed(0)
    batches = [activations(options.batch, options.d, generator).to(options.device) for _ in range(BATCHES)]
    seconds(case.step, batches, options.warmup)
    steps = seconds(case.step, batches, options.steps)
    if isinstance(case, Ours):
        case.watch()
        seconds(case.step, batches, options.steps)
        case.parts = {part: 1e3 * spent / options.steps for part, spent in case.parts.items()}
        case.count(batches[0])
    seconds(case.encode, batches, 2)
    codes = seconds(case.encode, batches, options.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {
        "implementation": name,
        "version": found_version,
        "latents": options.latents[0],
        "steps": steps,
        "codes": codes,
        "peak_mb": round(peak),
        "dtype": options.dtype,
        "device": options.device,
        "parts": case.parts,
        "counted": case.counted,
    }


def machine(device: str) -> dict[str, Any]:
    """What the machine can do: a large product in each type, and a copy, in units of 1e9 a second."""
    a, b = (torch.randn(2048, 2048, device=device) for _ in range(2))
    long = torch.zeros(1 << 26, device=device)
    other = torch.ones_like(long)
    rates = {}
    for what, of, work in (
        ("gflops_float32", lambda: torch.mm(a, b), 2 * 2048**3),
        ("gflops_bfloat16", lambda: torch.mm(a.bfloat16(), b.bfloat16()), 2 * 2048**3),
        ("gbytes_copied", lambda: other.copy_(long), 2 * 4 * len(long)),
    ):
        rates[what] = round(work / min(seconds(lambda _, of=of: of(), [a], 7)) / 1e9, 1)
    return {**rates, "threads": torch.get_num_threads(), "torch": torch.__version__, "processor": platform.processor()}


def child(name: str, latents: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    given = [
        f"--{key}={getattr(options, key)}"
        for key in ("d", "k", "batch", "dtype", "moments", "device", "steps", "warmup")
    ]
    command = [sys.executable, __file__, "--one", name, f"--latents={latents}", *given]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return {"implementation": name, "latents": latents, "failed": last}
    return {"latents": latents, **json.loads(done.stdout.splitlines()[-1])}


def joined(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of all rounds."""
    if any("steps" not in one for one in rounds):
        return next(one for one in rounds if "steps" not in one)
    steps, codes = ([value for one in rounds for value in one[key]] for key in ("steps", "codes"))
    last, batch = rounds[-1], rounds[-1].pop("batch")
    step, code = statistics.median(steps), statistics.median(codes)
    parts = {part: statistics.median(one["parts"][part] for one in rounds) for part in last["parts"]}
    return {
        **last,
        "steps": len(steps),
        "step_ms": round(1e3 * step, 2),
        "tokens_per_s": round(batch / step),
        "codes": len(codes),
        "encode_ms": round(1e3 * code, 2),
        "encode_tokens_per_s": round(batch / code),
        "peak_mb": max(one["peak_mb"] for one in rounds),
        "parts": {part: round(spent, 2) for part, spent in parts.items()},
    }


def bounds(counted: dict[str, float], rates: dict[str, Any], dtype: str) -> dict[str, float]:
    """Milliseconds that the counted work takes at the machine's rates."""
    return {
        "dense product": counted["dense_flop"] / rates[f"gflops_{dtype}"] / 1e6,
        "grouped product": counted["grouped_flop"] / rates["gflops_float32"] / 1e6,
        "sparse products": counted["sparse_bytes"] / rates["gbytes_copied"] / 1e6,
        "optimizer": counted["optimizer_bytes"] / rates["gbytes_copied"] / 1e6,
    }


def show(rows: list[dict[str, Any]], rates: dict[str, Any], dtype: str) -> None:
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
    for row in ours.values():
        print(
            f"\nours, {row['latents']:,} latents, {row['counted']['touched_rows']:,.0f} touched; ms of a step:",
            row["parts"],
        )
        at_best = {part: round(spent, 2) for part, spent in bounds(row["counted"], rates, dtype).items()}
        print("at the machine's rates:", at_best)


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
    rates, rows = machine(options.device), []
    for latents in options.latents:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                found[name].append({**child(name, latents, options), "batch": options.batch})
        rows += [joined(rounds) for rounds in found.values()]
    show(rows, rates, options.dtype)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": rates, "rows": rows}, indent=1))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
