"""Replacing files and folders: the old ones or the new ones, whatever goes wrong, and nothing left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from hiersae_cli.errors import FileError
from hiersae_cli.formats import atomic
from hiersae_cli.formats.atomic import (
    finish_replacing,
    refuse_existing,
    refuse_folder,
    replace_all,
    replacing_folder,
    sweep,
    sweep_inside,
    write_text,
)
from hiersae_cli.formats.hdf5 import replacing_hdf5
from hiersae_cli.locking import exclusive
from tests.kills import was_killed


def write(path: Path, text: str) -> None:
    with replacing_folder(path) as folder:
        (folder / "file").write_text(text)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / f".out.{os.getpid()}.tmp").mkdir()  # left by a process that was killed
    write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "new"
    with pytest.raises(ValueError), replacing_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("half")
        raise ValueError
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_old_folder_comes_back_where_the_new_one_cannot_be_named(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    rename = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source.name.endswith(".tmp"):
            raise error
        rename(source, target)

    monkeypatch.setattr(atomic, "_exchanged", lambda first, second: False)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(error):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def kills(folder: Path, prepare: Callable[[Path], None], work: Callable[[Path], None]) -> Iterator[Path]:
    """Every state that a kill during ``work`` can leave: a folder for each of its operations on files."""
    for place in count(1):
        case = folder / str(place)
        case.mkdir()
        prepare(case)
        if not was_killed(f"any:{case}/:{place}", lambda case=case: work(case)):  # type: ignore[misc]
            assert place > 3
            return
        yield case


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_killed_replacement_of_a_file_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    states = set()
    for case in kills(tmp_path, lambda case: write_text(case / "f", "old"), lambda case: write_text(case / "f", "new")):
        refuse_existing(case / "f", overwrite=True)
        states.add(str(content(case)))
    assert states == {"{'f': 'old'}", "{'f': 'new'}"}


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_killed_replacement_of_a_folder_leaves_the_old_or_the_new_one(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(atomic, "_exchanged", lambda first, second: False)
    states = set()
    for case in kills(tmp_path, lambda case: write(case / "d", "old"), lambda case: write(case / "d", "new")):
        refuse_folder(case / "d", True, lambda name: True)
        states.add(str(content(case)))
    assert states == {"{'d/file': 'old'}", "{'d/file': 'new'}"}


@pytest.mark.parametrize("before", ["", "old"])
def test_files_that_belong_together_are_all_old_or_all_new_after_a_kill(before: str, tmp_path: Path) -> None:
    names = ("plots/a.svg", "page.html", "report.json")

    def put(case: Path, text: str) -> None:
        replace_all({case / name: text.encode() for name in names})

    states = set()
    for case in kills(tmp_path, lambda case: put(case, before) if before else None, lambda case: put(case, "new")):
        finish_replacing(case / "report.json")
        for name in names:
            sweep(case / name)
        states.add(str(sorted(content(case).items())))
    assert states == {str(sorted((name, text) for name in names if text)) for text in (before, "new")}


def test_a_list_of_renames_moves_nothing_but_its_own_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("mine")
    (tmp_path / f".report.json.{dead()}.list").write_text(json.dumps([str(tmp_path / "private"), "/etc/absent"]))
    finish_replacing(tmp_path / "report.json")
    assert content(tmp_path) == {"private": "mine"}


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    gone, alive = dead(), os.getppid()
    names = [f".out.{pid}.{kind}" for pid in (gone, alive) for kind in ("tmp", "old")] + [f".other.{gone}.tmp", ".out"]
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / "out").write_text("whole")
    with pytest.raises(FileError, match="already exists"):
        refuse_existing(tmp_path / "out", overwrite=False)
    assert set(content(tmp_path)) == {f".other.{gone}.tmp", ".out", f".out.{alive}.old", f".out.{alive}.tmp", "out"}
    sweep_inside(tmp_path)
    assert f".other.{gone}.tmp" not in content(tmp_path)


def test_only_the_owner_may_read_private_files_of_a_folder(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "out", private={"links.json"}) as folder:
        for name in ("links.json", "study.json"):
            (folder / name).write_text("")
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()}
    assert modes["links.json"] == 0o600 and modes["study.json"] != 0o600


def test_a_lock_names_the_program_that_has_it_and_ends_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    code = f"""
import os, time
from hiersae_cli.locking import exclusive
with exclusive({str(folder)!r}, wait=False):
    print(os.getpid(), flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    pid = int(holder.stdout.readline())
    with pytest.raises(FileError, match=f"process {pid}, is writing it"), exclusive(folder, wait=False):
        pass
    holder.kill()
    holder.wait()
    with exclusive(folder, wait=False):
        (folder / "file").write_text("")
    assert (folder / "file").exists()
    with exclusive(tmp_path / "new" / "folder", wait=False):
        pass
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_refused_before_hdf5_writes(small_disk: Path) -> None:
    with suppress(OSError), open(small_disk / "other", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match="No space left") as error, replacing_hdf5(small_disk / "acts.h5"):
        pytest.fail("HDF5 would write now")
    assert error.value.filename == str(small_disk / "acts.h5")
    assert [path.name for path in small_disk.iterdir()] == ["other"]
