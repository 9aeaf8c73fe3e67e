"""The kernels of ``native.c``: compiled for this machine when first used, where a C compiler is to be had.

Legend of shapes: see ``native.c``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("native.c")
_LEAST_ROOM = 1 << 16  # places
# Square roots set no errno and raise no trap here, without which they cannot be taken several at a time.
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")


def takes(x_BD: torch.Tensor, *others: torch.dtype) -> bool:
    """Whether the kernels are for rows of this device and type, float32 or one of ``others``, and to be had."""
    return x_BD.device.type == "cpu" and x_BD.dtype in (torch.float32, *others) and available()


def available() -> bool:
    """Whether the kernels can be compiled here, or have been."""
    return _library() is not None


def above(
    x_BD: torch.Tensor,
    w_CD: torch.Tensor,
    offset_C: torch.Tensor,
    bound_C: torch.Tensor,
    scale_C: torch.Tensor | None,
    row_p: torch.Tensor,
    first_g: torch.Tensor,
    child_g: torch.Tensor,
    width_g: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, children and values (n,) where scale * (x . w) + offset > bound, in any order."""
    places = int((first_g.diff() * width_g).sum())
    numbers = [_of(each, torch.float32) for each in (x_BD, w_CD, offset_C, bound_C)]
    scales = None if scale_C is None else _of(scale_C, torch.float32)
    rows, *groups = (_of(each, torch.int64) for each in (row_p, first_g, child_g, width_g))
    room = min(places, max(_LEAST_ROOM, places // 8))  # few are above, and room for all would mostly be for nothing
    while True:
        row_n, child_n = (torch.empty(room, dtype=torch.int64) for _ in range(2))
        value_n = torch.empty(room)
        found = _kernels().hiersae_above(
            *map(_at, numbers),
            None if scales is None else _at(scales),
            ctypes.c_int64(x_BD.shape[1]),
            _at(rows),
            ctypes.c_int64(len(child_g)),
            *map(_at, groups),
            ctypes.c_int64(room),
            *map(_at, (row_n, child_n, value_n)),
        )
        if found < 0:
            raise MemoryError("no memory for a product in groups")
        if found <= room:
            return row_n[:found], child_n[:found], value_n[:found]
        room = found


def find(dense_BC: torch.Tensor, bound_C: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where numbers, float32 or bfloat16, exceed their columns' bounds: rows and ``first`` + columns, in order."""
    dense_BC = dense_BC.detach().contiguous()
    bounds_C = _of(bound_C.to(dense_BC.dtype).expand(dense_BC.shape[1]), torch.float32)
    kind = ctypes.c_int(dense_BC.dtype == torch.bfloat16)
    count_B = torch.empty(len(dense_BC), dtype=torch.int64)
    _kernels().hiersae_count(_at(dense_BC), _at(bounds_C), *_sizes(dense_BC), kind, _at(count_B))
    first_B = torch.cat([count_B.new_zeros(1), count_B.cumsum(0)])
    row_n, latent_n = (torch.empty(int(first_B[-1]), dtype=torch.int64) for _ in range(2))
    places = map(_at, (row_n, latent_n))
    _kernels().hiersae_find(
        _at(dense_BC), _at(bounds_C), *_sizes(dense_BC), kind, _at(first_B), ctypes.c_int64(first), *places
    )
    return row_n, latent_n


def dots(first_B: torch.Tensor, latent_n: torch.Tensor, a_BD: torch.Tensor, w_FD: torch.Tensor) -> torch.Tensor:
    """a[row] . w[latent] of places in order of rows, (n,); row b has ``first_B[b]`` to ``first_B[b + 1]``."""
    dot_n = torch.empty(len(latent_n))
    given = (
        *(_of(each, torch.float32) for each in (a_BD, w_FD)),
        *(_of(each, torch.int64) for each in (first_B, latent_n)),
    )
    _kernels().hiersae_dots(*(_at(each) for each in (*given, dot_n)), *_sizes(a_BD))
    return dot_n


def gather(weight_FD: torch.Tensor, row_r: torch.Tensor, value_rD: torch.Tensor, unit: bool) -> torch.Tensor:
    """The sum of squares of gradients; of unit rows after what lies along them has been taken out, in place."""
    square_r = torch.empty(len(row_r))
    pointers = (_at(each) for each in (weight_FD, row_r, value_rD, square_r))
    _kernels().hiersae_gather(*pointers, *_sizes(value_rD), ctypes.c_int(unit))
    return square_r.sum()


_MOVE_NUMBERS = ("scale", "rate", "root", "mean_new", "square_kept", "square_new", "eps")


class _Move(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in _MOVE_NUMBERS]
    _fields_ += [(name, ctypes.c_int32) for name in ("unit", "seed")]


def move(
    weight_FD: torch.Tensor,
    mean_FD: torch.Tensor,
    square_FD: torch.Tensor,
    row_r: torch.Tensor,
    value_rD: torch.Tensor,
    due_r3: torch.Tensor,
    **numbers: float,
) -> None:
    """Adam's moves of some rows, in place, as ``row_adam._move_rows``; ``numbers`` are the fields of ``_Move``."""
    pointers = (_at(each) for each in (weight_FD, mean_FD, square_FD, row_r, value_rD, due_r3))
    bfloat16 = ctypes.c_int(mean_FD.dtype == torch.bfloat16)
    _kernels().hiersae_move(*pointers, *_sizes(value_rD), bfloat16, _Move(**numbers))


def _of(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.detach().to(dtype).contiguous()


def _at(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _sizes(value_rD: torch.Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_int64(value_rD.shape[0]), ctypes.c_int64(value_rD.shape[1])


def _kernels() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the kernels cannot be compiled here")
    return library


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, from the user's cache where they are there; None where they cannot be made."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or os.environ.get("HIERSAE_NATIVE") == "0":
        return None
    try:
        kind = hashlib.sha256(_SOURCE.read_bytes() + f"{_FLAGS}{_processor()}".encode()).hexdigest()[:16]
        path = _folder() / f"native-{kind}.so"
        if not path.exists():
            _compile(compiler, path)
        library = ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.CalledProcessError):  # RuntimeError: there is no home
        return None
    library.hiersae_above.restype = ctypes.c_int64
    return library


def _compile(compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled, linked = Path(folder) / "native.o", Path(folder) / "native.so"
        subprocess.run([compiler, *_FLAGS, "-c", str(_SOURCE), "-o", str(compiled)], check=True, capture_output=True)
        # Not linked with OpenMP: PyTorch has loaded its own, and the threads of a second one would be in its way.
        subprocess.run([compiler, "-shared", str(compiled), "-o", str(linked)], check=True, capture_output=True)
        os.replace(linked, path)  # another process may be making the same


def _folder() -> Path:
    """Where compiled kernels are kept: nobody else may write there."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "hiersae"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o022:
        raise PermissionError(f"{folder}: others may write there")
    return folder


def _processor() -> str:
    """What the code is compiled for, so that a cache that machines share has one for each kind."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            return next(line for line in cpuinfo if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
