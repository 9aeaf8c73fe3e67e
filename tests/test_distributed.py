"""Training and caching by several ranks: the same result as one process, and what happens when a rank dies."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
import yaml
from safetensors.torch import load_file

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.distributed.launch import launched
from hiersae_cli.distributed.ranks import ALONE, Mesh, nth_largest, nth_largest_of_rows
from hiersae_cli.formats.activations import Activations
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.sae.base import first_rows
from hiersae_cli.sae.base import nth_largest as nth_largest_here
from hiersae_cli.sae.splitting import build_part
from hiersae_cli.sae.training import Trainer
from hiersae_cli.workflows.eval import passes
from hiersae_cli.workflows.eval import run as evaluate
from tests.helpers import PATIENCE, environment, hiersae
from tests.ranks import on_ranks, run_ranks, start_ranks, torchrun

WIDTH, BATCH = 24, 48
DOCS = Path(__file__).parent.parent / "docs"
VARIANTS: dict[str, dict[str, Any]] = {
    "hier": {"arch": "hier", "widths": (8, 56), "k": (2, 4)},
    "batchtopk": {"arch": "batchtopk", "widths": (64,), "k": (6,)},
    "hier-all": {
        "arch": "hier", "widths": (4, 12, 48), "k": (1, 2, 3), "refine": True, "harden": True, "coherence_weight": 0.1,
        "curriculum": "anneal=0.4,closed=0.3",
    },
    "hier-row-adam": {"arch": "hier", "widths": (8, 56), "k": (2, 4), "optimizer": "row-adam", "open_every": 2},
    "batchtopk-row-adam": {"arch": "batchtopk", "widths": (64,), "k": (6,), "optimizer": "row-adam", "refine": True},
    "topk": {"arch": "topk", "widths": (64,), "k": (6,)},
    "jumprelu": {"arch": "jumprelu", "widths": (64,), "k": (6,)},
    "matryoshka": {"arch": "matryoshka", "widths": (8, 56), "k": (6,)},
}  # fmt: skip
SORTED = ("hier-all", "hier-row-adam")  # a gate that closes sorts the latents, and each rank sorts its own
LONG = {"hier": 200, "batchtopk": 200}


def rows(steps: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(48, WIDTH, generator=generator)
    strengths = torch.rand(steps * BATCH, 48, generator=generator)
    strengths *= torch.rand(steps * BATCH, 48, generator=generator) < 0.08
    noise = torch.randn(steps * BATCH, WIDTH, generator=generator)
    return (strengths @ features + 0.05 * noise + 1).split(BATCH)


def trained(
    variant: str, mesh: Mesh, dtype: str = "float32", batches: Sequence[torch.Tensor] = ()
) -> tuple[list[list[float]], torch.Tensor, list[float]]:
    """Figures of every step, the parents of the last level, and the thresholds of inference."""
    steps = LONG.get(variant, 30)
    config = TrainConfig(
        acts=[],
        tokens=steps * BATCH,
        batch=BATCH,
        lr=5e-3,  # a higher one lets differences of rounding grow
        tree_every=10,
        dead_after=20 * BATCH,
        dtype=dtype,
        **VARIANTS[variant],
    )
    batches = batches or rows(steps)
    model, split = build_part(config, WIDTH, mesh)
    model.initialise(torch.cat(batches[:8]).mean(0), 0)
    trainer = Trainer(model.train(), config, 1.0, shared=split.shared if split else 0)
    figures = []
    for x_BD in batches:
        step = trainer.step(x_BD)
        figures.append([*(float(step[name]) for name in ("loss", "error", "gradient_norm")), *step["active"].tolist()])
    trainer.calibrate(batches[-8:])
    parent_F = torch.from_numpy(model.tree_F)[-(model.widths[-1]) :]
    return figures, torch.cat(mesh.latents.parts(parent_F)), model.threshold_L.tolist()


@cache
def trained_alone(variant: str) -> tuple[list[list[float]], torch.Tensor, list[float]]:
    return trained(variant, Mesh())


def trained_by_rank(latent_ranks: int, variants: list[str]) -> dict[str, Any]:
    mesh = connection().mesh(latent_ranks)
    return {variant: trained(variant, mesh) for variant in variants}


def assert_equal(ranks: int, latent_ranks: int, variants: list[str]) -> None:
    answers = on_ranks(ranks, lambda: trained_by_rank(latent_ranks, variants))
    for variant in variants:
        figures, parent_C, thresholds = trained_alone(variant)
        rel = 1e-5 if variant in LONG else 5e-6 * ranks
        for answer in answers:
            assert answer[variant][0] == [pytest.approx(step, rel=rel) for step in figures], variant
            assert answer[variant][2] == pytest.approx(thresholds, rel=1e-5), variant
            parents = answer[variant][1]
            if variant in SORTED:
                parents, parent_C = parents.sort().values, parent_C.sort().values
            assert torch.equal(parents, parent_C), variant


@pytest.mark.parametrize("latent_ranks", [1, 2], ids=["data", "tree"])
def test_two_ranks_have_the_losses_and_the_tree_of_one_process(latent_ranks: int) -> None:
    assert_equal(2, latent_ranks, list(VARIANTS))


@pytest.mark.slow
@pytest.mark.parametrize("latent_ranks", [1, 2, 4])
def test_four_ranks_have_the_losses_and_the_tree_of_one_process(latent_ranks: int) -> None:
    assert_equal(4, latent_ranks, list(VARIANTS))


def connection() -> Any:
    from hiersae_cli.distributed.group import Job

    place = launched()
    assert place
    return Job(place, torch.device("cpu"))


def test_ranks_send_bfloat16_if_products_are_bfloat16() -> None:
    alone = torch.tensor(trained("hier-row-adam", Mesh(), "bfloat16")[0])[:, :2]

    def there_and_back(dtype: torch.dtype) -> tuple[int, torch.Tensor, torch.Tensor]:
        job = connection()
        ranks, x_BD = job.mesh(2).latents, torch.full((4, 6), 1.01, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            total_BD = ranks.summed(ranks.copied(x_BD) * (ranks.rank + 1))
        total_BD.sum().backward()
        return job.sent, total_BD.detach(), x_BD.grad

    for dtype in (torch.float32, torch.bfloat16):
        for sent, total_BD, gradient_BD in on_ranks(2, lambda dtype=dtype: there_and_back(dtype)):
            assert sent == 2 * 4 * 6 * dtype.itemsize
            assert total_BD.dtype == gradient_BD.dtype == torch.float32
            assert torch.allclose(total_BD, torch.tensor(3.03), rtol=0.01)
            assert torch.equal(gradient_BD, torch.full((4, 6), 3.0))

    for answer in on_ranks(2, lambda: trained("hier-row-adam", connection().mesh(2), "bfloat16")):
        figures = torch.tensor(answer[0])[:, :2]
        assert torch.allclose(figures[:3], alone[:3], rtol=0.01)
        assert torch.allclose(figures.mean(0), alone.mean(0), rtol=0.03)


@pytest.mark.parametrize("count", [1, 5, 13, 31])
def test_the_nth_largest_of_each_row_is_exact(count: int) -> None:
    score_Bn = torch.randn(40, 30, generator=torch.Generator().manual_seed(count)).relu()
    score_Bn[3], score_Bn[4] = 0.0, 0.7
    whole = torch.cat([score_Bn, torch.zeros(40, 1)], 1).topk(count).values[:, -1:]
    assert torch.equal(nth_largest_of_rows(score_Bn, count, ALONE), whole)


@pytest.mark.parametrize("count", [1, 7, 300, 599, 600, 700])
def test_the_nth_largest_of_all_ranks_is_exact(count: int) -> None:
    score_n = torch.randn(600, generator=torch.Generator().manual_seed(count)) * 10.0 ** torch.arange(-3, 3).repeat(100)
    score_n[::7] = score_n[3]  # ties
    whole = nth_largest(score_n, count, lambda counts: counts)
    assert whole == nth_largest_here(score_n, count)


def test_rows_drawn_in_blocks_are_those_of_one_draw() -> None:
    place_F = torch.tensor([0, 5, 16_383, 16_384, 39_999])
    assert torch.equal(first_rows(40_000, 6, 3, place_F), first_rows(40_000, 6, 3)[place_F])


FLAGS = ("--widths", "16,112", "--k", "4,4", "--tokens", "20k", "--batch", "256", "--log-every", "20")


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    done = hiersae("train", tiny_acts, *FLAGS, "-o", run)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("way", ["data", "tree"])
def test_a_run_of_two_ranks_is_that_of_one(alone: Path, tiny_acts: Path, tmp_path: Path, way: str) -> None:
    run = tmp_path / "run"
    (code, out, err), (other_code, other_out, other_err) = run_ranks(
        2, "train", tiny_acts, *FLAGS, "-o", run, "--parallel", way, "--json"
    )
    assert (code, other_code) == (0, 0), err + other_err
    assert (other_out, other_err) == ("", "")
    assert json.loads(out)["step"] == 78
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "metrics.jsonl", "model.safetensors"]
    for line, expected in zip(lines(run), lines(alone), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert line["fvu"] == pytest.approx(expected["fvu"], rel=1e-5)
        assert line["ranks"]["data"] * line["ranks"]["tree"] == 2
        assert 0 <= line["ranks"]["communication"] <= 1 and len(line["ranks"]["memory"]) == 2
    tensors, expected = load_file(run / "model.safetensors"), load_file(alone / "model.safetensors")
    assert torch.equal(tensors["parent_F"], expected["parent_F"])
    for name in ("W_enc_FD", "W_dec_FD", "threshold_L"):
        assert torch.allclose(tensors[name], expected[name], rtol=1e-3, atol=1e-4), name
    described = hiersae("info", run)
    assert "of the time in communication" in described.stdout
    assert (
        json.loads((run / "config.json").read_text())["config"].keys()
        == json.loads((alone / "config.json").read_text())["config"].keys()
    )


def test_a_rank_that_dies_ends_all_and_another_number_of_ranks_resumes(
    alone: Path, tiny_acts: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("train", tiny_acts, *FLAGS, "-o", run, "--checkpoint-seconds", "0")
    first, second = start_ranks(2, *arguments, "--parallel", "tree")
    deadline = time.monotonic() + PATIENCE
    while not (run / "state" / "state.safetensors.index.json").exists():
        assert time.monotonic() < deadline and first.poll() is None, first.communicate()[1]
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    errors = first.communicate(60)[1]
    assert first.wait() == 1
    assert errors.count("error: another rank has ended") == 1 and "Traceback" not in errors
    again = hiersae(*arguments)
    assert again.returncode == 0, again.stderr
    assert "resuming from step" in again.stderr
    assert [line["loss"] for line in lines(run)] == pytest.approx([line["loss"] for line in lines(alone)], rel=1e-5)
    assert not (run / "state").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_a_rank_that_dies_at_any_moment_ends_all(alone: Path, tiny_acts: Path, tmp_path: Path, moment: int) -> None:
    run, generator = tmp_path / "run", random.Random(moment)
    arguments = ("train", tiny_acts, *FLAGS, "-o", run, "--checkpoint-seconds", "0")
    processes = start_ranks(2, *arguments, "--parallel", generator.choice(["data", "tree"]))
    wanted, deadline = moment % 5, time.monotonic() + PATIENCE  # lines of the log; the fifth moment is after the last
    log = run / "metrics.jsonl"
    # Before the ranks are connected, only the launcher can notice that one has died.
    while not run.exists() or (wanted and not (log.exists() and log.read_text().count("\n") >= wanted)):
        assert time.monotonic() < deadline and processes[0].poll() is None
        time.sleep(0.01)
    time.sleep(generator.uniform(0, 1))
    victim = generator.randrange(2)
    processes[victim].send_signal(signal.SIGKILL)
    processes[1 - victim].wait(60)
    if not ((run / "config.json").exists() and RunFolder(run).is_complete()):
        for code, _, errors in run_ranks(2, *arguments):
            assert code == 0, errors
    assert [line["loss"] for line in lines(run)] == pytest.approx([line["loss"] for line in lines(alone)], rel=1e-5)


def test_a_cache_of_two_ranks_is_that_of_one(tiny_host: Path, tiny_text: Path, tmp_path: Path) -> None:
    flags = ("cache", tiny_text, "--model", tiny_host, "--layer", "1", "--context", "32", "--batch", "4")
    assert hiersae(*flags, "--tokens", "2k", "-o", tmp_path / "one.h5").returncode == 0
    two = tmp_path / "two.h5"
    for code, _, errors in run_ranks(2, *flags, "--tokens", "2k", "-o", two):
        assert code == 0, errors
    assert two.with_name("two-2-of-2.h5").exists()
    with Activations(tmp_path / "one.h5") as one, Activations(two) as joined:
        assert one.fingerprint == joined.fingerprint


def numbers(value: Any) -> Iterator[Any]:
    """All numbers and texts of a report, without its times."""
    if isinstance(value, dict):
        for key in sorted(value.keys() - {"created", "seconds"}):
            yield key
            yield from numbers(value[key])
    elif isinstance(value, list):
        for part in value:
            yield from numbers(part)
    else:
        yield value


def test_a_report_by_ranks_is_that_of_one_process(
    tiny_hier: Path, tiny_acts: Path, tiny_host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # whose threads do not survive a fork
    monkeypatch.setattr(passes, "_READ_ROWS", 1024)  # so that there are several batches
    config = EvalConfig(
        runs=[str(tiny_hier)], acts=[str(tiny_acts)], model=str(tiny_host), resamples=100, loss_tokens=1024, batch=256
    )
    alone = list(numbers(evaluate.run(config)))
    for report in on_ranks(2, lambda: evaluate.run(config)):
        for value, expected in zip(numbers(report), alone, strict=True):
            assert value == (pytest.approx(expected, rel=1e-6, abs=1e-9) if isinstance(expected, float) else expected)


def test_codes_by_ranks_are_those_of_one_process(tiny_hier: Path, tiny_acts: Path, tmp_path: Path) -> None:
    flags = ("encode", tiny_hier, tiny_acts, "--batch", "1024", "--tokens", "9k")
    assert hiersae(*flags, "-o", tmp_path / "one.h5").returncode == 0
    (code, _, errors), (other_code, other_out, other_errors) = run_ranks(2, *flags, "-o", tmp_path / "two.h5")
    assert (code, other_code) == (0, 0), errors + other_errors
    assert (other_out, other_errors) == ("", "")
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(tmp_path / "two.h5") as two:
        for name in ("indptr", "indices", "values"):
            assert (one[name][()] == two[name][()]).all()


def test_ranks_are_refused_where_they_cannot_work(tiny_acts: Path, tmp_path: Path) -> None:
    for _, (code, _, errors) in zip("ab", run_ranks(2, "info", tiny_acts), strict=True):
        assert code == 2 and ("torchrun" in errors or not errors)
    (code, _, errors), (_, _, other) = run_ranks(
        2, "train", tiny_acts, "--batch", "255", "--parallel", "data", "-o", tmp_path / "run"
    )
    assert code == 2 and "--batch 255" in errors and not other


def test_one_process_connects_to_nothing(tiny_acts: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from hiersae_cli.api import train; "
        f"train([{str(tiny_acts)!r}], out={str(tmp_path / 'run')!r}, tokens=512, widths=(4, 8), k=(1, 1)); "
        "sys.exit('hiersae_cli.distributed.group' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "flags"),
    [
        (2, "--parallel data"),
        (2, "--parallel tree"),
        (4, "--parallel data"),
        (4, "--parallel tree"),
        (4, "--tree-ranks 2"),
    ],
)
def test_torchrun_trains_as_one_process(alone: Path, tiny_acts: Path, tmp_path: Path, ranks: int, flags: str) -> None:
    run = tmp_path / "run"
    launch = torchrun(ranks, "train", tiny_acts, *FLAGS, "-o", run, *flags.split())
    done = subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert [line["loss"] for line in lines(run)] == pytest.approx([line["loss"] for line in lines(alone)], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_torchrun_caches_as_one_process(tiny_host: Path, tiny_text: Path, tmp_path: Path, ranks: int) -> None:
    flags = (
        "cache",
        tiny_text,
        "--model",
        tiny_host,
        "--layer",
        "1",
        "--context",
        "32",
        "--batch",
        "4",
        "--tokens",
        "2k",
    )
    assert hiersae(*flags, "-o", tmp_path / "one.h5").returncode == 0
    launch = torchrun(ranks, *flags, "-o", tmp_path / "all.h5")
    done = subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    with Activations(tmp_path / "one.h5") as one, Activations(tmp_path / "all.h5") as joined:
        assert one.fingerprint == joined.fingerprint


@pytest.mark.slow
def test_torchrun_restarts_a_run_whose_rank_dies(alone: Path, tiny_acts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    launch = torchrun(2, "train", tiny_acts, *FLAGS, "-o", run, "--checkpoint-seconds", "0", restarts=1)
    process = subprocess.Popen(launch, env=environment(), stderr=subprocess.PIPE, text=True)
    while not any((run / "state").glob("*.safetensors*")):
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    subprocess.run(["kill", "-9", children[-1]], check=True)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, errors
    assert [line["loss"] for line in lines(run)] == pytest.approx([line["loss"] for line in lines(alone)], rel=1e-5)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / "scale.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_for_clusters_are_well_formed() -> None:
    (script,) = (block for block in blocks("bash") if "#SBATCH" in block)
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr
    (text,) = blocks("yaml")
    documents = list(yaml.safe_load_all(text))
    assert [document["kind"] for document in documents] == ["Service", "Job"]
    service, job = documents
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
