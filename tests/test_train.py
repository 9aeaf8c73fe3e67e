"""``hiersae train``: the loop, its files, resuming after an interruption, and refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hiersae_cli import load_run
from hiersae_cli.config.base import first_difference
from hiersae_cli.config.train import ARCHITECTURES, TrainConfig
from hiersae_cli.sae import HierarchicalSAE, build
from hiersae_cli.sae.training import Trainer
from tests.helpers import PATIENCE, hiersae, start

GOLDEN = Path(__file__).parent / "data" / "golden-steps.json"
SIZES = {"hier": ("--widths", "16,112", "--k", "4,4"), "topk": ("--widths", "128", "--k", "8")}
SIZES["batchtopk"] = SIZES["topk"]


def flags(arch: str = "hier", tokens: str = "40k") -> tuple[str, ...]:
    return ("--arch", arch, *SIZES[arch], "--tokens", tokens, "--batch", "256", "--log-every", "20")


def metrics(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


@pytest.fixture(scope="module")
def finished(tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("train") / "run"
    done = hiersae("train", tiny_acts, *flags(), "-o", run)
    assert done.returncode == 0, done.stderr
    return run


DEEP = "hier, three levels"  # with every option that is off by default


def golden_figures(name: str) -> list[list[float]]:
    """Loss, error and gradient norm of 12 steps on fixed data, through all phases of the curriculum."""
    options: dict[str, Any] = {"arch": name, "widths": (48,), "k": (5,)}
    if name == "matryoshka":
        options |= {"widths": (8, 40)}
    if name == "hier":
        options |= {"widths": (8, 40), "k": (2, 3), "curriculum": "lead=0.1,ramp=0.3,anneal=0.3"}
    if name == DEEP:
        options |= {"arch": "hier", "widths": (4, 12, 32), "k": (1, 2, 2), "curriculum": "anneal=0.6,closed=0.2"}
        options |= {"harden": True, "refine": True, "coherence_weight": 1.0, "relevel": True, "k_start": 2.0}
    config = TrainConfig(
        acts=[],
        tokens=12 * 32,
        batch=32,
        lr=0.01,
        tree_every=2,
        dead_after=64,
        tree_weight=1.0,
        orphan_weight=10.0,
        root_weight=1.0,
        rate_limit=0.0,
        sibling_weight=1.0,
        **options,
    )
    data = torch.randn(12 * 32, 16, generator=torch.Generator().manual_seed(5)).abs()
    model = build(config, 16)
    model.initialise(data.mean(0), 0)
    trainer = Trainer(model.train(), config, 2.0)
    steps = [trainer.step(batch) for batch in data.split(32)]
    return [[float(step[name]) for name in ("loss", "error", "gradient_norm")] for step in steps]


@pytest.mark.parametrize("arch", [*ARCHITECTURES, DEEP])
def test_training_steps_are_what_they_were(arch: str) -> None:
    """A change here changes every result. If it is intended, say so in the changelog and write the file again
    (``python tests/test_train.py``)."""
    expected = json.loads(GOLDEN.read_text())[arch]
    assert golden_figures(arch) == [pytest.approx(step, rel=1e-3) for step in expected]


def test_hardening_a_tree_of_three_levels_reports_its_cost(tiny_acts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = hiersae(
        "train", tiny_acts, "-o", run, "--widths", "8,16,64", "--k", "2,2.5,3", "--tokens", "30k", "--batch", "512",
        "--curriculum", "anneal=0.5,closed=0.2", "--refine", "--relevel", "--k-start", "2", "--harden",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "hardened: fvu" in done.stderr
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["hardening"].keys() == {"fvu", "fvu_soft", "l0", "l0_soft"}
    assert lines[-1]["hardening"]["l0_soft"] == pytest.approx(7.5, rel=0.05)
    assert len(lines[0]["fvu_levels"]) == 3
    model = load_run(run).model
    assert isinstance(model, HierarchicalSAE) and model.hard


def test_the_files_of_a_run_folder(finished: Path, tiny_acts: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == ["config.json", "metrics.jsonl", "model.safetensors"]
    header = json.loads((finished / "config.json").read_text())
    assert header["schema"] == "hiersae.run"
    assert header["config"]["widths"] == [16, 112]
    assert list(header["inputs"]) == [str(tiny_acts)]
    lines = metrics(finished)
    assert [line["step"] for line in lines] == [20, 40, 60, 80, 100, 120, 140, 156]
    assert lines[-1]["fvu"] < lines[0]["fvu"]
    assert all(line["l0"] == pytest.approx([4, 4], abs=0.05) for line in lines[2:])
    assert [line["phase"] for line in lines] == ["anneal"] * 3 + ["joint"] * 5


def test_stdout_is_only_json(tiny_acts: Path, tmp_path: Path) -> None:
    done = hiersae("train", tiny_acts, *flags(tokens="2k"), "-o", tmp_path / "run", "--json", fresh=True)
    assert json.loads(done.stdout)["step"] == 7
    assert "steps of 256" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_bits(
    finished: Path, tiny_acts: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    run = tmp_path / "run"
    arguments = ("train", tiny_acts, *flags(), "-o", run, "--checkpoint-seconds", "0")
    process = start(*arguments)
    deadline = time.monotonic() + PATIENCE
    while not (run / "state" / "state.safetensors").exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(stop)
    errors = process.communicate()[1]
    assert process.returncode == (-9 if stop == signal.SIGKILL else 130), errors
    if stop != signal.SIGKILL:
        assert (
            "Run the same command again to resume." in errors and "error:" not in errors and "Traceback" not in errors
        )
    assert "training not ended" in hiersae("eval", run, "--acts", tiny_acts).stderr
    again = hiersae(*arguments)
    assert again.returncode == 0, again.stderr
    assert "resuming from step" in again.stderr
    first, second = load_file(finished / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(run) == metrics(finished)
    assert not (run / "state").exists()


def test_changed_flags_do_not_resume_another_run(tiny_acts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("train", tiny_acts, *flags(), "-o", run, "--checkpoint-seconds", "0")
    while not (run / "state" / "state.safetensors").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    other = hiersae("train", tiny_acts, *flags(), "-o", run, "--seed", "1")
    assert other.returncode == 1
    assert "seed was 0 and is now 1" in other.stderr
    assert hiersae("train", tiny_acts, *flags(tokens="1k"), "-o", run, "--overwrite").returncode == 0


def test_first_weights_and_data_order_have_their_own_seeds(tiny_acts: Path, tmp_path: Path) -> None:
    def weights(name: str, *seeds: object) -> torch.Tensor:
        done = hiersae("train", tiny_acts, *flags("topk", "2k"), "-o", tmp_path / name, *seeds)
        assert done.returncode == 0, done.stderr
        return load_file(tmp_path / name / "model.safetensors")["W_dec_FD"]

    plain = weights("plain", "--seed", 3)
    assert torch.equal(plain, weights("both", "--init-seed", 3, "--order-seed", 3)), "--seed is only their default"
    other_order, other_init = (
        weights("order", "--seed", 3, "--order-seed", 1),
        weights("init", "--seed", 3, "--init-seed", 1),
    )
    assert not torch.equal(plain, other_order) and not torch.equal(plain, other_init)
    # Eight steps leave rows near their start.
    assert (plain * other_order).sum(1).median() > 0.9 > 0.5 > (plain * other_init).sum(1).median()
    assert load_run(tmp_path / "order").seeds == (3, 1) and load_run(tmp_path / "plain").seeds == (3, 3)


def test_runs_of_releases_without_the_two_seeds_load(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    header = json.loads((run / "config.json").read_text())
    for name in ("init_seed", "order_seed"):
        assert header["config"].pop(name) is None, "a flag that was not given must not stop an older run from resuming"
    (run / "config.json").write_text(json.dumps(header))
    assert load_run(run).seeds == (0, 0)


def test_an_existing_run_is_not_written_over(finished: Path, tiny_acts: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    done = hiersae("train", tiny_acts, *flags(), "-o", finished)
    assert done.returncode == 1
    assert str(finished) in done.stderr and "--overwrite" in done.stderr
    assert (finished / "model.safetensors").read_bytes() == before


def test_overwrite_removes_what_training_wrote_and_nothing_else(tiny_acts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert hiersae("train", tiny_acts, *flags(tokens="2k"), "-o", run).returncode == 0
    for name in ("labels.json", "notes.txt", "figures/one.svg"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    weights = (run / "model.safetensors").read_bytes()
    refused = hiersae("train", tiny_acts, *flags(tokens="1k"), "-o", run, "--overwrite", "--device", "meta")
    assert refused.returncode == 2 and "--device meta" in refused.stderr and "Traceback" not in refused.stderr
    absent = hiersae("train", tmp_path / "absent.h5", *flags(tokens="1k"), "-o", run, "--overwrite")
    assert absent.returncode == 2 and (run / "model.safetensors").read_bytes() == weights
    again = hiersae("train", tiny_acts, *flags(tokens="1k"), "-o", run, "--overwrite")
    assert again.returncode == 0 and "figures, labels.json, notes.txt stay" in again.stderr
    assert (run / "model.safetensors").read_bytes() != weights
    assert all((run / name).read_text() == "mine" for name in ("labels.json", "notes.txt", "figures/one.svg"))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == sorted({json.loads(line)["step"] for line in lines})


def test_a_folder_with_other_files_is_kept_even_with_overwrite(tiny_acts: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = hiersae("train", tiny_acts, *flags(), "-o", tmp_path, "--overwrite")
    assert done.returncode == 1
    assert "other files" in done.stderr
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--arch", "hier", "--widths", "16", "--k", "4"), 2, "two or more"),
        (("--arch", "batchtopk", "--widths", "16,112", "--k", "8"), 2, "one number"),
        (("--arch", "batchtopk", "--widths", "16", "--k", "17"), 2, "at most 16, the latents"),
        (("--arch", "hier", "--widths", "16,112", "--k", "4,0"), 2, "at most 112, the latents"),
        (("--arch", "nonsense",), 2, "hier, topk, batchtopk"),
        (("--arch", "matryoshka", "--widths", "128", "--k", "8"), 2, "one for each nested dictionary"),
        (("--arch", "matryoshka", "--widths", "16,112", "--k", "4,4"), 2, "one number, the L0 of all latents together"),
        (("--arch", "jumprelu", "--widths", "128", "--k", "8", "--refine"), 2, "no second pass"),
        (("--arch", "jumprelu", "--widths", "128", "--k", "8", "--bandwidth", "0"), 2, "above 0"),
        (("--tokens", "many"), 2, "not a number"),
        (("--tokens", "10", "--batch", "100"), 2, "one batch"),
        (("--curriculum", "lead=2"), 2, "share of training"),
        (("--module", "transformer.h.9"), 2, "holds transformer.h.1"),
        (("--device", "abacus"), 2, "abacus"),
        (("--lr", "-1"), 2, "must not be negative"),
        (("--arch", "topk", "--relevel"), 2, "--relevel: is for --arch hier, not topk"),
        (("--arch", "batchtopk", "--tree-every", "50"), 2, "--tree-every: is for --arch hier, not batchtopk"),
        (("--bandwidth", "0.1"), 2, "--bandwidth: is for --arch jumprelu, not hier"),
        (("--moments", "float32"), 2, "--moments: is for --optimizer row-adam, not adam"),
    ],
)  # fmt: skip
def test_wrong_flags_get_an_error_message(
    tiny_acts: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = hiersae("train", tiny_acts, "-o", tmp_path / "run", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_caches_of_different_widths_do_not_mix(tiny_acts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(tiny_acts, other)
    with h5py.File(other, "r+") as file:
        name = next(iter(file["activations"]))
        narrow = file[f"activations/{name}"][:, :7]
        attributes = dict(file[f"activations/{name}"].attrs)
        del file[f"activations/{name}"]
        file.create_dataset(f"activations/{name}", data=narrow).attrs.update(attributes)
        mean = file[f"statistics/{name}/mean"][:7]
        del file[f"statistics/{name}/mean"]
        file[f"statistics/{name}/mean"] = mean
    done = hiersae("train", tiny_acts, other, *flags(), "-o", tmp_path / "run")
    assert done.returncode == 1
    assert "width (7)" in done.stderr and "Traceback" not in done.stderr


def test_activations_that_are_not_numbers_are_refused(tiny_acts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(tiny_acts, other)
    with h5py.File(other, "r+") as file:
        name = next(iter(file["activations"]))
        file[f"activations/{name}"][17] = np.nan
        file[f"norms/{name}"][17] = np.nan
    done = hiersae("train", other, *flags(), "-o", tmp_path / "run")
    assert done.returncode == 1
    assert "row 17" in done.stderr and "Traceback" not in done.stderr


def test_divergence_stops_with_advice(tiny_acts: Path, tmp_path: Path) -> None:
    done = hiersae("train", tiny_acts, *flags("topk"), "-o", tmp_path / "run", "--lr", "1e30", "--clip", "0")
    assert done.returncode == 1
    assert "smaller --lr" in done.stderr and "Traceback" not in done.stderr


def test_training_on_two_caches_uses_the_rows_of_both(tiny_acts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(tiny_acts, other)
    on_one = hiersae("train", tiny_acts, *flags(tokens="1k"), "-o", tmp_path / "one")
    on_both = hiersae("train", tiny_acts, other, *flags(tokens="1k"), "-o", tmp_path / "both")
    rows = [int(done.stderr.split("epochs of ")[1].split(" rows")[0].replace(",", "")) for done in (on_one, on_both)]
    assert rows[1] == 2 * rows[0]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions or mounts")
def test_an_output_that_cannot_be_written_is_refused_at_once(tiny_acts: Path) -> None:
    done = hiersae("train", tiny_acts, *flags(), "-o", "/proc/run")
    assert done.returncode == 1
    assert "/proc/run" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_default_sizes_of_every_architecture_match(arch: str) -> None:
    """With default flags all architectures have as many latents and the same L0, so that their runs are comparable."""
    config = TrainConfig(acts=[], arch=arch)
    assert (sum(config.widths), sum(config.k)) == (2048, 32)
    assert build(config, 8).latents == 2048


def test_a_recorded_flag_of_another_architecture_is_read(tiny_flat: Path, tmp_path: Path) -> None:
    """Earlier releases accepted --tree-every with a flat architecture and recorded it."""
    shutil.copytree(tiny_flat, tmp_path / "run")
    header = json.loads((tmp_path / "run" / "config.json").read_text())
    header["config"] |= {"tree_every": 7, "relevel": True}
    (tmp_path / "run" / "config.json").write_text(json.dumps(header))
    assert load_run(tmp_path / "run").config.tree_every == 7


def test_numbers_in_messages_are_rounded_unless_that_hides_a_difference() -> None:
    assert first_difference({"lr": 0.004242640687119286}, {"lr": 0.001}) == "lr was 0.00424264 and is now 0.001"
    close = first_difference({"lr": 0.1}, {"lr": 0.1 + 1e-12})
    assert close and "0.1 and" in close and "0.100000000001" in close


def test_training_on_the_same_rows_too_often_gives_a_warning(tiny_acts: Path, tmp_path: Path) -> None:
    sizes = ("--arch", "topk", "--widths", "8", "--k", "1", "--batch", "8192", "--tokens", "1M", "--device", "cpu")
    done = hiersae("train", tiny_acts, *sizes, "-o", tmp_path / "run", "--quiet")
    assert done.returncode == 0 and "times, so latents may fit only these rows: cache more text" in done.stderr
    assert "or pass --tokens " in done.stderr and "e+" not in done.stderr


def test_compile_without_a_compiler_says_what_to_do(tiny_acts: Path, tmp_path: Path) -> None:
    flags = ("--widths", "16,112", "--k", "4,4", "--tokens", "10k", "--batch", 512, "--device", "cpu")
    without = {"CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    out = tmp_path / "run"
    done = hiersae("train", tiny_acts, *flags, "--optimizer", "row-adam", "--compile", "-o", out, env=without)
    assert done.returncode == 1, done.stderr
    assert "--compile: torch.compile failed: " in done.stderr and "Traceback" not in done.stderr
    assert "Leave --compile out, or install a C++ compiler." in done.stderr
    assert not (out / "model.safetensors").exists()
    done = hiersae("train", tiny_acts, *flags, "--compile", "-o", out)
    assert done.returncode == 2 and "is for --optimizer row-adam" in done.stderr


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({name: golden_figures(name) for name in [*ARCHITECTURES, DEEP]}, indent=1) + "\n")
