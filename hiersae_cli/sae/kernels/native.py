"""The kernels of ``native.c``: compiled for this machine at first use, if there is a C compiler.

Legend of shapes: see ``native.c``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from hiersae_cli.user_cache import user_cache

_SOURCE = Path(__file__).with_name("native.c")
# Without errno and traps several square roots can be computed at a time.
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
_COMPILER_SECONDS = 300.0  # it takes a few, more on a busy machine
_LEAST_CAPACITY = 1 << 16  # places

_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_MOVE_NUMBERS = ("scale", "rate", "root", "mean_new", "square_kept", "square_new", "eps")


class _Move(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in _MOVE_NUMBERS]
    _fields_ += [(name, ctypes.c_int32) for name in ("unit", "seed")]


# Arguments and result of each function of ``native.c``.
_SIGNATURES = {
    "hiersae_above": (
        [*[_POINTER] * 5, _INT64, _POINTER, _INT64, *[_POINTER] * 3, _INT64, *[_POINTER] * 3],
        _INT64,
    ),
    "hiersae_count": ([*[_POINTER] * 2, _INT64, _INT64, _INT, _POINTER], None),
    "hiersae_find": ([*[_POINTER] * 2, _INT64, _INT64, _INT, _POINTER, _INT64, *[_POINTER] * 2], None),
    "hiersae_dots": ([*[_POINTER] * 5, _INT64, _INT64], None),
    "hiersae_gather": ([*[_POINTER] * 4, _INT64, _INT64, _INT], ctypes.c_double),
    "hiersae_move": ([*[_POINTER] * 6, _INT64, _INT64, _INT, ctypes.POINTER(_Move)], None),
}


def takes(tensor: torch.Tensor, *others: torch.dtype) -> bool:
    """Whether the kernels are available, and this tensor is on the CPU and of float32 or one of ``others``."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, *others) and available()


def available() -> bool:
    """Whether the kernels have been compiled, or can be."""
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
    """Rows, children and values (n,) where scale * (x . w) + offset > bound, in any order; see ``native.c``."""
    places = int((first_g.diff() * width_g).sum())
    numbers = [_dense(tensor, torch.float32) for tensor in (x_BD, w_CD, offset_C, bound_C)]
    scales = None if scale_C is None else _dense(scale_C, torch.float32)
    rows, *groups = (_dense(tensor, torch.int64) for tensor in (row_p, first_g, child_g, width_g))
    capacity = min(places, max(_LEAST_CAPACITY, places // 8))  # few values exceed their bound
    while True:
        row_n, child_n = (torch.empty(capacity, dtype=torch.int64) for _ in range(2))
        value_n = torch.empty(capacity)
        matches = _kernels().hiersae_above(
            *map(_pointer, numbers),
            None if scales is None else _pointer(scales),
            x_BD.shape[1],
            _pointer(rows),
            len(child_g),
            *map(_pointer, groups),
            capacity,
            *map(_pointer, (row_n, child_n, value_n)),
        )
        if matches < 0:
            raise MemoryError("no memory for a product in groups")
        if matches <= capacity:
            return row_n[:matches], child_n[:matches], value_n[:matches]
        capacity = matches


def find(dense_BC: torch.Tensor, bound_C: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The places where float32 or bfloat16 numbers exceed their columns' bounds: row and ``first`` + column, sorted."""
    dense_BC, bounds_C = dense_BC.detach().contiguous(), _dense(bound_C.expand(dense_BC.shape[1]), torch.float32)
    arguments = (_pointer(dense_BC), _pointer(bounds_C), *dense_BC.shape, dense_BC.dtype == torch.bfloat16)
    count_B = torch.empty(len(dense_BC), dtype=torch.int64)
    _kernels().hiersae_count(*arguments, _pointer(count_B))
    first_B = torch.cat([count_B.new_zeros(1), count_B.cumsum(0)])
    row_n, latent_n = (torch.empty(int(first_B[-1]), dtype=torch.int64) for _ in range(2))
    _kernels().hiersae_find(*arguments, _pointer(first_B), first, _pointer(row_n), _pointer(latent_n))
    return row_n, latent_n


def dots(first_B: torch.Tensor, latent_n: torch.Tensor, a_BD: torch.Tensor, w_FD: torch.Tensor) -> torch.Tensor:
    """a[row] . w[latent] of places sorted by row, (n,); row b has ``first_B[b]`` to ``first_B[b + 1]``."""
    dot_n = torch.empty(len(latent_n))
    numbers = [_dense(tensor, torch.float32) for tensor in (a_BD, w_FD)]
    places = [_dense(tensor, torch.int64) for tensor in (first_B, latent_n)]
    _kernels().hiersae_dots(*map(_pointer, (*numbers, *places, dot_n)), *a_BD.shape)
    return dot_n


def gather(weight_FD: torch.Tensor, row_r: torch.Tensor, value_rD: torch.Tensor, unit: bool) -> float:
    """The sum of squares of gradients; ``unit`` first removes, in place, the part along each row."""
    square_r = torch.empty(len(row_r))
    return float(
        _kernels().hiersae_gather(*map(_pointer, (weight_FD, row_r, value_rD, square_r)), *value_rD.shape, int(unit))
    )


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
    pointers = map(_pointer, (weight_FD, mean_FD, square_FD, row_r, value_rD, due_r3))
    _kernels().hiersae_move(*pointers, *value_rD.shape, mean_FD.dtype == torch.bfloat16, _Move(**numbers))


def _dense(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.detach().to(dtype).contiguous()


def _pointer(tensor: torch.Tensor) -> int:
    if not tensor.is_contiguous():
        raise ValueError("the kernels are for dense tensors in order of rows")
    return tensor.data_ptr()


def _kernels() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise RuntimeError("the kernels cannot be compiled here")
    return library


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, from the user's cache if possible; None if they cannot be compiled."""
    if os.environ.get("HIERSAE_NATIVE") == "0":
        return None
    folder = user_cache()
    kind = hashlib.sha256(_SOURCE.read_bytes() + f"{_FLAGS}{_processor()}".encode()).hexdigest()[:16]
    for cached in folder.glob(f"native-{kind}*.so") if folder else ():
        try:
            # A cut or changed library would end the process when it is loaded, so its name has its digest.
            if cached.stem == f"native-{kind}-{_digest(cached)}":
                return _loaded(cached)
        except OSError:
            pass  # made by a compiler whose code does not run here
        with suppress(OSError):
            cached.unlink()
    try:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            library = _loaded(compiled := _compiled(Path(temporary)))
            if folder:
                with open(compiled, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(compiled, folder / f"native-{kind}-{_digest(compiled)}.so")
            return library
    except (OSError, ValueError, subprocess.SubprocessError):  # ValueError: CC is no command line
        return None


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:16]


def _compiled(folder: Path) -> Path:
    compiler = shlex.split(os.environ.get("CC") or "cc")
    objects, linked = folder / "native.o", folder / "native.so"
    # Not linked with OpenMP, because PyTorch has loaded its own, and the threads of two would compete.
    for arguments in ([*_FLAGS, "-c", str(_SOURCE), "-o", str(objects)], ["-shared", str(objects), "-o", str(linked)]):
        subprocess.run(
            [*compiler, *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_COMPILER_SECONDS,
        )
    return linked


def _loaded(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def _processor() -> str:
    """A description of the processor, so that a cache on a shared disk has kernels for each kind."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            return next(line for line in cpuinfo if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"
