"""Attention sinks: rows of giant norm are left out by default, keep their activations in every splice, and where they
are kept every command says that they hold most of the variance."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.formats.activations import HELD_OUT, TRAIN, Activations, ActivationSet
from hiersae_cli.formats.activations.outliers import variance_share
from hiersae_cli.formats.run import load_run
from hiersae_cli.host.model import Host
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.workflows import info
from hiersae_cli.workflows.cache import run as cache
from hiersae_cli.workflows.dashboard import run as dashboard
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.eval.report import contradictions
from hiersae_cli.workflows.train import run as train
from hiersae_cli.workflows.tree import run as export_tree
from tests.fixtures_chain import CONTEXT
from tests.helpers import Said

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Chain:
    """The same rows cached with their sinks left out, and with them kept; and runs trained on each."""

    host: Path
    dropped: Path
    kept: Path
    said: dict[str, str]
    run_of_dropped: Path
    run_of_kept: Path
    run_without: Path


@pytest.fixture(scope="module")
def sinks(tiny_host: Path, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A host whose first token of every window is a sink, and what is made of it."""
    folder = tmp_path_factory.mktemp("sinks")
    host = folder / "host"
    shutil.copytree(tiny_host, host)
    weights = load_file(host / "model.safetensors")
    weights["transformer.wpe.weight"][0] *= 3000
    save_file(weights, host / "model.safetensors", {"format": "pt"})
    said = {}

    def cached(name: str, **options: Any) -> Path:
        path, console = folder / f"{name}.h5", Said()
        flags = {"texts": [str(tiny_text)], "model": str(host), "layer": "1", "device": "cpu", "held_out": 0.2}
        cache.run(CacheConfig(**flags, document_tokens=512, out=str(path), **options), console)
        said[name] = console.text
        return path

    def trained(name: str, acts: Path, **options: Any) -> Path:
        path, console = folder / name, Said()
        sizes = {"arch": "hier", "widths": (8, 24), "k": (2, 2), "tokens": 40_000, "batch": 256, "buffer": 16}
        train.run(TrainConfig(acts=[str(acts)], out=str(path), device="cpu", **sizes, **options), console)
        said[name] = console.text
        return path

    dropped, kept = cached("dropped"), cached("kept", drop_outliers=False)
    runs = trained("of-dropped", dropped), trained("of-kept", kept), trained("without", kept, drop_outliers=True)
    return Chain(host, dropped, kept, said, *runs)


def windows(acts: Path) -> int:
    with Activations(acts) as opened:
        return int((opened.column("position") == 0).sum())


def test_cache_says_at_once_what_it_finds_and_leaves_it_out(sinks: Chain) -> None:
    module = "transformer.h.1"
    for name, fate in (("dropped", "left out (--keep-outliers keeps them)"), ("kept", "kept, as asked")):
        first, rest = sinks.said[name].split("statistics and fingerprint")
        assert f"{module}: 32 of the first 2,048 rows, all at the start of a window" in first
        assert "% of the variance (attention sinks)" in first and fate in first
        assert "outlier" in rest
    count = windows(sinks.dropped)
    assert f"left out: {count:,} outliers (norm over 10 x the median)" in sinks.said["dropped"]
    assert f"{count:,} outliers (norm over 10 x the median) among them" in sinks.said["kept"]
    assert " dropped" not in sinks.said["dropped"].split("statistics")[1].replace("dropped.h5", "")
    with Activations(sinks.dropped) as acts:
        used = acts.usable(module, TRAIN) | acts.usable(module, HELD_OUT)
        assert np.array_equal(~used, acts.column("position") == 0)


def test_every_command_warns_where_a_few_rows_hold_most_of_the_variance(sinks: Chain, tmp_path: Path) -> None:
    warning = "training rows hold"
    assert warning in sinks.said["of-kept"] and "--drop-outliers" in sinks.said["of-kept"]
    assert warning not in sinks.said["of-dropped"] + sinks.said["without"]
    told = {path: info.run(InfoConfig(path=str(path)))[1] for path in (sinks.kept, sinks.dropped)}
    assert warning in told[sinks.kept] and warning not in told[sinks.dropped]
    for run, acts, expected in ((sinks.run_of_kept, sinks.kept, True), (sinks.run_without, sinks.kept, False)):
        report = evaluate.run(EvalConfig(runs=[str(run)], acts=[str(acts)], device="cpu", controls=False))
        assert any(warning in text for text in report["warnings"]) == expected
        console = Said()
        config = DashboardConfig(run=str(run), acts=[str(acts)], device="cpu", index=str(tmp_path / f"{expected}.h5"))
        index, _ = dashboard.open_dashboard(config, console)
        assert (warning in console.text) == expected == any(warning in text for text in index.overview().warnings)


def test_training_without_the_outliers_of_an_existing_cache(sinks: Chain) -> None:
    one, other = (load_file(run / "model.safetensors") for run in (sinks.run_of_dropped, sinks.run_without))
    for name, values in one.items():
        torch.testing.assert_close(values, other[name], rtol=1e-3, atol=1e-4)
    with_sinks = load_file(sinks.run_of_kept / "model.safetensors")
    assert not torch.allclose(with_sinks["b_dec_D"], one["b_dec_D"], atol=0.1)


def test_moments_without_outliers_are_those_of_the_rows_in_use(sinks: Chain) -> None:
    acts = ActivationSet([str(sinks.kept), str(sinks.kept)], drop_outliers=True)
    x_ND = acts.rows_at(np.flatnonzero(acts.rows_of(TRAIN))).double()
    mean, mean_square = acts.moments()
    np.testing.assert_allclose(mean, x_ND.mean(0).numpy(), atol=1e-6)
    assert mean_square == pytest.approx(float(x_ND.square().sum(1).mean()), rel=1e-6)
    acts.close()


@pytest.mark.parametrize("by", ["cache", "training", "eval"])
def test_eval_leaves_rows_alone_that_nothing_was_trained_on(sinks: Chain, by: str) -> None:
    """The loss by hand: window by window, the reconstruction everywhere but in the sink."""
    run = sinks.run_of_dropped if by == "cache" else sinks.run_without if by == "training" else sinks.run_of_kept
    acts = sinks.dropped if by == "cache" else sinks.kept
    flags = {"runs": [str(run)], "acts": [str(acts)], "model": str(sinks.host), "device": "cpu", "controls": False}
    report = evaluate.run(EvalConfig(**flags, drop_outliers=by == "eval"))
    host, loaded = Host.load(str(sinks.host), torch.device("cpu")), load_run(run)
    with Activations(acts) as opened:
        tokens, position, split = (opened.column(name) for name in ("tokens", "position", "split"))
    starts = np.flatnonzero(position == 0)
    starts = starts[split[starts] == HELD_OUT]
    assert report["sample"]["left_alone"] == len(starts)
    assert set(np.diff(np.append(np.flatnonzero(position == 0), len(position)))) <= {CONTEXT, len(position) % CONTEXT}
    losses = dict.fromkeys(("clean", "spliced", "zero"), 0.0)
    for start in starts:
        stop = int(np.flatnonzero(np.append(position[start + 1 :], 0) == 0)[0]) + start + 1
        window = torch.from_numpy(tokens[start:stop].astype(np.int64))[None]

        def reconstructed(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:, :1], loaded.model(x[0, 1:])[None]], 1)

        def silenced(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], 1)

        for name, replace in (("clean", lambda x: x), ("spliced", reconstructed), ("zero", silenced)):
            with torch.no_grad(), host.spliced(loaded.module, replace):
                losses[name] += float(host.model(window, labels=window).loss) * (stop - start - 1)
    expected = (losses["zero"] - losses["spliced"]) / (losses["zero"] - losses["clean"])
    figures = report["runs"][run.name]
    assert figures["ce_recovered"]["value"] == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_trees_leave_out_what_training_left_out(sinks: Chain, tmp_path: Path) -> None:
    """Contexts of a run trained without sinks show none, though the cache has them."""
    out = tmp_path / "tree.json"
    export_tree.run(ExportTreeConfig(run=str(sinks.run_without), acts=[str(sinks.kept)], out=str(out), device="cpu"))
    evidence = [node["evidence"] for node in json.loads(out.read_text())["nodes"] if node["evidence"]]
    contexts = [context for shown in evidence for context in shown["contexts"]]
    assert contexts and all(context["position"] > 0 for context in contexts)


def test_positions_outside_the_mask_keep_their_activations(tiny_host: Path) -> None:
    host = Host.load(str(tiny_host), torch.device("cpu"))
    tokens_BT = torch.randint(0, 10, (2, 8), generator=torch.Generator().manual_seed(0))
    replaced_BT = torch.zeros(2, 8, dtype=torch.bool)
    sums = LossSums(1, {"zero": torch.zeros_like})
    lengths_B, block_B = torch.tensor([8, 5]), torch.zeros(2, dtype=torch.long)
    sums.add(host, host.layer_path(1), tokens_BT, lengths_B, replaced_BT, block_B)
    assert sums.kl("zero", np.ones((1, 1)))[0] == 0 and sums.left_alone == 13
    replaced_BT[0, 3] = True
    sums.add(host, host.layer_path(1), tokens_BT, lengths_B, replaced_BT, block_B)
    assert sums.kl("zero", np.ones((1, 1)))[0] > 0 and sums.left_alone == 25


@given(st.integers(0, 10**6), st.floats(0.0, 50.0), st.floats(1.0, 200.0))
def test_the_share_by_norms_is_a_lower_bound(seed: int, offset: float, size: float) -> None:
    generator = np.random.default_rng(seed)
    x_ND = generator.normal(size=(200, 5)) + offset
    x_ND[:3] *= size
    chosen_N = np.arange(200) < 3
    centred_ND = x_ND - x_ND.mean(0)
    exact = np.square(centred_ND[chosen_N]).sum() / np.square(centred_ND).sum()
    bound = variance_share(np.linalg.norm(x_ND, axis=1), chosen_N, float(np.linalg.norm(x_ND.mean(0))))
    assert 0 <= bound <= exact * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize(
    ("fvu", "recovered", "doubted"), [(0.003, 0.79, True), (0.003, 0.99, False), (0.3, 0.8, False)]
)
def test_a_report_doubts_an_fvu_that_contradicts_the_loss(fvu: float, recovered: float, doubted: bool) -> None:
    figures = {"fvu": SimpleNamespace(value=fvu), "ce_recovered": SimpleNamespace(value=recovered)}
    texts = contradictions([SimpleNamespace(name="hier", figures=figures)])
    assert bool(texts) == doubted
    assert not contradictions([SimpleNamespace(name="hier", figures={"fvu": figures["fvu"]})])
