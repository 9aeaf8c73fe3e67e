"""``hiersae train --log``: what a tracker shows is what metrics.jsonl holds."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hiersae_cli import HierSAEError
from hiersae_cli.config.train import TRACKERS, TrainConfig
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.workflows.train.run import run as train
from hiersae_cli.workflows.train.tracking import scalars
from tests.helpers import Said

STEPS = 40


def config(acts: Path, out: Path, **options: Any) -> TrainConfig:
    sizes: dict[str, Any] = {"widths": (8, 56), "k": (2, 2), "tokens": STEPS * 128, "batch": 128, "log_every": 10}
    return TrainConfig(acts=[str(acts)], out=str(out), **sizes, buffer=16, device="cpu", **options)


def interrupt_at(step: int) -> Any:
    def on_step(number: int, _: object) -> None:
        if number == step:
            raise RuntimeError("stopped by the test")

    return on_step


def expected(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The points of every curve, from metrics.jsonl."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in RunFolder(run).all_metrics():
        for name, value in scalars(line).items():
            curves.setdefault(name, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    return curves


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a ``.wandb`` file: LevelDB's log format after a header of 7 bytes, in blocks of 32 KiB."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if 2**15 - place % 2**15 < 7:  # the end of a block is too short for a record
            place += 2**15 - place % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_scalars_have_a_number_for_each_level() -> None:
    line = {"step": 5, "l0": [2, 3.5], "fvu": 0.25, "phase": "joint", "hardening": {"fvu": 0.5}}
    assert scalars(line) == {"l0/a": 2, "l0/b": 3.5, "l0/total": 5.5, "fvu": 0.25, "hardening/fvu": 0.5}


def test_tensorboard_shows_metrics_jsonl_also_after_an_interruption(tiny_acts: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (extra tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def curves() -> dict[str, list[tuple[int, float]]]:
        events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
        return {
            name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]
        }

    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="stopped by the test"):
        train(config(tiny_acts, run, log="tensorboard"), on_step=interrupt_at(25))
    assert curves() == expected(run) and len(expected(run)["fvu"]) == 2
    train(config(tiny_acts, run, log="tensorboard", harden=True, overwrite=True), on_step=None)
    assert curves() == expected(run) and [step for step, _ in curves()["fvu"]] == [10, 20, 30, 40, 40]
    assert [step for step, _ in curves()["hardening/fvu"]] == [40]

    train(config(tiny_acts, run, overwrite=True))
    assert not (run / "tensorboard").exists(), "figures of the earlier run would be shown as those of this one"


def test_a_resumed_run_shows_its_earlier_figures_in_tensorboard(tiny_acts: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (extra tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="stopped by the test"):
        train(config(tiny_acts, run), on_step=interrupt_at(25))
    train(config(tiny_acts, run, log="tensorboard"))
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(point.step, point.value) for point in events.Scalars("fvu")] == expected(run)["fvu"]
    assert [point.step for point in events.Scalars("fvu")] == [10, 20, 30, 40]


def test_wandb_offline_has_metrics_jsonl_and_the_configuration(
    tiny_acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed (extra wandb)")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="stopped by the test"):
        train(config(tiny_acts, run, log="wandb", log_project="trees"), on_step=interrupt_at(20))
    train(config(tiny_acts, run, log="wandb", log_project="trees"))
    runs: list[Any] = []
    curves: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(tmp_path.rglob("*.wandb")):
        for data in leveldb_records(file.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("run"):
                runs.append(record.run)
            if record.HasField("history"):
                values = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                for name in values.keys() - {"_step", "_timestamp", "_runtime"}:
                    curves.setdefault(name, []).append((values["_step"], values[name]))
    assert curves == expected(run)
    assert len({written.run_id for written in runs}) == 1, "a resumed run keeps its id"
    assert {written.project for written in runs} == {"trees"} and runs[0].display_name == "run"
    recorded = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert recorded["widths"] == [8, 56] and recorded["seed"] == 0


def test_trackio_has_metrics_jsonl(tiny_acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="Trackio is not installed (extra trackio)")
    from trackio.sqlite_storage import SQLiteStorage

    run, project = tmp_path / "run", f"hiersae-test-{tmp_path.parent.name}"
    train(config(tiny_acts, run, log="trackio", log_project=project))
    (name,) = SQLiteStorage.get_runs(project)
    assert name.startswith("run-")
    points = SQLiteStorage.get_logs(project, name)
    assert [(point["step"], point["fvu"]) for point in points] == expected(run)["fvu"]
    assert {"l0/a", "l0/b", "l0/total"} <= points[0].keys()


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_missing_library_stops_training_before_it_starts(
    tracker: str, tiny_acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(HierSAEError, match=rf"--log {tracker} needs {tracker}, which is not installed") as caught:
        train(config(tiny_acts, tmp_path / "run", log=tracker))
    assert f"-e '.[{tracker}]'" in caught.value.hint and not (tmp_path / "run" / "config.json").exists()


def test_a_tracker_that_fails_does_not_stop_training(
    tiny_acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, *_: object) -> None:
            pass

        def log(self, figures: dict[str, Any]) -> None:
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr("hiersae_cli.workflows.train.tracking._TRACKERS", {"wandb": Broken})
    console, run = Said(), tmp_path / "run"
    train(config(tiny_acts, run, log="wandb"), console)
    assert console.text.count("warning: --log wandb: no route to host; all figures are in") == 1
    assert len(RunFolder(run).all_metrics()) == 4 and RunFolder(run).is_complete()
