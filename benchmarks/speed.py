"""Tokens a second of a training step and of encoding, ours beside its peers, and what each part of our step costs.

    python benchmarks/speed.py --latents 16384,131072 --d 512 --k 32 --batch 2048 --json speed.json \\
        --plot speed.html

Every implementation and size is a process of its own; they take turns for --rounds, forwards and backwards. A row has
the median over the steps of all rounds. A step is all of it: forward, backward, clipping where it is the tool's own
default, the optimizer, decoder rows' norm. Peers: ``pip install -r benchmarks/requirements-speed.txt``; one that is
absent is reported. See docs/benchmarks.md.

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

BATCHES = 4  # different ones, by turns
THREE_LEVELS = 300_000  # latents from which on ours has three levels


def activations(rows: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Rows (B, D) with 32 of 4,096 random directions each, and a little noise."""
    directions_ND = torch.nn.functional.normalize(torch.randn(4096, width, generator=generator), dim=1)
    active_BK = torch.randint(0, 4096, (rows, 32), generator=generator)
    return torch.nn.functional.embedding_bag(active_BK, directions_ND, mode="sum") + 0.1 * torch.randn(
        rows, width, generator=generator
    )


class Case:
    """One implementation of one size: a training step, and encoding, as functions of a batch (B, D)."""

    package = "hiersae"

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.parts: dict[str, float] = {}
        self.counted: dict[str, float] = {}

    def step(self, x_BD: torch.Tensor) -> None:
        """A whole training step."""
        raise NotImplementedError

    def encode(self, x_BD: torch.Tensor) -> object:
        """The code at inference."""
        raise NotImplementedError


class Ours(Case):
    """The hierarchy behind a closed gate, its tree balanced, with the optimizer that follows touched rows."""

    changes: dict[str, Any] = {"curriculum": "closed=1", "harden": True, "optimizer": "row-adam"}  # noqa: RUF012

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        from hiersae_cli.config import TrainConfig
        from hiersae_cli.sae import build
        from hiersae_cli.sae.training import Trainer

        config = TrainConfig(
            acts=["random"],
            batch=options.batch,
            tokens=10**6 * options.batch,
            dtype=options.dtype,
            **{"moments": options.moments, **self.shape(), **self.changes},
        )
        config.check()
        self.model = build(config, options.d)
        self.model.initialise(torch.zeros(options.d), 0)
        self.trainer = Trainer(self.model.to(options.device).train(), config, 1.0)

    def shape(self) -> dict[str, Any]:
        """Widths and L0s: parents such that the dense and the grouped product are of one size."""
        latents, k = self.options.latents[0], self.options.k
        if latents > THREE_LEVELS:
            return {"widths": (1024, 32_768, latents - 33_792), "k": (k / 4, k / 4, k / 2)}
        parents = 1 << round((k / 4 * latents) ** 0.5).bit_length() - 1
        return {"widths": (parents, latents - parents), "k": (k / 4, k * 3 / 4)}

    def step(self, x_BD: torch.Tensor) -> None:
        self.trainer.step(x_BD)

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.model.eval().codes(x_BD)

    def watch(self) -> None:
        """From now on, add up the seconds of each part of a step; nested parts are taken out of the outer one."""
        from hiersae_cli.sae import gated
        from hiersae_cli.sae.base import SparseAutoencoder

        stack: list[float] = []

        def timed(owner: Any, name: str, what: str) -> None:
            function: Callable[..., Any] = getattr(owner, name)

            def wrapped(*args: Any, **kwargs: Any) -> Any:
                begun = time.perf_counter()
                stack.append(0.0)
                try:
                    return function(*args, **kwargs)
                finally:
                    spent, inner = time.perf_counter() - begun, stack.pop()
                    self.parts[what] = self.parts.get(what, 0.0) + spent - inner
                    if stack:
                        stack[-1] += spent

            setattr(owner, name, wrapped)

        timed(SparseAutoencoder, "_read", "dense product")
        timed(gated, "above", "grouped product")
        timed(SparseAutoencoder, "_select", "selection and exact values")
        timed(type(self.model), "step", "decoding and loss")
        timed(torch.Tensor, "backward", "backward")
        timed(type(self.trainer), "_move", "optimizer")
        timed(type(self.trainer), "step", "the rest")

    def count(self, x_BD: torch.Tensor) -> None:
        """Operations and bytes of a step, from what was active in it."""
        options, model = self.options, self.model
        codes = model.train().step(x_BD, 0.5).codes
        fired = [code.fired for code in codes]
        tokens, width, item = len(x_BD), options.d, 4
        first = model.widths[0] if len(codes) > 1 else model.latents
        self.counted["dense_flop"] = 2.0 * tokens * width * first
        grouped = 0.0
        for level in range(1, len(codes)):
            blocks = model._blocks(level)  # type: ignore[operator]
            if blocks is not None:
                grouped += float(blocks.first_P.diff()[fired[level - 1].latent_n - model.parts[level - 1].start].sum())  # type: ignore[index,union-attr]
        self.counted["grouped_flop"] = 2.0 * width * grouped
        places = sum(len(pattern) for pattern in fired)
        # Two products forward, four backward: each reads a row of D numbers for every active place.
        self.counted["sparse_bytes"] = 6.0 * places * width * item
        touched = sum(len(pattern.latent_n.unique()) for pattern in fired)
        moments = 2 if options.moments == "bfloat16" else 4
        # Encoder and decoder: the weight and two moments, read and written, and the gradient, written and read twice.
        self.counted["optimizer_bytes"] = 2.0 * touched * width * (2 * item + 4 * moments + 3 * item)
        self.counted["touched_rows"] = touched


class OursDense(Ours):
    """The hierarchy with its gate open, and dense Adam: the defaults of training."""

    changes: dict[str, Any] = {"curriculum": "none", "moments": "float32"}  # noqa: RUF012


class OursFlat(Ours):
    """BatchTopK of ours with dense Adam."""

    changes: dict[str, Any] = {"arch": "batchtopk", "moments": "float32"}  # noqa: RUF012

    def shape(self) -> dict[str, Any]:
        return {"widths": (self.options.latents[0],), "k": (self.options.k,)}


class Sparsify(Case):
    """sparsify's SparseCoder (TopK) with Adam, which is one of its optimizers, and its normalisation."""

    package = "eai-sparsify"

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        from sparsify import SparseCoder, SparseCoderConfig

        config = SparseCoderConfig(num_latents=options.latents[0], k=options.k)
        self.sae = SparseCoder(options.d, config, device=options.device)
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=1e-4)

    def step(self, x_BD: torch.Tensor) -> None:
        self.sae.set_decoder_norm_to_unit_norm()
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self.options.dtype == "bfloat16"):
            loss = self.sae(x_BD).fvu
        loss.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.sae.encode(x_BD)


class SAELens(Case):
    """SAELens' own training step, of TopK."""

    package = "sae-lens"
    kind = "TopK"

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        import sae_lens
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        config = getattr(sae_lens, f"{self.kind}TrainingSAEConfig")(
            d_in=options.d, d_sae=options.latents[0], k=options.k, device=options.device
        )
        self.sae = getattr(sae_lens, f"{self.kind}TrainingSAE")(config)
        settings = SAETrainerConfig(
            total_training_samples=10**6 * options.batch,
            train_batch_size_samples=options.batch,
            lr=1e-4,
            lr_end=1e-4,
            device=options.device,
            autocast=options.dtype == "bfloat16",
            logger=LoggingConfig(log_to_wandb=False),
        )
        self.trainer = SAETrainer(cfg=settings, sae=self.sae, data_provider=iter(()))

    def step(self, x_BD: torch.Tensor) -> None:
        self.trainer._train_step(sae=self.sae, sae_in=x_BD)

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.sae.encode(x_BD)


class SAELensBatchTopK(SAELens):
    """SAELens' own training step, of BatchTopK."""

    kind = "BatchTopK"


class DictionaryLearning(Case):
    """dictionary_learning's own update, of its TopK trainer."""

    package = "dictionary-learning"

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        from dictionary_learning.trainers.top_k import TopKTrainer

        self.number = 0
        self.trainer = TopKTrainer(
            steps=10**6,
            activation_dim=options.d,
            dict_size=options.latents[0],
            k=options.k,
            layer=0,
            lm_name="none",
            device=options.device,
        )

    def step(self, x_BD: torch.Tensor) -> None:
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=self.options.dtype == "bfloat16"):
            self.trainer.update(self.number, x_BD)
        self.number += 1

    @torch.no_grad()
    def encode(self, x_BD: torch.Tensor) -> object:
        return self.trainer.ae.encode(x_BD)


CASES: dict[str, type[Case]] = {
    "hiersae": Ours,
    "hiersae-open": OursDense,
    "hiersae-batchtopk": OursFlat,
    "sparsify": Sparsify,
    "saelens-topk": SAELens,
    "saelens-batchtopk": SAELensBatchTopK,
    "dictionary-learning": DictionaryLearning,
}


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
