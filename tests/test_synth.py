"""Synthetic activations: the truth, its statistics and its file, and the chain over it."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hiersae_cli.config.synth import PRESETS, SynthConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import HELD_OUT, Activations, ActivationSet
from hiersae_cli.formats.activations.layout import TRUTH
from hiersae_cli.synth import Generator, Shape, Stream, block_seed, generator
from hiersae_cli.workflows import synth
from hiersae_cli.workflows.train.sources import DrawnRows
from tests.data.make_archive import TRUTH_ARCHIVE
from tests.helpers import PATIENCE, hiersae, start

SMALL = {
    "toy": Shape(),
    "synthtree-1k": Shape(features=64, width=16, roots=4, branching=3, depth=2),
    "synthsaebench-16k": Shape(features=90, width=16, roots=2, branching=2, depth=3),
}
SMALL_FLAGS = ("--truth-features", "64", "--truth-width", "16", "--truth-roots", "2", "--truth-branching", "2")
TRAIN = ("--widths", "4,20", "--k", "1,2", "--batch", "128", "--log-every", "20", "--device", "cpu")


@pytest.fixture(scope="module", params=PRESETS)
def small(request: pytest.FixtureRequest) -> Generator:
    return generator(request.param, SMALL[request.param])


@pytest.fixture(scope="module")
def toy_acts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synth") / "acts.h5"
    done = hiersae("synth", "toy", "--rows", "6k", "--held-out", "0.25", "--device", "cpu", "-o", path)
    assert done.returncode == 0, done.stderr
    assert "next: hiersae train" in done.stderr
    return path


# ---------------------------------------------------------------- the truth and what is drawn from it


def test_rows_are_sums_of_the_features_that_fire(small: Generator) -> None:
    truth = small.truth
    x_BD, magnitude_BN = small.sample(500, 3)
    assert x_BD.dtype == magnitude_BN.dtype == torch.float32 and not x_BD.requires_grad
    assert x_BD.shape == (500, small.width) and magnitude_BN.shape == (500, len(truth))
    assert (magnitude_BN >= 0).all()
    assert torch.allclose(magnitude_BN @ truth.features_ND + truth.bias_D, x_BD, atol=1e-4)
    assert torch.allclose(truth.features_ND.norm(dim=1), torch.ones(len(truth)), atol=1e-5)
    assert truth.parent_N.dtype == torch.int64 and truth.features_ND.dtype == torch.float32


def test_the_tree_is_of_the_wanted_shape(small: Generator) -> None:
    shape, parent_N = small.shape, small.truth.parent_N
    in_trees = shape.roots * sum(shape.branching**level for level in range(shape.depth + 1))
    assert (parent_N[: shape.roots] == -1).all() and (parent_N[in_trees:] == -1).all()
    assert (parent_N[shape.roots : in_trees] >= 0).all()
    _, children = parent_N[parent_N >= 0].unique(return_counts=True)
    assert (children == shape.branching).all()


def test_children_fire_only_with_their_parent_and_siblings_never_together(small: Generator) -> None:
    parent_N = small.truth.parent_N
    fires_BN = small.sample(20_000, 0)[1] > 0
    child_E = (parent_N >= 0).nonzero().squeeze(1)
    assert not (fires_BN[:, child_E] & ~fires_BN[:, parent_N[child_E]]).any()
    for parent in parent_N[child_E].unique():
        assert fires_BN[:, parent_N == parent].sum(1).max() == 1
    rate_N, meant_N = fires_BN.float().mean(0), small.truth.probability_N
    alone_N = (parent_N < 0) & (meant_N > 0.02)
    assert torch.allclose(rate_N[alone_N], meant_N[alone_N], rtol=0.15)


def test_the_toy_fires_at_its_rates() -> None:
    toy = generator("toy")
    magnitude_BN = toy.sample(200_000, 0)[1]
    rates = [0.15] * 3 + [0.03] * 9 + [0.05] * 8
    assert toy.truth.probability_N.tolist() == pytest.approx(rates)
    assert (magnitude_BN > 0).float().mean(0).tolist() == pytest.approx(rates, rel=0.05)
    fired = magnitude_BN[magnitude_BN > 0]
    assert (float(fired.mean()), float(fired.std())) == pytest.approx((1, 0.05), rel=0.02)
    assert torch.allclose(toy.truth.features_ND @ toy.truth.features_ND.T, torch.eye(20), atol=1e-5)


def test_drawing_depends_on_the_seed_alone_and_leaves_torch_as_it_was(small: Generator) -> None:
    again = generator(small.preset, small.shape)
    assert again.truth.fingerprint() == small.truth.fingerprint()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = small.sample(300, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert all(torch.equal(a, b) for a, b in zip(again.sample(300, 1), first, strict=True))
    assert not torch.equal(small.sample(300, 2)[0], first[0])
    other = generator(small.preset, Shape(**{**vars(small.shape), "seed": 5}))
    assert other.truth.fingerprint() != small.truth.fingerprint()


def test_directions_of_before_give_the_same_truth(small: Generator) -> None:
    again = generator(small.preset, small.shape, directions_ND=small.truth.features_ND)
    assert again.truth.fingerprint() == small.truth.fingerprint()
    assert torch.equal(again.sample(100, seed=1)[0], small.sample(100, seed=1)[0])


def test_streams_and_blocks_have_seeds_of_their_own() -> None:
    seeds = [block_seed(seed, stream, number) for seed in (0, 1) for stream in Stream for number in range(50)]
    assert len(set(seeds)) == len(seeds)


def test_without_sae_lens_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    monkeypatch.setitem(sys.modules, "sae_lens.synthetic", None)
    with pytest.raises(UsageError, match=r"pip install -c constraints.txt -e '\.\[synth\]'"):
        generator("synthtree-1k", SMALL["synthtree-1k"])
    generator("toy")


# ---------------------------------------------------------------- the file


def test_the_file_gives_back_truth_and_firings(toy_acts: Path) -> None:
    toy = generator("toy")
    drawn = [toy.sample(rows, block_seed(0, Stream.FILE, block)) for block, rows in enumerate((2048, 2048, 1904))]
    x_BD, magnitude_BN = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    with Activations(toy_acts) as acts:
        assert torch.equal(acts.read("synth"), x_BD)
        assert acts.truth is not None and acts.truth.fingerprint() == toy.truth.fingerprint()
        assert acts.header["host"]["fingerprint"] == toy.truth.fingerprint()
        held_out_H = np.flatnonzero(acts.column("split") == HELD_OUT)
        assert len(held_out_H) == 12 * 128
        assert torch.equal(acts.true_features(held_out_H), magnitude_BN[held_out_H])
        some_R = np.random.default_rng(0).permutation(held_out_H)[:100]
        assert torch.equal(acts.true_features(some_R), magnitude_BN[some_R])
        assert acts.true_features(some_R[:0]).shape == (0, 20)
        with pytest.raises(ValueError, match="held-out"):
            acts.true_features(np.flatnonzero(acts.column("split") != HELD_OUT)[:1])
        document = acts.column("document")
        assert len(set(document[held_out_H])) == 12 and acts.documents == 47
    assert [path.name for path in toy_acts.parent.iterdir()] == ["acts.h5"]


def test_several_files_of_one_truth_read_as_one(toy_acts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    synth.run(SynthConfig(preset="toy", rows=500, held_out=0.5, draw_seed=1, out=str(other), device="cpu"))
    acts = ActivationSet([str(toy_acts), str(other)])
    assert acts.truth is not None
    row_R = np.flatnonzero(acts.usable(HELD_OUT))[::-7].copy()
    magnitude_RN = acts.true_features(row_R)
    x_RD = acts.rows_at(np.sort(row_R))[np.argsort(np.argsort(row_R))]
    assert torch.allclose(magnitude_RN @ acts.truth.features_ND, x_RD, atol=1e-5)
    acts.close()
    third = tmp_path / "third.h5"
    synth.run(SynthConfig(preset="toy", rows=500, truth_seed=3, out=str(third), device="cpu"))
    with pytest.raises(FileError, match="third"):
        ActivationSet([str(toy_acts), str(third)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_types_are_stored_rounded(tmp_path: Path, dtype: str) -> None:
    config = SynthConfig(preset="toy", rows=300, held_out=0, dtype=dtype, out=str(tmp_path / "acts.h5"), device="cpu")
    summary = synth.run(config)
    assert summary["splits"] == {"train": 300, "held_out": 0}
    with Activations(config.out) as acts:
        x = generator("toy").sample(300, block_seed(0, Stream.FILE, 0))[0]
        assert torch.equal(acts.read("synth"), x.to(getattr(torch, dtype)))
        assert acts.true_features(np.array([], int)).shape == (0, 20)


def test_the_truth_is_specified_and_in_the_fingerprint(toy_acts: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "file-formats.md").read_text(encoding="utf-8")
    specified = re.findall(r"^\| `truth/([a-z/]+)` \|", page, re.MULTILINE)
    assert specified == list(TRUTH)
    digest = hashlib.sha256()
    with h5py.File(toy_acts) as file:
        assert file.attrs["schema_version"] == 2
        for name in ("tokens", "document", "position", "split"):
            digest.update(file[name][...].tobytes())
        digest.update(b"synth" + file["activations/synth"][...].tobytes())
        for name in specified:
            digest.update(file[f"truth/{name}"][...].tobytes())
        assert file["fingerprint"][()].decode() == digest.hexdigest()


def test_a_file_of_version_2_is_still_read() -> None:
    with Activations(TRUTH_ARCHIVE) as acts:
        assert acts.fingerprint == "66da2df3ec5e422a10505570dba520d1db78f81f0e94284d44e8a30613a114e6"
        assert acts.truth is not None
        assert acts.truth.parent_N.tolist() == [-1] * 3 + [0] * 3 + [1] * 3 + [2] * 3 + [-1] * 8
        row_R = np.flatnonzero(acts.column("split") == HELD_OUT)
        x_RD = acts.true_features(row_R) @ acts.truth.features_ND
        assert torch.allclose(x_RD, acts.read("synth")[row_R], atol=1e-5)


def test_damage_to_the_truth_is_recognised(toy_acts: Path, tmp_path: Path) -> None:
    path = tmp_path / "acts.h5"
    path.write_bytes(toy_acts.read_bytes())
    with h5py.File(path, "r+") as file:
        file["truth/parent"][5] = 1
    done = hiersae("info", path, "--verify")
    assert done.returncode == 1 and "fingerprint is not that of its content" in done.stderr
    with h5py.File(path, "r+") as file:
        del file["truth/firings/feature"]
    with pytest.raises(FileError, match="damaged"):
        Activations(path)


def test_info_tells_of_the_truth(toy_acts: Path) -> None:
    done = hiersae("info", toy_acts, "--verify")
    assert done.returncode == 0, done.stderr
    assert "20 features, 9 of them with a parent" in done.stdout
    answer = json.loads(hiersae("info", toy_acts, "--json").stdout)
    assert answer["truth"] == {"features": 20, "edges": 9}
    assert answer["config"]["truth_branching"] == 3 and answer["config"]["truth_seed"] == 42


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_file_leaves_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    arguments = ("synth", "toy", "--rows", "20M", "--held-out", "0", "-o", tmp_path / "acts.h5", "--device", "cpu")
    process = start(*arguments)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "acts.h5.partial").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(stop)
    errors = process.communicate()[1]
    assert process.returncode == 130, errors
    assert "nothing is kept" in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the chain


def test_the_chain_runs_over_a_known_tree(toy_acts: Path, tmp_path: Path) -> None:
    made = hiersae("train", toy_acts, *TRAIN, "--tokens", "30k", "-o", tmp_path / "cached")
    assert made.returncode == 0, made.stderr
    assert "--model" not in made.stderr
    drawn = hiersae("train", "--synth", "toy", *TRAIN, "--tokens", "30k", "-o", tmp_path / "drawn")
    assert drawn.returncode == 0, drawn.stderr
    assert "new rows of toy" in drawn.stderr and "next: hiersae synth toy -o acts.h5" in drawn.stderr
    for run in ("cached", "drawn"):
        report = tmp_path / f"{run}.json"
        done = hiersae("eval", tmp_path / run, "--acts", toy_acts, "-o", report)
        assert done.returncode == 0, done.stderr
        fvu = json.loads(report.read_text())["runs"][run]["fvu"]["value"]
        assert fvu < 0.7
    assert hiersae("export-tree", tmp_path / "drawn", "--acts", toy_acts, "-o", tmp_path / "t.json").returncode == 0


def test_a_run_records_its_truth_and_is_not_measured_on_another(toy_acts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = hiersae("train", "--synth", "toy", "--truth-seed", "9", *TRAIN, "--tokens", "1k", "-o", run)
    assert done.returncode == 0, done.stderr
    assert "synth toy --truth-seed 9 -o" in done.stderr
    header = json.loads((run / "config.json").read_text())
    expected = generator("toy", Shape(seed=9)).truth.fingerprint()
    assert header["inputs"] == {"toy": expected} and header["host"]["fingerprint"] == expected
    assert header["config"]["synth"] == "toy" and header["config"]["truth_features"] == 20
    assert header["host"]["shape"]["seed"] == 9 and header["module"] == "synth" and header["width"] == 20
    other = hiersae("eval", run, "--acts", toy_acts)
    assert other.returncode == 1 and "was trained on those of toy" in other.stderr


@pytest.mark.parametrize("preset", ["toy", "synthtree-1k"])
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, preset: str) -> None:
    shape = () if preset == "toy" else SMALL_FLAGS
    tokens = "60k" if preset == "toy" else "8k"  # long enough to be killed before it ends
    flags = ("train", "--synth", preset, *shape, *TRAIN, "--tokens", tokens)
    assert hiersae(*flags, "-o", tmp_path / "whole").returncode == 0
    run = tmp_path / "run"
    arguments = (*flags, "-o", run, "--checkpoint-seconds", "0")
    process = start(*arguments)
    deadline = time.monotonic() + PATIENCE
    while not (run / "state" / "state.safetensors").exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    again = hiersae(*arguments)
    assert again.returncode == 0 and "resuming from step" in again.stderr, again.stderr
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_batches_can_begin_anywhere_and_differ() -> None:
    source = DrawnRows(TrainConfig(synth="toy"), torch.device("cpu"))
    whole = source.batches(64)
    batches = [next(whole) for _ in range(5)]
    assert torch.equal(next(source.batches(64, first=3)), batches[3])
    assert not torch.equal(batches[0], batches[1])
    mean_D, mean_square = source.moments()
    x_BD = torch.cat([next(whole) for _ in range(500)]).double()
    assert mean_square == pytest.approx(float(x_BD.square().sum(1).mean()), rel=0.03)
    assert np.allclose(mean_D, x_BD.mean(0), atol=0.03)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("synth", "tree"), "toy, synthtree-1k"),
        (("synth", "toy", "--rows", "0"), "at least 1"),
        (("synth", "toy", "--rows", "10", "--held-out", "11"), "between 0 and the 10 rows"),
        (("synth", "toy", "--held-out", "-0.1"), "between 0"),
        (("synth", "toy", "--held-out", "some"), "not a number"),
        (("synth", "toy", "--truth-width", "10"), "each of 20 features"),
        (("synth", "toy", "--truth-depth", "2"), "more than --truth-features 20"),
        (("synth", "toy", "--truth-depth", "2", "--truth-features", "40", "--truth-width", "40"), "one level"),
        (("synth", "toy", "--truth-branching", "6", "--truth-features", "30", "--truth-width", "30"), "a fifth"),
        (("synth", "synthtree-1k", "--truth-features", "100"), "more than --truth-features 100"),
        (("synth", "synthtree-1k", "--truth-branching", "1"), "there must be at least two"),
        (("synth", "synthtree-1k", "--truth-roots", "-3"), "must not be negative"),
        (("train",), "ACTS, or --synth"),
        (("train", "acts.h5", "--synth", "toy"), "one of the two"),
        (("train", "acts.h5", "--truth-width", "30"), "is for --synth"),
        (("train", "--synth", "trees"), "toy, synthtree-1k"),
        (("train", "--synth", "toy", "--module", "h.1"), "no modules"),
        (("train", "--synth", "toy", "--truth-roots", "9"), "more than --truth-features 20"),
    ],
)  # fmt: skip
def test_wrong_flags_are_answered_in_one_sentence(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = hiersae(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_not_written_over(toy_acts: Path, tmp_path: Path) -> None:
    before = toy_acts.read_bytes()
    done = hiersae("synth", "toy", "-o", toy_acts)
    assert done.returncode == 1 and "already exists" in done.stderr
    assert toy_acts.read_bytes() == before
    (tmp_path / "acts.h5.partial").write_text("hours of work")
    config: dict[str, Any] = {"preset": "toy", "rows": 200, "out": str(tmp_path / "acts.h5"), "device": "cpu"}
    with pytest.raises(FileError, match="unfinished"):
        synth.run(SynthConfig(**config))
    synth.run(SynthConfig(**config, overwrite=True))
    assert [path.name for path in tmp_path.iterdir()] == ["acts.h5"]


def test_a_synthetic_file_is_no_shard(toy_acts: Path, tmp_path: Path) -> None:
    done = hiersae("join", toy_acts, "-o", tmp_path / "joined.h5")
    assert done.returncode == 1 and "not a shard" in done.stderr
