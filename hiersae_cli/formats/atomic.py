"""Writing that never leaves half a file, neither for a reader nor after a crash.

A file or folder ``NAME`` in the making is called ``.NAME.PID.tmp``, with the number of the process that writes it.
The next process that writes or refuses ``NAME`` removes what dead processes left of it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hiersae_cli.errors import FileError
from hiersae_cli.reading import parse_json, read_utf8, reason

_HIDDEN = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(?P<kind>tmp|old|list)", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@contextmanager
def replacing(path: str | Path, mode: int = 0o666) -> Iterator[Path]:
    """Give a temporary path next to ``path``; move it there if the block succeeds, remove it otherwise.

    The content is on the disk before it gets its name, so ``path`` is always the old file or the whole new one.
    ``mode`` has the permissions of the new file, less those that the user's umask withholds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    temporary = _hidden(path, "tmp")
    try:
        with naming_full_disk(path):
            yield temporary
            _settle(temporary, mode)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path, private: Collection[str] = ()) -> Iterator[Path]:
    """The same for a folder: ``path`` is always the old one or the whole new one.

    Old and new are exchanged in one step. Where the system cannot do that, the old folder is renamed first; if the new
    one cannot get its name, or the process is killed between the two steps, the old one gets its name back. Only the
    owner may read the files whose names are ``private``.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    temporary = _hidden(path, "tmp")
    _remove(temporary)  # left by a killed process with the same number
    temporary.mkdir()
    try:
        with naming_full_disk(path):
            yield temporary
        for inside in temporary.rglob("*"):
            _settle(inside, 0o777 if inside.is_dir() else 0o600 if inside.name in private else 0o666)
        _exchange(temporary, path)
        sync(path.absolute().parent)
    finally:
        _remove(temporary)


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Replace several files that belong together; the last one gets its name last.

    All are whole under temporary names before the first one is renamed. A process that is killed earlier changes
    nothing; of one that is killed later, ``finish_replacing`` of the last path completes the work.
    """
    *_, last = contents
    finish_replacing(last)
    renames, renaming = {_hidden(path, "tmp"): path for path in contents}, _hidden(last, "list")
    try:
        for temporary, path in renames.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path)
            with naming_full_disk(path, len(contents[path])):
                temporary.write_bytes(contents[path])
                _settle(temporary, 0o666)
        if len(renames) > 1:
            renaming.write_text(json.dumps([str(path.absolute()) for path in contents]))
            sync(renaming)
            sync(renaming.parent)
    except BaseException:
        for temporary in (*renames, renaming):
            _remove(temporary)
        raise
    for temporary, path in renames.items():
        os.replace(temporary, path)
    for folder in {path.parent for path in contents}:
        sync(folder)
    renaming.unlink(missing_ok=True)


def finish_replacing(last: str | Path) -> None:
    """Complete a ``replace_all`` whose process was killed between two renames; ``last`` is its last path."""
    for renaming in _of_dead_processes(Path(last), "list"):
        with suppress(ValueError):  # half a list: nothing had been renamed
            pid = int(_HIDDEN.fullmatch(renaming.name)["pid"])  # type: ignore[index]
            for path in map(Path, json.loads(renaming.read_text())):
                if (temporary := _hidden(path, "tmp", pid)).exists():
                    os.replace(temporary, path)
        renaming.unlink(missing_ok=True)


def sweep(path: str | Path) -> None:
    """Remove what dead processes left next to ``path`` when they were killed while they replaced it.

    An old folder that had lost its name to no new one gets it back.
    """
    path = Path(path)
    for replaced in _of_dead_processes(path, "old"):
        if not path.exists():
            os.replace(replaced, path)
    for leftover in _of_dead_processes(path, "tmp", "old"):
        _remove(leftover)


def sweep_inside(folder: str | Path) -> None:
    """The same for everything in ``folder`` itself, not in the folders below it."""
    folder = Path(folder)
    if folder.is_dir():
        for name in {match["name"] for file in folder.iterdir() if (match := _HIDDEN.fullmatch(file.name))}:
            sweep(folder / name)


def _hidden(path: Path, kind: str, pid: int | None = None) -> Path:
    return path.with_name(f".{path.name}.{os.getpid() if pid is None else pid}.{kind}")


def _of_dead_processes(path: Path, *kinds: str) -> list[Path]:
    """The files and folders with hidden names of ``path`` whose processes have ended."""
    if not path.name or not path.parent.is_dir():
        return []
    matches = [(file, _HIDDEN.fullmatch(file.name)) for file in path.parent.iterdir() if file.name[:1] == "."]
    return [
        file
        for file, match in matches
        if match and match["name"] == path.name and match["kind"] in kinds and not _is_alive(int(match["pid"]))
    ]


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # where signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        pass
    return True


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _settle(path: Path, mode: int) -> None:
    """Give a new file or folder its permissions and wait until it is on the disk.

    Some libraries make files that only their owner may read; ours are shared like any other file.
    """
    os.chmod(path, mode & ~_umask())
    sync(path)


def _exchange(temporary: Path, path: Path) -> None:
    """Give ``temporary`` the name ``path``; if there is a ``path``, it gets a name that ``sweep`` removes."""
    if not path.exists():
        os.replace(temporary, path)
    elif not _exchanged(temporary, path):
        replaced = _hidden(path, "old")
        os.replace(path, replaced)
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(replaced, path)
            raise
        _remove(replaced)


def _exchanged(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False if the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    paths = (os.fsencode(first), os.fsencode(second))
    return bool(rename and rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)


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
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """The text of a JSON file; raises ``ValueError`` for not-a-number."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; raises ``FileError`` if it is missing or not JSON, as ``parse_json`` takes it."""
    try:
        return parse_json(read_utf8(path))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file", "Check the path.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise FileError(
            f"{path}: not a JSON file ({reason(error)})", "It may be damaged, or another kind of file."
        ) from None


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Raise ``FileError`` if the file ``path`` must not be written: it is a folder, or exists without ``overwrite``.

    The old file stays until the new one takes its place; what killed processes left next to it is removed.
    """
    path = Path(path)
    sweep(path)
    if path.is_dir():
        raise FileError(f"{path}: this is a folder, a file was expected", "Choose another --out.")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise FileError(f"{path}: already exists", "Give --overwrite to replace it, or choose another --out.")


def refuse_folder(path: str | Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    """Raise ``FileError`` if the folder ``path`` must not be written: it is a file, or not empty.

    With ``overwrite``, a folder may be replaced if all names in it are ``ours``. Only what killed processes left next
    to it and in it is removed here.
    """
    path = Path(path)
    sweep(path)
    sweep_inside(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise FileError(f"{path}: this is a file, a folder was expected", "Choose another path.")
    if others := sorted(file.name for file in path.iterdir() if not ours(file.name)):
        raise FileError(f"{path}: a folder with other files in it, such as {others[0]}", "Choose another path.")
    if not overwrite:
        raise FileError(f"{path}: already exists", "Give --overwrite to replace it, or choose another path.")


def reserve(path: Path, size: int, name: str | Path, start: int = 0) -> None:
    """Reserve the bytes of a file from ``start`` to ``size`` on the disk, so that writing them cannot fail.

    Without that, a full disk kills a process that has mapped the file, and one that writes it with HDF5. Systems
    without reservations do nothing. Raises ``FileError`` with the name ``name`` if there is no room.
    """
    if size <= start or not hasattr(os, "posix_fallocate"):
        return
    handle = os.open(path, os.O_RDWR)
    try:
        with naming_full_disk(name, size):
            os.posix_fallocate(handle, start, size - start)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


@contextmanager
def naming_full_disk(path: str | Path, size: int = 0) -> Iterator[None]:
    """Give errors of a full disk, which name no file or a temporary one, the name ``path`` and the room it needs."""
    try:
        yield
    except OSError as error:
        usual = os.strerror(error.errno or 0)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or error.strerror != usual:
            raise  # another error, or one that has its name
        needed = f": it needs {human_bytes(size)}" if size else ""
        raise OSError(error.errno, f"{usual}{needed}", str(path)) from None


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
