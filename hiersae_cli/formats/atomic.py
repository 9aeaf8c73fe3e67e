"""Writing that never leaves half a file, neither for a reader nor after a crash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError
from hiersae_cli.reading import parse_json, reason, require_regular


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path next to ``path``; move it there if the block succeeds, remove it otherwise.

    The content is on the disk before it gets its name, so ``path`` is always the old file or the whole new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        # Some libraries make files that only their owner may read; ours are shared like any other file.
        os.chmod(temporary, 0o666 & ~_umask())
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """The same for a folder: ``path`` is always the old one or the whole new one, or for an instant none.

    If the new folder cannot get its name, the old one gets it back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, replaced = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process with the same number
    temporary.mkdir()
    try:
        yield temporary
        for inside in temporary.rglob("*"):
            os.chmod(inside, (0o777 if inside.is_dir() else 0o666) & ~_umask())
            sync(inside)
        if path.exists():
            os.replace(path, replaced)
        os.replace(temporary, path)
        sync(path.absolute().parent)
    finally:
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        for leftover in (temporary, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


def _umask() -> int:
    """The mode bits that new files lack; the only way to read them is to set them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Replace a text file atomically (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Replace a JSON file atomically. Not-a-number is refused: it is not JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; raises ``FileError`` if it is missing or not JSON, as ``parse_json`` takes it."""
    require_regular(path)
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file", "Check the path.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise FileError(
            f"{path}: not a JSON file ({reason(error)})", "It may be damaged, or another kind of file."
        ) from None


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Raise ``FileError`` if the file ``path`` must not be written: it is a folder, or exists without ``overwrite``.

    Nothing is removed: the old file stays until the new one takes its place.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path}: this is a folder, a file was expected", "Choose another --out.")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise FileError(f"{path}: already exists", "Give --overwrite to replace it, or choose another --out.")


def refuse_folder(path: str | Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    """Raise ``FileError`` if the folder ``path`` must not be written: it is a file, or not empty.

    With ``overwrite``, a folder may be replaced if all names in it are ``ours``. Nothing is removed here.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise FileError(f"{path}: this is a file, a folder was expected", "Choose another path.")
    if others := sorted(file.name for file in path.iterdir() if not ours(file.name)):
        raise FileError(f"{path}: a folder with other files in it, such as {others[0]}", "Choose another path.")
    if not overwrite:
        raise FileError(f"{path}: already exists", "Give --overwrite to replace it, or choose another path.")


def require_space(path: str | Path, size: int) -> None:
    """Raise ``FileError`` if the disk of ``path`` has no room for ``size`` more bytes."""
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free:
        raise FileError(
            f"{path}: needs {human_bytes(size)}, but only {human_bytes(free)} are free on this disk",
            "Ask for fewer --tokens, choose a smaller --dtype, or another disk.",
        )


def human_bytes(size: float) -> str:
    """``1.5 GB``: powers of 1000, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
