"""Replacing a folder: the old one or the new one, whatever goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hiersae_cli.formats.atomic import replacing_folder


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

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(error):
        write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
