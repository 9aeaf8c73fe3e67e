"""``hiersae info``: every kind of file, finished, unfinished, damaged, newer and foreign."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hiersae_cli.config.cache import JoinConfig
from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.config.info import InfoConfig
from hiersae_cli.errors import FileError, HierSAEError, UsageError, VersionError
from hiersae_cli.formats.index import IndexWriter
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.formats.tensors import save_tensors
from hiersae_cli.workflows.cache import join
from hiersae_cli.workflows.info import run
from hiersae_cli.workflows.tree import run as export_tree
from tests import caches
from tests.helpers import hiersae


def info(path: Path, verify: bool = False) -> tuple[dict[str, Any], str]:
    answer, text = run(InfoConfig(path=str(path), verify=verify))
    json.dumps(answer, allow_nan=False)  # what --json prints
    return answer, text


def test_a_cache_through_the_command_line(tiny_acts: Path):
    done = hiersae("info", tiny_acts, "--verify", fresh=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == str(tiny_acts)
    assert any(line.split()[:2] == ["rows", "20,000"] for line in lines)
    assert any(line.split()[:2] == ["state", "complete"] for line in lines)
    assert any(line.split()[0] == "verified" for line in lines)
    # One column of labels.
    assert len({len(line) - len(line[15:]) for line in lines[1:]}) == 1
    answer = json.loads(hiersae("info", tiny_acts, "--json").stdout)
    assert answer["kind"] == "cache" and answer["complete"] and answer["valid"] and not answer["verified"]
    assert answer["rows"] == 20_000 == sum(answer["splits"].values())
    assert answer["modules"]["transformer.h.1"]["width"] == 32
    assert answer["config"]["document_tokens"] == 512


def test_an_unfinished_cache_says_how_far_it_is_and_how_to_finish(tmp_path: Path):
    made = caches.content(70)
    caches.write(tmp_path / "acts.h5", made, committed=28)
    for name in ("acts.h5", "acts.h5.partial"):
        answer, text = info(tmp_path / name, verify=True)
        assert not answer["complete"] and not answer["verified"] and answer["rows_committed"] == 28
        assert "incomplete: 28 of 70 rows are written; to finish, run the same 'hiersae cache' command again" in text


def test_joined_caches_are_verified_through_their_shards(tmp_path: Path):
    made = caches.content(70)
    shards = [
        caches.write(tmp_path / f"{n}.h5", made, span=span, shard=f"{n}/2") for n, span in ((1, (0, 35)), (2, (35, 70)))
    ]
    joined = tmp_path / "joined.h5"
    join.run(JoinConfig(shards=[str(path) for path in shards], out=str(joined)))
    answer, text = info(joined, verify=True)
    assert answer["kind"] == "cache, joined" and answer["verified"] and answer["rows"] == 70
    assert "1.h5, 2.h5" in text
    shards[1].unlink()
    with pytest.raises(FileError, match="joins shards"):
        info(joined)


@pytest.mark.parametrize("dataset", ["activations/h.1", "tokens", "statistics/h.0/mean"])
def test_verify_finds_a_changed_byte(tmp_path: Path, dataset: str):
    path = caches.write(tmp_path / "acts.h5", caches.content(70))
    info(path, verify=True)
    with h5py.File(path, "r+") as file:
        value = file[dataset][...]
        value.flat[1] += 1
        file[dataset][...] = value
    info(path)
    with pytest.raises(FileError, match="damaged"):
        info(path, verify=True)


@pytest.mark.filterwarnings("error")
def test_verify_refuses_infinite_activations(tmp_path: Path):
    path = caches.write(tmp_path / "acts.h5", caches.content(70))
    with h5py.File(path, "r+") as file:
        file["activations/h.1"][3, 0] = np.inf
    with pytest.raises(FileError, match=r"its activations are not all finite|statistics"):
        info(path, verify=True)


def test_runs(tiny_hier: Path, tiny_flat: Path, tiny_acts: Path):
    answer, text = info(tiny_hier, verify=True)
    assert (answer["kind"], answer["arch"], answer["widths"], answer["width"]) == ("run", "hier", [16, 112], 32)
    assert answer["complete"] and answer["verified"] and answer["step"] == answer["steps"] == 195
    assert answer["last_metrics"]["step"] == 195 and str(tiny_acts) in text
    assert info(tiny_hier / "config.json")[0]["file"] == str(tiny_hier)
    assert info(tiny_flat)[0]["k"] == [8]


def test_runs_of_three_levels(tiny_deep: Path, tiny_hard: Path):
    answer, text = info(tiny_deep, verify=True)
    assert answer["widths"] == [8, 24, 96] and not answer["hard"]
    assert "hier, 8 + 24 + 96 latents, L0 2 + 3 + 3\n" in text
    answer, text = info(tiny_hard, verify=True)
    assert answer["hard"] and "L0 2 + 3 + 3, hardened tree\n" in text


def test_unfinished_runs(tiny_hier: Path, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_hier, folder.path)
    weights = load_file(folder.model_file)
    folder.write_model(weights, 40, 195)
    folder.write_state({**weights, "step": torch.tensor(40)})
    with open(folder.metrics_file, "a") as file:
        file.write('{"step": 19')
    answer, text = info(folder.path)
    assert not answer["complete"] and answer["step"] == 40 and answer["last_metrics"]["step"] == 195
    assert "training is at step 40 of 195; to finish, run the same 'hiersae train' command again" in text
    folder.model_file.unlink()
    assert info(folder.path, verify=True)[0]["step"] == 0


def test_damaged_runs(tiny_hier: Path, tmp_path: Path):
    path = tmp_path / "run"
    shutil.copytree(tiny_hier, path)
    weights = load_file(path / "model.safetensors")
    weights["b_enc_F"][3] = float("nan")
    save_file(weights, path / "model.safetensors", {"step": "195", "steps": "195"})
    for verify in (False, True):  # every command refuses such a run, so it is never called valid
        with pytest.raises(FileError, match="b_enc_F is not finite"):
            info(path, verify=verify)
    (path / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(FileError, match="damaged"):
        info(path)
    header = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**header, "schema_version": 9}))
    with pytest.raises(VersionError, match="version 9"):
        info(path)
    del header["width"]
    (path / "config.json").write_text(json.dumps(header))
    with pytest.raises(FileError, match="'width' is missing"):
        info(path)


def test_hosts(tiny_host: Path, tiny_acts: Path, tmp_path: Path):
    answer, text = info(tiny_host, verify=True)
    assert (answer["kind"], answer["layers"], answer["width"], answer["schema"]) == ("host model", 3, 32, None)
    assert answer["fingerprint"] == info(tiny_acts)[0]["host"]["fingerprint"]
    assert f"{answer['parameters']:,} parameters" in text
    path = tmp_path / "host"
    shutil.copytree(tiny_host, path)
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(FileError, match="damaged"):
        info(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(FileError, match="no weights"):
        info(path)


def test_a_host_in_training(tmp_path: Path, tiny_text: Path):
    from hiersae_cli.config.lm import LMConfig
    from hiersae_cli.workflows import lm

    flags = {"layers": 1, "width": 8, "heads": 1, "context": 16, "steps": 5, "batch": 2, "eval_tokens": 32}
    config = LMConfig(texts=[str(tiny_text)], out=str(tmp_path / "host"), eval_every=2, device="cpu", **flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lm.run(config)
    answer, text = info(tmp_path / "host")
    assert not answer["complete"] and answer["steps"] == 5
    assert f"training is at step {answer['step']} of 5; to finish, run the same 'hiersae lm' command again" in text
    assert info(tmp_path / "host.partial", verify=True)[0]["verified"]
    checkpoint = tmp_path / "host.partial" / "checkpoint.safetensors"
    with safe_open(checkpoint, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    lost = next(name for name in tensors if name.startswith("exp_avg/"))
    tensors.pop(lost)
    save_tensors(checkpoint, tensors, metadata, checked=True)
    with pytest.raises(FileError, match=f"{lost}' is missing"):
        lm.run(config)


def test_an_unfinished_index_by_its_folder_and_by_the_file_in_it(tmp_path: Path):
    header = {"schema": "hiersae.index", "schema_version": 2, "made_of": {"rows": 10}, "run": {"name": "hier"}}
    writer = IndexWriter(tmp_path / "x.h5", {**header, "baseline": None, "host": None}, {"run": 4}, {"n": np.zeros(2)})
    writer.commit(3)
    writer.close()
    for path in (writer.folder, writer.folder / "header.json"):
        answer, text = info(path, verify=True)
        assert (answer["kind"], answer["rows_committed"], answer["complete"]) == ("index", 3, False)
        assert "3 of 10 rows are indexed; to finish, run the same 'hiersae dashboard' command again" in text


def test_trees_and_reports(tiny_hier: Path, tiny_acts: Path, tmp_path: Path):
    out = tmp_path / "tree.json"
    config = ExportTreeConfig(run=str(tiny_hier), acts=[str(tiny_acts)], out=str(out), contexts=0, device="cpu")
    made = export_tree.run(config)
    answer, text = info(out)
    assert answer["kind"] == "tree" and answer["levels"] == [16, 112]
    assert all(answer[name] == made[name] for name in ("nodes", "roots", "edges", "dead"))
    assert f"{made['rows_held_out']:,} held-out rows" in text
    tree = json.loads(out.read_text())
    tree["nodes"][20]["parent"] = "a77"
    out.write_text(json.dumps(tree))
    with pytest.raises(FileError, match="a77"):
        info(out)
    report = {
        "schema": "hiersae.report", "schema_version": 1, "config": {}, "inputs": {"acts.h5": "0" * 64},
        "runs": {"hier": {"fvu": {"value": 0.25}, "kl": {"value": None}}}, "paired": {},
    }  # fmt: skip
    for version in (1, 2):
        out.write_text(json.dumps({**report, "schema_version": version}))
        answer, text = info(out)
        assert answer["kind"] == "report" and answer["runs"] == {"hier": ["fvu", "kl"]} and "hier: fvu 0.25" in text
    for version in (3, 4):  # which pages show
        out.write_text(json.dumps({**report, "schema_version": version}))
        with pytest.raises(FileError, match="'groups' is missing"):
            info(out)
    out.write_text(json.dumps({**report, "schema_version": 5}))
    with pytest.raises(VersionError):
        info(out)
    del report["runs"]
    out.write_text(json.dumps(report))
    with pytest.raises(FileError, match="'runs' is missing"):
        info(out)


def test_what_is_not_ours(tmp_path: Path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "other.json").write_text('{"schema": 7}')
    (tmp_path / "broken.json").write_text('{"schema": ')
    (tmp_path / "folder").mkdir()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "short.h5").write_bytes((tmp_path / "other.h5").read_bytes()[:600])
    for name, kind in (
        ("nothing", UsageError), ("empty", FileError), ("text", FileError), ("other.json", FileError),
        ("broken.json", FileError), ("folder", FileError), ("other.h5", FileError), ("short.h5", FileError),
    ):  # fmt: skip
        with pytest.raises(HierSAEError) as caught:
            info(tmp_path / name)
        assert isinstance(caught.value, kind), name
        assert str(tmp_path / name) in caught.value.message and "\n" not in caught.value.message
    done = hiersae("info", tmp_path / "text")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 2
