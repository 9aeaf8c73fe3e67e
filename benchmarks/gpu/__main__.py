"""Everything that needs a GPU, in one go of at most eight minutes; ``benchmarks/gpu.sh`` installs and starts it.

    python -m benchmarks.gpu -o FOLDER [--device cuda|cpu] [--model MODEL] [--only PART[,PART]]

Parts, each in processes of its own with a limit of time:
    tests    the tests marked gpu, and the kernels against their references
    speed    a training step and encoding beside sparsify's, at three sizes, in float32 and bfloat16
    cache    hiersae cache against the plain forward pass, on MODEL or a random model of the size of GPT-2 small
    host     one character-level host of the experiment, at the configuration of the GPU

Writes FOLDER/gpu.json after every part, so that a part that fails or runs out of time costs only itself, and
FOLDER/gpu.md with tables. With ``--device cpu`` everything is tiny: it shows only that the script works.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hiersae_cli.config.lm import LMConfig
from hiersae_cli.formats import plan
from hiersae_cli.version import __version__

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        tests: arguments of pytest.
        latents, width, k, batch, steps: of the timed steps.
        implementations: that are timed.
        host: layers, width, heads and context of the random model to cache.
        tokens: to cache.
        experiment: the configuration of the experiment for the character-level host.
        changes: of that configuration.
        limits: seconds of each part.
    """

    tests: tuple[str, ...]
    latents: tuple[int, ...]
    width: int
    k: int
    batch: int
    steps: int
    implementations: str
    host: tuple[int, int, int, int]
    tokens: str
    experiment: str
    changes: dict[str, Any]
    limits: dict[str, float]


SCALES = {
    "cuda": Scale(
        tests=("tests/test_gpu.py", "tests/test_grouped.py", "-m", "gpu or not slow"),
        latents=(16_384, 131_072, 1_048_576),
        width=768,
        k=32,
        batch=4096,
        steps=10,
        implementations="hiersae,hiersae-open,hiersae-batchtopk,sparsify",
        host=(12, 768, 12, 1024),
        tokens="500k",
        experiment="gpu",
        changes={},
        limits={"tests": 90, "speed": 200, "cache": 80, "host": 110},
    ),
    "cpu": Scale(
        tests=("tests/test_grouped.py", "-k", "ragged and reference"),
        latents=(256,),
        width=16,
        k=8,
        batch=64,
        steps=1,
        implementations="hiersae",
        host=(2, 32, 2, 32),
        tokens="2k",
        experiment="cpu",
        changes={"layers": 1, "width": 32, "heads": 2, "context": 32, "steps": 4, "eval_every": 2, "eval_tokens": 256},
        limits=dict.fromkeys(("tests", "speed", "cache", "host"), 1800),
    ),
}


@dataclass(frozen=True)
class Work:
    """What a part gets: its scale, the device, a scratch folder, the model to cache, and when it must end."""

    scale: Scale
    device: str
    folder: Path
    model: str
    deadline: float

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a Python module; raises ``RuntimeError`` with its error if it fails or takes too long."""
        seconds = max(1.0, self.deadline - time.monotonic())
        try:
            # A fork has torch already, but it cannot use CUDA once its parent has.
            start = _forked if self.device == "cpu" else _started
            done = start([str(word) for word in words], seconds)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{words[0]}: out of time") from None
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"ended with {done.returncode}"]
            errors = [line for line in lines if "error:" in line.lower()]
            raise RuntimeError(f"{words[0]}: {(errors or lines)[-1]}")
        return done


def _started(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=seconds)


def _forked(words: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """The same in a copy of this process, which need not import everything again."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = multiprocessing.get_context("fork").Process(
            target=_run_module, args=(words, output.fileno(), errors.fileno())
        )
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(words, seconds)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(words, process.exitcode or 0, output.read(), errors.read())


def _run_module(words: list[str], output: int, errors: int) -> None:
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.chdir(ROOT)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def run_tests(work: Work) -> dict[str, Any]:
    """The summary of pytest."""
    done = work.run("pytest", "-n", 0, "-p", "no:cacheprovider", *work.scale.tests)
    return {"summary": done.stdout.strip().splitlines()[-1]}


def run_speed(work: Work) -> dict[str, Any]:
    """Rows of ``benchmarks.speed`` at every size and type; a size that does not fit into memory says so."""
    scale, rows = work.scale, []
    file = work.folder / "speed.json"
    for latents in scale.latents:
        for dtype in ("float32", "bfloat16"):
            flags = {
                **{"latents": latents, "d": scale.width, "k": scale.k, "batch": scale.batch, "steps": scale.steps},
                **{"dtype": dtype, "device": work.device, "warmup": 2, "rounds": 1, "json": file},
                "implementations": scale.implementations,
            }
            work.run("benchmarks.speed", *(f"--{name}={value}" for name, value in flags.items()))
            measured = json.loads(file.read_text())
            rows += [{"dtype": dtype, **row} for row in measured["rows"]]
    return {"machine": measured["machine"], "rows": rows}


def run_cache(work: Work) -> dict[str, Any]:
    """The result of ``benchmarks.speed.cache``."""
    text = work.folder / "text.txt"
    text.write_text("".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))) * 8)
    model = work.model or str(_random_host(work, text.read_text()))
    layers = work.scale.host[0] if not work.model else 2
    flags = ("--layer", layers // 2, "--tokens", work.scale.tokens, "--repeats", 2, "--device", work.device)
    measured: dict[str, Any] = json.loads(work.run("benchmarks.speed.cache", text, "--model", model, *flags).stdout)
    return {"model": work.model or f"random, {layers} layers x {work.scale.host[1]}", **measured}


def _random_host(work: Work, text: str) -> Path:
    """A GPT-2 with random weights, over the characters of a text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from hiersae_cli.host.charlm import character_tokenizer

    layers, width, heads, context = work.scale.host
    tokenizer = character_tokenizer(text, context)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=None,
        eos_token_id=None,
    )
    GPT2LMHeadModel(config).save_pretrained(work.folder / "host")
    tokenizer.save_pretrained(work.folder / "host")
    return work.folder / "host"


def run_host(work: Work) -> dict[str, Any]:
    """Seconds and loss of one host of the experiment's plan."""
    part = plan.load(ROOT / "experiment.toml", "run_1", work.scale.experiment).parts[0]
    config = LMConfig(**{**part.steps["host"], **work.scale.changes}, device=work.device, out=str(work.folder / "lm"))
    defaults = LMConfig(device=work.device)
    changed = {name: value for name, value in config.recorded().items() if value != defaults.recorded()[name]}
    flags = []
    for name, value in changed.items():
        flag = name.replace("_", "-")
        switch = f"--{flag}" if value else f"--no-{flag}"
        flags += [switch] if isinstance(value, bool) else [f"--{flag}", value]
    started = time.monotonic()
    done = work.run("hiersae_cli", "lm", "-o", work.folder / "lm", *flags, "--device", work.device, "--json")
    return {"seconds": round(time.monotonic() - started, 1), "flags": changed, **json.loads(done.stdout)}


PARTS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "tests": run_tests,
    "speed": run_speed,
    "cache": run_cache,
    "host": run_host,
}


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        f"{results['device_name']}, {results['versions']}",
        "",
        "| part | seconds | result |",
        "| --- | ---: | --- |",
    ]
    for name, part in results["parts"].items():
        result = part.get("result", {})
        text = part.get("failed") or {
            "tests": lambda r: r["summary"],
            "speed": lambda r: f"{len(r['rows'])} rows, below",
            "cache": lambda r: (
                f"{r['model']}: {r['cache_tokens_per_second']:,} tokens/s, {r['ratio']:.2f} of the plain pass"
            ),
            "host": lambda r: f"trained in {r['seconds']} s",
        }[name](result)
        lines.append(f"| {name} | {part['seconds']} | {text} |")
    rows = results["parts"].get("speed", {}).get("result", {}).get("rows", [])
    if rows:
        lines += ["", "| implementation | latents | type | training, tokens/s | encoding, tokens/s | peak, MB |"]
        lines.append("| --- | ---: | --- | ---: | ---: | ---: |")
    for row in rows:
        figures = (
            f"{row['tokens_per_s']:,} | {row['encode_tokens_per_s']:,} | {row['peak_mb']:,}"
            if "tokens_per_s" in row
            else f"{row.get('absent') or row.get('failed')} | |"
        )
        lines.append(f"| {row['implementation']} | {row.get('latents', ''):,} | {row['dtype']} | {figures} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the parts; exits with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--device", choices=SCALES, default="cuda")
    parser.add_argument("--model", default="", help="model to cache, such as SmolLM2-135M as a folder")
    parser.add_argument("--only", default=",".join(PARTS), help="some of the parts")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device; --device cpu tries a tiny form")
    scale, started = SCALES[options.device], time.monotonic()
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    versions = f"torch {torch.__version__}, hiersae {__version__}"
    results: dict[str, Any] = {"device_name": name, "device": options.device, "versions": versions, "parts": {}}
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.only.split(","):
        began = time.monotonic()
        print(f"{part} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=options.out) as folder:
            work = Work(scale, options.device, Path(folder).resolve(), options.model, began + scale.limits[part])
            try:
                outcome: dict[str, Any] = {"result": PARTS[part](work)}
            except (RuntimeError, OSError, ValueError, KeyError) as error:
                outcome = {"failed": " ".join(str(error).split()) or type(error).__name__}
        results["parts"][part] = {"seconds": round(time.monotonic() - began, 1), **outcome}
        results["seconds"] = round(time.monotonic() - started, 1)
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1))
        (options.out / "gpu.md").write_text(table(results))
    print(table(results))
    sys.exit(any("failed" in part for part in results["parts"].values()))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
