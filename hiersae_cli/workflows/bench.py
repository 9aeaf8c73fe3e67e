"""``hiersae bench``: the time of a training step, of its parts and of encoding, and the best the machine could do.

Legend of shapes: B rows, D width.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from hiersae_cli.config.bench import BenchConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.console import Console
from hiersae_cli.device import keep_freed_memory, resolve_device
from hiersae_cli.sae import HierarchicalSAE, build
from hiersae_cli.sae.base import StepContext
from hiersae_cli.sae.kernels.grouped import implementation_for
from hiersae_cli.sae.parts import PARTS, PREFIX, profiled
from hiersae_cli.sae.training import Trainer

BATCHES = 4  # different batches, which take turns
THREE_LEVELS = 100_000  # above this number of latents our hierarchy has three levels
_DIRECTIONS, _ACTIVE, _NOISE = 4096, 32, 0.1  # of the random activations
_FLOAT32 = 4  # bytes
_STEP = "the rest"  # the time of a step outside its named parts


@dataclass(frozen=True)
class Size:
    """The size of a measurement: the total number of ``latents``, the width ``d``; the rest as in ``BenchConfig``."""

    latents: int
    d: int
    k: int
    batch: int
    dtype: str
    moments: str
    compile: bool
    device: str


@dataclass(frozen=True)
class Timings:
    """The measurements of one case.

    Attributes:
        steps, codes: seconds of each training step and of each encoding.
        parts: milliseconds of each part of a step; empty for other tools.
        counted: operations and bytes of a step; empty for other tools.
    """

    steps: list[float]
    codes: list[float]
    parts: dict[str, float]
    counted: dict[str, float]


class Case:
    """An implementation at one size: a training step and encoding, as functions of a batch (B, D).

    Attributes:
        package: the distribution whose version is reported with the result.
    """

    package = "hiersae"

    def __init__(self, size: Size):
        self.size = size

    def step(self, x_BD: torch.Tensor) -> None:
        """Take a whole training step."""
        raise NotImplementedError

    def encode(self, x_BD: torch.Tensor) -> object:
        """The code at inference."""
        raise NotImplementedError


class Gated(Case):
    """The hierarchy with a closed gate, a balanced tree, and the optimizer that updates only touched rows."""

    def __init__(self, size: Size):
        super().__init__(size)
        config = TrainConfig(
            acts=["random"], batch=size.batch, tokens=10**6 * size.batch, dtype=size.dtype, **self.training()
        )
        self.model = build(config, size.d)
        self.model.initialise(torch.zeros(size.d), 0)
        self.trainer = Trainer(self.model.to(size.device).train(), config, 1.0)

    def training(self) -> dict[str, Any]:
        """Options of training."""
        return {
            **self.shape(),
            "curriculum": "closed=1",
            "harden": True,
            "optimizer": "row-adam",
            "moments": self.size.moments,
            "compile": self.size.compile,
        }

    def shape(self) -> dict[str, Any]:
        """Widths and L0s, with about as many operations in the dense product as in the grouped one."""
        latents, k = self.size.latents, self.size.k
        if latents > THREE_LEVELS:
            first = 512 if latents < 300_000 else 1024
            return {"widths": (first, 16 * first, latents - 17 * first), "k": (k / 4, k / 4, k / 2)}
        parents = 1 << round((k / 4 * latents) ** 0.5).bit_length() - 1
        return {"widths": (parents, latents - parents), "k": (k / 4, k * 3 / 4)}

    def step(self, x_BD: torch.Tensor) -> None:
        self.trainer.step(x_BD)

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        model = self.model.eval()
        if self.trainer.config.harden and isinstance(model, HierarchicalSAE) and not model.hard:
            model.harden()
        return model.codes(x_BD)

    def count(self, x_BD: torch.Tensor) -> dict[str, float]:
        """Operations and bytes of a step on a batch (B, D), from its active latents."""
        model, width = self.model, self.size.d
        codes = model.train().step(x_BD, StepContext(0, 0.5)).codes
        fired = [code.fired for code in codes]
        first = model.widths[0] if len(codes) > 1 else model.latents
        grouped_places = read_rows = 0.0
        if isinstance(model, HierarchicalSAE):
            for level in range(1, len(codes)):
                blocks = model.child_blocks(level)
                if blocks is not None:
                    parent_n = fired[level - 1].latent_n - model.parts[level - 1].start
                    children_P = blocks.first_P.diff()
                    grouped_places += float(children_P[parent_n].sum())
                    read_rows += float(children_P[parent_n.unique()].sum())
        places = sum(len(pattern) for pattern in fired)
        touched = sum(len(pattern.latent_n.unique()) for pattern in fired)
        moment_bytes = 2 if self.size.moments == "bfloat16" else _FLOAT32
        return {
            "touched_rows": touched,
            "dense_flop": 2.0 * len(x_BD) * width * first,
            "grouped_flop": 2.0 * width * grouped_places,
            "grouped_bytes": read_rows * width * _FLOAT32,
            # Two products forward and four backward. Each reads a row of D numbers for every active place.
            "sparse_bytes": 6.0 * places * width * _FLOAT32,
            # Encoder and decoder: read and write a weight and two moments, write the gradient once and read it twice.
            "optimizer_bytes": 2.0 * touched * width * (2 * _FLOAT32 + 4 * moment_bytes + 3 * _FLOAT32),
        }


class Open(Gated):
    """The hierarchy with an open gate and dense Adam, the defaults of training."""

    def training(self) -> dict[str, Any]:
        return {**self.shape(), "curriculum": "none"}


class Flat(Gated):
    """Our BatchTopK with dense Adam."""

    def training(self) -> dict[str, Any]:
        return {"arch": "batchtopk", "widths": (self.size.latents,), "k": (self.size.k,)}


CASES: dict[str, type[Case]] = {"hiersae": Gated, "hiersae-open": Open, "hiersae-batchtopk": Flat}


def run(config: BenchConfig, console: Console | None = None) -> dict[str, Any]:
    """``{"machine": …, "rows": […]}``, with a row for every size and model: see ``summary``.

    Raises ``UsageError`` if the device is missing.
    """
    console = console or Console.silent()
    device = str(resolve_device(config.device))
    keep_freed_memory()  # as ``hiersae train`` does
    rates, rows = machine(device), []
    with console.progress("bench", len(config.latents) * len(CASES), "models") as progress:
        for latents in config.latents:
            size = Size(latents, config.d, config.k, config.batch, config.dtype, config.moments, config.compile, device)
            for name, case in CASES.items():
                timings = measure(case(size), config.warmup, config.steps)
                rows.append({"model": name, "latents": latents, **summary(timings, config.batch)})
                if name == "hiersae":
                    rows[-1]["at_best"] = bounds(timings.counted, rates, config.dtype)
                progress.advance(1)
    return {"machine": rates, "rows": rows}


def measure(case: Case, warmup: int, steps: int) -> Timings:
    """Time ``steps`` training steps and encodings of a case, after ``warmup`` that do not count."""
    size, generator = case.size, torch.Generator().manual_seed(0)
    batches = [activations(size.batch, size.d, generator).to(size.device) for _ in range(BATCHES)]
    _seconds(case.step, batches, warmup)
    step_seconds = _seconds(case.step, batches, steps)
    parts, counted = dict[str, float](), dict[str, float]()
    if isinstance(case, Gated):
        parts = part_times(case.step, batches, steps)
        counted = case.count(batches[0])
    _seconds(case.encode, batches, min(warmup, 2))
    return Timings(step_seconds, _seconds(case.encode, batches, steps), parts, counted)


def part_times(step: Callable[[torch.Tensor], None], batches: list[torch.Tensor], steps: int) -> dict[str, float]:
    """Milliseconds of each labelled part of a step, without the parts inside it, and of the rest of the step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for number in range(steps):
            with profiled(_STEP):
                step(batches[number % len(batches)])
    spent = dict.fromkeys((*PARTS, _STEP), 0.0)  # microseconds
    for event in profiler.events():
        name = event.name.removeprefix(PREFIX)
        if name in spent and event.device_type.name == "CPU":
            spent[name] += event.cpu_time_total
            outer = event.cpu_parent
            while outer is not None and not outer.name.startswith(PREFIX):
                outer = outer.cpu_parent
            if outer is not None:
                spent[outer.name.removeprefix(PREFIX)] -= event.cpu_time_total
    return {name: 1e-3 * microseconds / steps for name, microseconds in spent.items() if microseconds}


def summary(timings: Timings, batch: int) -> dict[str, Any]:
    """The median times and rates of a case, as a row of the result."""
    step, code = statistics.median(timings.steps), statistics.median(timings.codes)
    return {
        "step_ms": round(1e3 * step, 2),
        "tokens_per_s": round(batch / step),
        "encode_ms": round(1e3 * code, 2),
        "encode_tokens_per_s": round(batch / code),
        "parts": {part: round(milliseconds, 2) for part, milliseconds in timings.parts.items()},
        "counted": timings.counted,
    }


def activations(rows: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Rows (B, D) with 32 of 4,096 random directions each, and a little noise."""
    directions_ND = torch.nn.functional.normalize(torch.randn(_DIRECTIONS, width, generator=generator), dim=1)
    active_BK = torch.randint(0, _DIRECTIONS, (rows, _ACTIVE), generator=generator)
    sums_BD = torch.nn.functional.embedding_bag(active_BK, directions_ND, mode="sum")
    return sums_BD + _NOISE * torch.randn(rows, width, generator=generator)


def machine(device: str) -> dict[str, Any]:
    """The rates of the machine for a large product in each type, and a copy, in 1e9 operations or bytes a second."""
    a, b = (torch.randn(2048, 2048, device=device) for _ in range(2))
    source = torch.zeros(1 << 26, device=device)
    target = torch.ones_like(source)
    work: dict[str, tuple[Callable[[torch.Tensor], object], int]] = {
        "gflops_float32": (lambda a: torch.mm(a, b), 2 * 2048**3),
        "gflops_bfloat16": (lambda a: torch.mm(a.bfloat16(), b.bfloat16()), 2 * 2048**3),
        "gbytes_copied": (lambda _: target.copy_(source), 2 * _FLOAT32 * len(source)),
    }
    rates = {name: round(amount / min(_seconds(job, [a], 7)) / 1e9, 1) for name, (job, amount) in work.items()}
    device_name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {
        **rates,
        "device": device_name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "kernels": implementation_for(torch.empty(0, device=device)),
    }


def bounds(counted: dict[str, float], rates: dict[str, Any], dtype: str) -> dict[str, float]:
    """The milliseconds that the counted work would take at the machine's rates."""
    grouped = max(counted["grouped_flop"] / rates["gflops_float32"], counted["grouped_bytes"] / rates["gbytes_copied"])
    return {
        "dense product": round(counted["dense_flop"] / rates[f"gflops_{dtype}"] / 1e6, 2),
        "grouped product": round(grouped / 1e6, 2),
        "sparse products": round(counted["sparse_bytes"] / rates["gbytes_copied"] / 1e6, 2),
        "optimizer": round(counted["optimizer_bytes"] / rates["gbytes_copied"] / 1e6, 2),
    }


def run_with_table(config: BenchConfig, console: Console) -> tuple[dict[str, Any], str]:
    """``run``, and its table for people."""
    result = run(config, console)
    return result, table(result)


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = [
        "| model | latents | step, ms | tokens/s | encode, tokens/s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['model']} | {row['latents']:,} | {row['step_ms']:.1f} | {row['tokens_per_s']:,} "
        f"| {row['encode_tokens_per_s']:,} |"
        for row in result["rows"]
    ]
    lines += parts_of(row for row in result["rows"] if "at_best" in row)
    return "\n".join([*lines, "", f"machine: {result['machine']}"])


def parts_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Lines that compare the parts of a step with the best that the machine could do."""
    lines = []
    for row in rows:
        lines += [
            "",
            f"ours, {row['latents']:,} latents, {row['counted']['touched_rows']:,} touched",
            f"ms of a step: {row['parts']}",
            f"at the machine's rates: {row['at_best']}",
        ]
    return lines


def _seconds(job: Callable[[torch.Tensor], object], batches: list[torch.Tensor], times: int) -> list[float]:
    """The seconds of each of ``times`` calls of ``job``, which take turns with the batches."""
    seconds = []
    for number in range(times):
        started = time.perf_counter()
        job(batches[number % len(batches)])
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds
