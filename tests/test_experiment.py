"""The experiment: what a run writes, that it goes on after a kill, what it takes over, what it refuses, its plots."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hiersae_cli.cli import main
from hiersae_cli.errors import HierSAEError
from hiersae_cli.formats import experiment_run
from hiersae_cli.formats.index import IndexFile
from hiersae_cli.host import charlm
from hiersae_cli.host.model import Host
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.experiment.steps import untouched
from tests.fixtures_chain import sentences
from tests.helpers import PATIENCE, command, environment, hiersae

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = Path(__file__).parents[1] / "experiment.py"
CPU = {"CUDA_VISIBLE_DEVICES": ""}  # the plan of these tests has no GPU's configuration

PLAY, WIKI = "shakespeare_char (first 6,000 bytes)", "enwik8 (first 5,000 bytes)"
PLAN = """
[runs.run_1]
tests = "the whole method"
[runs.run_2]
tests = "no curriculum"
hier = { curriculum = "none" }
[runs.run_3]
tests = "a narrower host"
cpu = { host = { width = 8 } }
[cpu]
check_tokens = 256
host = { layers = 2, width = 16, heads = 2, context = 32, steps = 6, batch = 4, eval_every = 3, warmup = 1 }
samples = { count = 2, tokens = 8 }
text = { rows = 4096, document = 256 }
cache = { layer = "1", held_out = 0.25 }
hier = { arch = "hier", widths = [4, 12], k = [2, 2], tokens = 4096, batch = 256, log_every = 4 }
flat = { arch = "batchtopk", widths = [16], k = [4], tokens = 4096, batch = 256, log_every = 4 }
eval = { tasks = ["hierarchy"], tokens = 2048, loss_tokens = 256, task_rows = 1024, resamples = 100 }
tree = { tokens = 2048 }
index = { tokens = 2048 }
data.shakespeare_char = { host_seeds = [0], sae_seeds = [0, 1] }
"""
SECOND_SET = "data.enwik8 = { host_seeds = [0, 1], sae_seeds = [0] }"
UNIT = "shakespeare_char/seed-0"
TIMES = ("total_train_time", "avg_inference_tokens_per_second")
STEPS = ["host", "samples", "acts.h5", "hier-0", "flat-0", "hier-1", "flat-1", "report.json"]
STEPS += ["tree-0.json", "hier-0/dashboard.h5", "tree-1.json", "hier-1/dashboard.h5", "host-check.json"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``hiersae ARGS`` in this process, which has torch already."""

    def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(sys, "argv", ["hiersae", *map(str, args)])
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        return subprocess.CompletedProcess([*map(str, args)], int(exit.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of two data sets, one of the first alone, and ``data/``."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "experiment.toml").write_text(PLAN + SECOND_SET)
    (folder / "first.toml").write_text(PLAN)
    (folder / "play.txt").write_text(("First Citizen:\n" + sentences(6000))[:6000])
    (folder / "wiki.txt").write_text(("<mediawiki xmlns=" + sentences(6000, seed=1))[:5000])
    for name, file in (("shakespeare_char", "play.txt"), ("enwik8", "wiki.txt")):
        assert hiersae("data", "get", name, "--from", file, "--prefix", cwd=folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """The folder of run_1, carried out by the script."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out_dir=run_1"], cwd=folder, env=environment(CPU), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "the whole method; configuration cpu" in done.stderr
    assert "run_1/final_info.json: complete\nnext: hiersae experiment plot run_1" in done.stderr
    return folder / "run_1"


@pytest.fixture
def second(finished: Path, folder: Path, run: Run) -> Path:
    """The folder of run_2, on the first data set alone; whichever test comes first carries it out."""
    if not (folder / "run_2").exists():
        done = run("experiment", "run", "--out_dir", "run_2", "--plan", "first.toml", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == info(folder / "run_2")
    return folder / "run_2"


def info(of: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((of / "final_info.json").read_text())
    return found


def log(of: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (of / "log.jsonl").read_text().splitlines()]


def test_final_info_has_the_means_and_errors_of_every_seed(finished: Path) -> None:
    found = info(finished)
    assert list(found) == [PLAY, WIKI]  # prefixes, and named so
    for title, hosts, pairs in ((PLAY, 1, 2), (WIKI, 2, 2)):
        assert list(found[title]) == ["means", "stderrs", "final_info_dict"]
        means, errors, of_seeds = found[title].values()
        assert list(means) == [f"{key}_mean" for key in of_seeds]
        assert list(errors) == [f"{key}_stderr" for key in of_seeds]
        for key in ("final_train_loss", "best_val_loss", *TIMES, "host_loss_change"):
            assert len(of_seeds[key]) == hosts
        for metric in ("fvu", "l0", "ce_recovered", "p_parent_given_child", "hierarchy_score"):
            ours, theirs, difference = (of_seeds[f"{metric}_{kind}"] for kind in ("hier", "flat", "difference"))
            assert len(ours) == len(theirs) == pairs
            assert difference == pytest.approx([a - b for a, b in zip(ours, theirs, strict=True)])
        for key, values in of_seeds.items():
            known, several = None not in values, None not in values and len(values) > 1
            assert means[f"{key}_mean"] == (pytest.approx(mean(values)) if known else None)
            error = pytest.approx(stdev(values) / len(values) ** 0.5) if several else None
            assert errors[f"{key}_stderr"] == error
        assert of_seeds["host_loss_change"] == [0.0] * hosts


def test_final_info_says_what_the_files_of_the_steps_say(finished: Path) -> None:
    host, samples, report = (
        json.loads((finished / UNIT / name).read_text())
        for name in ("host/hiersae.json", "samples.json", "report.json")
    )
    of_seeds = info(finished)[PLAY]["final_info_dict"]
    assert of_seeds["best_val_loss"] == [host["validation_loss"]]
    assert of_seeds["final_train_loss"] == [host["history"][-1]["training_loss"]]
    assert of_seeds["avg_inference_tokens_per_second"] == pytest.approx([mean(samples["tokens_per_second"])])
    assert [len(text) for text in samples["texts"]] == [8, 8]
    assert of_seeds["fvu_hier"] == [report["runs"][f"hier-{seed}"]["fvu"]["value"] for seed in (0, 1)]
    assert of_seeds["fvu_hier"][0] != of_seeds["fvu_hier"][1]


def test_the_records_of_every_seed_are_there_twice(finished: Path) -> None:
    results = json.loads((finished / "all_results.json").read_text())
    assert np.load(finished / "all_results.npy", allow_pickle=True).item() == results
    names = [f"{PLAY}_0", f"{WIKI}_0", f"{WIKI}_1"]
    assert list(results) == [f"{name}_{kind}_info" for name in names for kind in ("final", "train", "val")]
    assert [at["iter"] for at in results[f"{PLAY}_0_val_info"]] == [3, 6]
    assert set(results[f"{PLAY}_0_val_info"][0]) == {"iter", "train/loss", "val/loss"}
    pairs = results[f"{PLAY}_0_final_info"]["pairs"]
    assert [pair["l0_hier"] for pair in pairs] == info(finished)[PLAY]["final_info_dict"]["l0_hier"]


def test_every_step_is_done_once_and_started_again_none(finished: Path, folder: Path, run: Run) -> None:
    before = (finished / "log.jsonl").read_bytes()
    steps = [line["step"] for line in log(finished)]
    assert steps[: len(STEPS)] == [f"{UNIT}/{step}" for step in STEPS]
    assert set(Counter(steps).values()) == {1} and all(line["taken_over_from"] is None for line in log(finished))
    assert all((finished / step).exists() for step in steps if not step.endswith("samples"))
    done = run("experiment", "run", "--out_dir", finished, cwd=folder)
    assert done.returncode == 0 and "final_info.json: complete" in done.stderr
    assert (finished / "log.jsonl").read_bytes() == before


def test_an_unfinished_index_next_to_the_finished_one_is_removed(finished: Path, folder: Path, run: Run) -> None:
    index = finished / UNIT / "hier-1" / "dashboard.h5"
    unfinished = index.with_name("dashboard.h5.partial")
    unfinished.mkdir()
    (unfinished / "header.json").write_text(json.dumps({"made_of": IndexFile(index).header["made_of"]}))
    before = {name: (finished / name).read_bytes() for name in ("final_info.json", "log.jsonl")}
    (finished / "final_info.json").unlink()
    again = run("experiment", "run", "--out_dir", finished, cwd=folder)
    for name, content in before.items():
        (finished / name).write_bytes(content)
    assert again.returncode == 0, again.stderr
    assert index.exists() and not unfinished.exists()


def test_a_killed_run_goes_on_to_the_same_result(finished: Path, folder: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(folder / "data", tmp_path / "data")
    (tmp_path / "experiment.toml").write_text(PLAN)
    arguments = ("experiment", "run", "--out_dir", "run_1")
    killed = tmp_path / "run_1"
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, env=environment(CPU), stderr=subprocess.PIPE)
    deadline = time.monotonic() + PATIENCE
    while not (killed / UNIT / "hier-1" / "config.json").exists():  # its training begins
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (killed / "final_info.json").exists()
    before = log(killed)
    assert [line["step"].rpartition("/")[2] for line in before[:5]] == STEPS[:5]

    plotted = run("experiment", "plot", "run_1", cwd=tmp_path)
    assert plotted.returncode == 1 and plotted.stdout == ""
    assert "run_1: not finished" in plotted.stderr and "experiment.py --out_dir=run_1" in plotted.stderr

    again = run(*arguments, "--quiet", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout == "", again.stderr
    assert log(killed)[: len(before)] == before
    assert [line["step"] for line in log(killed)] == [f"{UNIT}/{step}" for step in STEPS]

    ours, theirs = (info(of)[PLAY] for of in (killed, finished))
    for part in ("means", "stderrs", "final_info_dict"):
        assert list(ours[part]) == list(theirs[part])
        for key, value in ours[part].items():
            assert key.startswith(TIMES) or value == theirs[part][key], key
    for kind in experiment_run.KINDS:
        assert experiment_run.read(killed).curves[PLAY, kind] == experiment_run.read(finished).curves[PLAY, kind]
    weights, wanted = (load_file(of / UNIT / "hier-1" / "model.safetensors") for of in (killed, finished))
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_what_is_the_same_is_taken_over(finished: Path, second: Path) -> None:
    taken = {line["step"].removeprefix(f"{UNIT}/"): line["taken_over_from"] for line in log(second)}
    assert list(taken) == STEPS
    same = {step for step, source in taken.items() if source}
    assert same == {"host", "samples", "acts.h5", "flat-0", "flat-1"}
    assert {taken[step] for step in same} == {f"run_1/{UNIT}"}
    ours, theirs = (info(of)[PLAY]["final_info_dict"] for of in (second, finished))
    for key in ("best_val_loss", *TIMES, "fvu_flat"):
        assert ours[key] == theirs[key]
    assert ours["fvu_hier"] != theirs["fvu_hier"]


def test_of_another_host_nothing_is_taken_over(
    finished: Path, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise HierSAEError("far enough")

    monkeypatch.setattr(evaluate, "run", stop)
    done = run("experiment", "run", "--out_dir", "run_3", "--plan", "first.toml", cwd=folder)
    assert done.returncode == 1 and "far enough" in done.stderr
    assert [line["taken_over_from"] for line in log(folder / "run_3")] == [None] * STEPS.index("report.json")


def test_the_host_is_as_it_was(finished: Path) -> None:
    checks = [json.loads(path.read_text()) for path in finished.glob("*/seed-*/host-check.json")]
    assert len(checks) == 3
    assert all(found["loss_before"] == found["loss_after"] != found["loss_spliced"] for found in checks)


@pytest.mark.parametrize("change", ["none", "hook before", "hook", "weights before", "weights", "files"])
def test_a_changed_host_is_noticed(change: str, tiny_host: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_host, tmp_path / "host")
    host, module = Host.load(str(tmp_path / "host"), torch.device("cpu")), "transformer.h.1"
    tokens_N = charlm.encode(host.tokenizer, sentences(256))
    left: list[Any] = []  # a hook stays while something knows of it

    def disturb() -> None:
        if "hook" in change and not left:
            left.append(host.spliced("transformer.h.0", lambda x_BTD: 1.5 * x_BTD))
            left[0].__enter__()
        if "weights" in change:
            next(host.model.parameters()).data.mul_(1.5)
        if change == "files":
            config = tmp_path / "host" / "config.json"
            config.write_text(config.read_text() + "\n")

    def reconstruct(x_ND: torch.Tensor) -> torch.Tensor:
        if "before" not in change:
            disturb()
        return 0.5 * x_ND

    if "before" in change:
        disturb()
    if change == "none":
        found = untouched(host, module, reconstruct, tokens_N)
        assert found["loss_before"] == found["loss_after"] != found["loss_spliced"]
    else:
        with pytest.raises(HierSAEError, match=r"host: not the model that it was"):
            untouched(host, module, reconstruct, tokens_N)


def test_a_run_that_is_not_planned(folder: Path, run: Run) -> None:
    done = run("experiment", "run", "--out_dir", "run_9", cwd=folder)
    assert done.returncode == 2
    assert "no run of experiment.toml is called 'run_9'" in done.stderr and "run_2: no curriculum" in done.stderr
    assert not (folder / "run_9").exists()


def test_without_data_it_says_what_to_download_and_where_to_put_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(PLAN + SECOND_SET)
    done = run("experiment", "run", "--out_dir", "run_1", cwd=tmp_path)
    assert done.returncode == 1
    for name, file in (("shakespeare_char", "input.txt"), ("enwik8", "enwik8.zip")):
        assert f"data/{name}: {name} is missing" in done.stderr
        assert re.search(
            rf"download https://\S+/{file} elsewhere, and:  hiersae data get {name} --data data", done.stderr
        )
    (tmp_path / "data" / "enwik8").mkdir(parents=True)
    (tmp_path / "data" / "enwik8" / "enwik8").write_text("<mediawiki xmlns=")
    done = run("experiment", "run", "--out_dir", "run_1", cwd=tmp_path)
    assert done.returncode == 1 and "17 bytes; enwik8 has 100,000,000" in done.stderr
    assert "hiersae data get enwik8 --data data --from data/enwik8/enwik8 --prefix" in done.stderr
    assert not (tmp_path / "run_1").exists()


def test_a_missing_data_set_is_reported_before_torch_is_imported(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "torch.py").write_text("raise SystemExit('torch was imported')")
    env = environment({"PYTHONPATH": str(tmp_path / "modules")})
    command = [sys.executable, SCRIPT, "--out_dir=run_1"]

    (tmp_path / "experiment.toml").write_text(PLAN + SECOND_SET)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "data/enwik8: enwik8 is missing\nGet it:  hiersae data get enwik8" in done.stderr
    (tmp_path / "experiment.toml").write_text(PLAN.replace("run_1", "run_7"))
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and "is called 'run_1'" in done.stderr
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == "torch was imported\n"  # with data


def test_data_that_only_the_other_machine_needs_is_not_missing(folder: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(folder / "data" / "shakespeare_char", tmp_path / "data" / "shakespeare_char")
    on_a_gpu = PLAN[PLAN.index("[cpu]") :].replace("[cpu]", "[gpu]") + SECOND_SET
    (tmp_path / "experiment.toml").write_text(PLAN + on_a_gpu)
    (tmp_path / "run_1").mkdir()
    (tmp_path / "run_1" / "thesis.tex").write_text("mine")
    done = run("experiment", "run", "--out_dir", "run_1", cwd=tmp_path)
    assert done.returncode == 1 and "other files in it" in done.stderr  # it has all data


def test_a_folder_of_something_else_is_left_alone(folder: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "run_1").mkdir()
    (tmp_path / "run_1" / "thesis.tex").write_text("mine")
    done = run("experiment", "run", "--out_dir", tmp_path / "run_1", cwd=folder)
    assert done.returncode == 1 and "other files in it, such as thesis.tex" in done.stderr
    assert [file.name for file in (tmp_path / "run_1").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 6", "steps = 7", "of shakespeare_char, steps was"),
        ("sae_seeds = [0, 1]", "sae_seeds = [0]", "of shakespeare_char, sae_seeds was [0, 1] and is now [0]"),
        (SECOND_SET, "", "data was"),
    ],
)
def test_a_plan_that_changed_is_refused(
    old: str, new: str, said: str, finished: Path, folder: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "experiment.toml").write_text((PLAN + SECOND_SET).replace(old, new))
    (tmp_path / "data").symlink_to(folder / "data")
    done = run("experiment", "run", "--out_dir", finished, cwd=tmp_path)
    assert done.returncode == 1 and f"run_1: holds a run of another configuration: {said}" in done.stderr
    assert "Move the folder away" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("layers = 2", "layer = 2", "host.layer cannot be set\nOptions of host: batch, bias"),
        ("layers = 2", "layers = 2, seed = 1", "host.seed cannot be set"),
        ("layers = 2", "layers = 2, validation = 0.2", "host.validation cannot be set"),
        ('["hierarchy"]', '["hierarchy"], html = "page.html"', "eval.html cannot be set"),
        ("layers = 2", 'layers = "2"', "host.layers cannot be '2'"),
        ("layers = 2", "layers = 0", "shakespeare_char: host: --layers 0: must be at least 1"),
        ("widths = [4, 12]", "widths = [4, true]", "hier.widths cannot be [4, True]"),
        ("widths = [16]", "widths = [20]", "hier and flat differ"),
        ('["hierarchy"]', '["tree"]', "eval: --tasks tree: has an unknown task\nTasks: probing"),
        ("document = 256", "document = 256, row = 1", "text.row cannot be set"),
        ("text = {", 'text = "all"\ntexts = {', "[cpu] or [runs.run_1] is not as expected"),
        ("count = 2", "count = 0", "samples must be at least 1"),
        ("sae_seeds = [0, 1]", "sae_seeds = 2", "sae_seeds cannot be 2"),
        ("sae_seeds = [0, 1]", "sae_seeds = [1, 1]", "one or more different seeds"),
        ("host_seeds = [0]", "host_seeds = [0, 1]", "give one of the two a single seed"),
        ("shakespeare_char", "hamlet", "hamlet is not a known data set\nKnown: shakespeare_char"),
        ("[cpu]", "[cpu]\nhots = 3", "hots is not part of a plan"),
        ("[runs.run_1]", "[runs.run_1", "not a TOML file"),
        ("[runs.run_2]", "[plans.run_2]", "[plans] is not part of a plan"),
        ("[runs.run_1]", "[runs]\nrun_4 = 1\n[runs.run_1]", "plans no run"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_is_done(
    old: str, new: str, said: str, run: Run, tmp_path: Path
) -> None:
    assert old in PLAN
    (tmp_path / "experiment.toml").write_text(PLAN.replace(old, new))
    done = run("experiment", "run", "--out_dir", "run_1", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: experiment.toml: ") and said in done.stderr
    assert not (tmp_path / "run_1").exists()


def test_plots_and_tables_compare_runs(finished: Path, second: Path, folder: Path, run: Run) -> None:
    done = run("experiment", "plot", "run_1", "run_2", "-o", "plots", cwd=folder)
    assert done.returncode == 0, done.stderr
    names = ["frontier.svg", "host-training.svg", "training.svg", "tree.svg"]
    assert sorted(path.name for path in (folder / "plots").iterdir()) == names
    for name in names:
        assert ElementTree.parse(folder / "plots" / name).getroot().tag.endswith("svg")
    assert "| run_2 | no curriculum | cpu |" in done.stdout
    assert "effective rank of about 15 of 128" in done.stdout and "measure the code" in done.stdout
    for name in names:  # matplotlib draws letters as paths, with the text of each line in a comment
        lines = re.findall(r"<!-- (.*?) -->", (folder / "plots" / name).read_text())
        assert "effective rank of about 15 of 128" in " ".join(lines)
    assert f"### {PLAY}" in done.stdout and f"### {WIKI}" in done.stdout
    # The flat dictionaries were taken over: a row for both runs. Student's t of two values is 12.706.
    entry = info(finished)[PLAY]
    shown = f"{entry['means']['fvu_flat_mean']:.4g} ± {12.7062 * entry['stderrs']['fvu_flat_stderr']:.2g} (2)"
    assert f"| run_1, run_2 | flat | {shown} |" in done.stdout

    refused = run("experiment", "plot", "run_1", "run_2", "-o", "plots", cwd=folder)
    assert refused.returncode == 1 and ".svg: already exists" in refused.stderr and "--overwrite" in refused.stderr
    told = run("experiment", "plot", "run_1", "--json", cwd=folder)
    assert json.loads(told.stdout) == {"runs": {"run_1": info(finished)}, "plots": []}
    twice = run("experiment", "plot", "run_1", "./run_1", cwd=folder)
    assert twice.returncode == 2 and "two runs have the same name" in twice.stderr
    nothing = run("experiment", "plot", "plots", cwd=folder)
    assert nothing.returncode == 1 and "plots/experiment.json: no such file" in nothing.stderr
