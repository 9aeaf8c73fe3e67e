"""The index behind the dashboard: its content against dense codes, resuming, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.errors import FileError, UsageError, VersionError
from hiersae_cli.formats.activations import DROPPED, HELD_OUT, Activations
from hiersae_cli.formats.index import IndexFile, IndexWriter, partial_folder
from hiersae_cli.formats.run import load_run
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.interrupt import Interrupted
from hiersae_cli.locking import exclusive
from hiersae_cli.metrics.firings import Firings
from hiersae_cli.workflows.dashboard import build_index as indexing
from hiersae_cli.workflows.dashboard.run import open_dashboard
from hiersae_cli.workflows.tree import run as export_tree
from tests.helpers import hiersae

Array = np.ndarray[Any, Any]


def dense_code(run: str, acts: str) -> Array:
    """The code of every row of a cache, at once."""
    model = load_run(run).model
    with Activations(acts) as cache, torch.inference_mode():
        return model.encode(cache.read(cache.modules[0]).float()).numpy()


@pytest.fixture(scope="module")
def index(tiny_dashboard: DashboardConfig) -> IndexFile:
    return IndexFile(tiny_dashboard.index_file)


@pytest.mark.parametrize("name", ["run", "baseline"])
def test_every_firing_is_there_by_row_and_by_latent(index: IndexFile, tiny_dashboard: DashboardConfig, name: str):
    folder = {"run": tiny_dashboard.run, "baseline": tiny_dashboard.baseline}[name]
    code_RF = dense_code(folder, tiny_dashboard.acts[0])
    lists = index.lists[name]
    by_row_RF, by_latent_RF = np.zeros_like(code_RF, bool), np.zeros_like(code_RF)
    place, latent = lists.at(np.arange(lists.rows))
    by_row_RF[place, latent] = True
    for number in range(lists.latents):
        row_n, value_n = lists.of(number)
        assert (np.diff(row_n) > 0).all()
        by_latent_RF[row_n, number] = value_n
    assert np.array_equal(by_row_RF, by_latent_RF > 0)
    # Batches are other, and products may round otherwise: at a threshold, a firing may come or go.
    assert ((by_latent_RF > 0) != (code_RF > 0)).sum() <= 5
    both = (by_latent_RF > 0) & (code_RF > 0)
    assert np.allclose(by_latent_RF[both], code_RF[both], rtol=1e-4, atol=1e-5)
    assert np.array_equal(lists.fired_F, by_row_RF.sum(0))


def test_what_is_read_of_some_rows_is_theirs_in_any_order(index: IndexFile):
    lists = index.lists["run"]
    rows = np.array([900, 3, 3, 19_999])
    place, latent = lists.at(rows)
    for number, row in enumerate(rows.tolist()):
        wanted = lists.latent_n[lists.start_R[row] : lists.start_R[row + 1]]
        assert latent[place == number].tolist() == wanted.tolist()
    assert [len(part) for part in lists.at(np.zeros(0, int))] == [0, 0]


def test_rows_are_those_of_the_cache(index: IndexFile, tiny_acts: Path):
    with Activations(tiny_acts) as cache:
        assert np.array_equal(index.columns["token"], cache.column("tokens"))
        assert np.array_equal(index.columns["split"], cache.column("split"))
        names = cache.document_names()
        found = [index.documents[number] for number in index.columns["document"].tolist()]
        assert found == [names[number] for number in cache.column("document").tolist()]


def test_edges_and_names_are_those_of_export_tree(tiny_dashboard: DashboardConfig, tmp_path: Path):
    out = tmp_path / "tree.json"
    shared = {"run": tiny_dashboard.run, "acts": tiny_dashboard.acts, "model": tiny_dashboard.model, "device": "cpu"}
    export_tree.run(ExportTreeConfig(out=str(out), contexts=0, **shared))
    overview = open_dashboard(tiny_dashboard)[0].overview()
    assert [node.name for node in load_tree(out).nodes] == overview.hint and len(set(overview.hint)) > 20
    names = ("mi_bits", "mi_over_max")
    for place, node in enumerate(load_tree(out).nodes):
        for name in names:
            wanted = node.statistics.get(name)
            assert getattr(overview, name)[place] == (None if wanted is None else pytest.approx(wanted, rel=1e-5))


def test_an_index_of_an_older_release_gives_the_same_names(tiny_dashboard: DashboardConfig, tmp_path: Path):
    path = tmp_path / "old.h5"
    shutil.copy(tiny_dashboard.index_file, path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 1
        for name in ("own_tokens", "own_shares"):
            del file[f"run/tables/{name}"]
    old, new = (open_dashboard(config)[0] for config in (replace(tiny_dashboard, index=str(path)), tiny_dashboard))
    assert old.overview().hint == new.overview().hint
    assert old.feature("b7").tokens == new.feature("b7").tokens


def test_edges_of_a_hardened_tree_are_of_its_soft_firing(
    tiny_hard: Path, tiny_dashboard: DashboardConfig, tmp_path: Path
):
    config = replace(tiny_dashboard, run=str(tiny_hard), baseline="", index=str(tmp_path / "hard.h5"))
    overview = open_dashboard(config)[0].overview()
    out = tmp_path / "tree.json"
    export_tree.run(ExportTreeConfig(run=str(tiny_hard), acts=config.acts, out=str(out), contexts=0, device="cpu"))
    wanted = [node.statistics.get("mi_bits_soft") for node in load_tree(out).nodes]
    assert overview.mi_bits == [None if bits is None else pytest.approx(bits, rel=1e-5) for bits in wanted]


def test_fvu_increase_is_what_taking_a_latent_out_does(index: IndexFile, tiny_dashboard: DashboardConfig):
    run = load_run(tiny_dashboard.run)
    with Activations(tiny_dashboard.acts[0]) as cache, torch.inference_mode():
        x_RD = cache.read(cache.modules[0]).float()[torch.from_numpy(cache.column("split") == HELD_OUT)]
        code_RF = run.model.encode(x_RD)
        variance = (x_RD - x_RD.mean(0)).double().square().sum()
        whole = (x_RD - run.model.decode(code_RF)).double().square().sum()
        found = index.tables["run/fvu_increase"]
        for latent in (0, 5, 15, 16, 60, int(code_RF.sum(0).argmin())):
            without = code_RF.clone()
            without[:, latent] = 0
            error = (x_RD - run.model.decode(without)).double().square().sum()
            assert found[latent] == pytest.approx(float((error - whole) / variance), rel=1e-3, abs=1e-6)


@contextmanager
def stop_after(batches: int) -> Iterator[Any]:
    """In place of ``stoppable``: asks to stop after some batches."""
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked >= batches

    yield stopped


def contents(path: str) -> dict[str, Array]:
    found: dict[str, Array] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[...]} if isinstance(item, h5py.Dataset) else {}))
    return {name: values for name, values in found.items() if name != "header"}


def test_an_interrupted_index_goes_on_to_the_same_one(
    tiny_dashboard: DashboardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(tiny_dashboard, index=str(tmp_path / "index.h5"))
    with monkeypatch.context() as patched:
        patched.setattr(indexing, "stoppable", lambda: stop_after(2))
        with pytest.raises(Interrupted, match="stopped after 8,192 of 20,000 rows"):
            open_dashboard(config)
    folder = partial_folder(config.index)
    assert not Path(config.index).exists()
    shown = hiersae("info", config.index, "--json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["rows_committed"] == 8192, shown.stderr
    # A process killed in the middle leaves more than it has committed.
    with open(folder / "run.latent", "ab") as file:
        file.write(b"\xff" * 1001)
    with pytest.raises(FileError, match="started with other inputs"):
        open_dashboard(replace(config, baseline=""))
    with exclusive(folder), pytest.raises(FileError, match="another program"):
        open_dashboard(config)
    open_dashboard(replace(config, batch=3000))
    assert not folder.exists()
    found, wanted = contents(config.index), contents(tiny_dashboard.index_file)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if values.dtype.kind == "f":
            assert np.allclose(found[name], values, rtol=1e-4, atol=1e-6, equal_nan=True), name
        else:
            assert np.array_equal(found[name], values), name


def test_an_index_is_built_once_and_only_for_what_it_is_of(tiny_dashboard: DashboardConfig, tmp_path: Path):
    before = Path(tiny_dashboard.index_file).stat().st_mtime_ns
    open_dashboard(tiny_dashboard)
    assert Path(tiny_dashboard.index_file).stat().st_mtime_ns == before
    for change, said in (
        ({"baseline": ""}, "was built with --baseline"),
        ({"model": ""}, "was built with --model"),
        ({"seed": 3}, "was built with --seed 0, not 3"),
        ({"tokens": 5000}, "was built from 20,000 rows, not 4,992"),
        ({"run": tiny_dashboard.baseline, "baseline": "", "index": tiny_dashboard.index_file}, "from another run"),
    ):
        with pytest.raises(FileError, match=said):
            open_dashboard(replace(tiny_dashboard, **change))
    copy = tmp_path / "index.h5"
    shutil.copy(tiny_dashboard.index_file, copy)
    index, _ = open_dashboard(replace(tiny_dashboard, index=str(copy), seed=3, rebuild=True))
    assert index.file.header["made_of"]["seed"] == 3


@pytest.mark.parametrize(("dataset", "number"), [("run/latent", -7), ("run/row", 2**30), ("rows/document", 10**6)])
def test_a_number_out_of_its_range_is_refused(
    tiny_dashboard: DashboardConfig, tmp_path: Path, dataset: str, number: int
):
    copy = shutil.copy(tiny_dashboard.index_file, tmp_path / "index.h5")
    with h5py.File(copy, "r+") as file:
        file[dataset][1] = number
    with pytest.raises(FileError, match=rf"index\.h5: damaged: {dataset} holds"):
        open_dashboard(replace(tiny_dashboard, index=str(copy)))


def test_a_part_of_a_cache_is_spread_over_it(tiny_dashboard: DashboardConfig, tmp_path: Path):
    config = replace(tiny_dashboard, tokens=5000, baseline="", model="", index=str(tmp_path / "index.h5"))
    open_dashboard(replace(config, seed=3))
    index, _ = open_dashboard(replace(config, tokens=None))  # the existing one is used, with its rows and seed
    assert index.file.header["made_of"]["seed"] == 3 and index.file.header["config"]["tokens"] == 5000
    rows = index.file.columns["cache_row"]
    assert 4500 < len(rows) <= 5000 and rows[0] == 0 and rows[-1] == 19_999
    page = index.feature(index.ids()[0])
    assert page.top[0].tokens[0].startswith("[")  # no host: ids in brackets
    for context in page.top:
        assert context.position >= context.focus


def test_nothing_fires_in_dropped_rows(tiny_dashboard: DashboardConfig, tmp_path: Path):
    acts = tmp_path / "acts.h5"
    shutil.copy(tiny_dashboard.acts[0], acts)
    with h5py.File(acts, "r+") as file:
        file["split"][:7] = DROPPED
    index, _ = open_dashboard(replace(tiny_dashboard, acts=[str(acts)], baseline="", index=str(tmp_path / "i.h5")))
    assert index.file.rows == 20_000 - 7 and index.file.lists["run"].start_R[7] == 0


def test_damage_and_other_files_are_told(tiny_dashboard: DashboardConfig, tmp_path: Path):
    path = tmp_path / "index.h5"
    config = replace(tiny_dashboard, index=str(path))
    content = Path(tiny_dashboard.index_file).read_bytes()
    for data in (content[: len(content) // 3], b"\x00" * 100, b""):
        path.write_bytes(data)
        with pytest.raises(FileError, match="damaged"):
            open_dashboard(config)
    shutil.copy(tiny_dashboard.acts[0], path)
    with pytest.raises(FileError, match=r"not a hiersae\.index file"):
        open_dashboard(config)
    shutil.copy(tiny_dashboard.index_file, path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 9
    with pytest.raises(VersionError, match="version 9"):
        open_dashboard(config)


def test_a_baseline_is_a_flat_run_of_the_same_activations(tiny_dashboard: DashboardConfig, tiny_deep: Path):
    with pytest.raises(UsageError, match="a hierarchical run"):
        open_dashboard(replace(tiny_dashboard, baseline=str(tiny_deep)))


def test_a_hundred_thousand_latents_are_indexed_sparsely(tmp_path: Path):
    rows, latents, each = 3000, 100_000, 8
    draw = np.random.default_rng(0)
    run = {"name": "run", "arch": "topk", "module": "h.0", "widths": [latents]}
    made_of = {"run": "0", "acts": ["0"], "baseline": None, "host": None, "rows": rows, "seed": 0}
    header = {"schema": "hiersae.index", "schema_version": 1, "hiersae_version": "0", "created": "", "config": {}}
    header |= {"inputs": {}, "made_of": made_of, "run": run, "baseline": None, "tokens": "ids"}
    header |= {"host": {"name": "host", "fingerprint": "0"}}
    writer = IndexWriter(tmp_path / "index.h5", header, {"run": latents}, {})
    latent_RK = np.sort(draw.integers(0, latents, (rows, each)), axis=1)
    for start in range(0, rows, 1000):
        place = np.unique(np.arange(1000)[:, None] * latents + latent_RK[start : start + 1000])
        writer.append("run", Firings(1000, latents, place, (place % 997 + 1).astype(np.float32)))
    writer.commit(rows)
    columns = {name: np.zeros(rows, int) for name in ("token", "document", "position", "split")}
    tables = {f"run/{name}": np.zeros(latents, int) for name in ("active", "both")}
    tables |= {"run/parent": np.full(latents, -1), "run/fvu_increase": np.arange(latents, dtype=np.float32)}
    writer.finish({**columns, "cache_row": np.arange(rows)}, ["a"], lambda lists: (tables, {}))
    found = IndexFile(tmp_path / "index.h5")
    lists = found.lists["run"]
    assert found.path.stat().st_size < 6_000_000 and found.tables["run/fvu_increase"][:3].tolist() == [0, 1, 2]
    for row in (0, 1234, 2999):
        assert sorted(set(latent_RK[row].tolist())) == lists.at(np.array([row]))[1].tolist()
    for latent in latent_RK[1500].tolist():
        row_n, value_n = lists.of(latent)
        assert row_n.tolist() == np.flatnonzero((latent_RK == latent).any(1)).tolist()
        assert value_n.tolist() == [(row % 1000 * latents + latent) % 997 + 1 for row in row_n.tolist()]


def test_the_command_builds_it_and_says_what_to_do_next(tiny_dashboard: DashboardConfig, tmp_path: Path):
    flags = ["--acts", tiny_dashboard.acts[0], "--index", tmp_path / "index.h5", "--device", "cpu"]
    done = hiersae("dashboard", tiny_dashboard.run, *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"index": str(tmp_path / "index.h5"), "features": 128, "rows": 20_000}
    assert "--serve" in hiersae("dashboard", tiny_dashboard.run, *flags).stderr
    missing = hiersae("dashboard", tiny_dashboard.run)
    assert missing.returncode == 2 and "--acts acts.h5" in missing.stderr
