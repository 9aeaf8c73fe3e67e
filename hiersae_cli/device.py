"""Devices: which one, what it computes fast, how much memory it has free."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from hiersae_cli.errors import HierSAEError, UsageError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that ``--device`` means; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Each rank of this machine has a GPU of its own, that of its number ``local_rank``.

    Raises ``UsageError`` if the device is unknown or absent.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" makes tensors, but they hold nothing
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: not available here ({reason})", "Try --device cpu, or auto.") from None
    return device


@cache
def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32: tensor cores, or a CPU with AMX tiles."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    try:  # torch.cpu.get_capabilities() says it too, but only in releases newer than the oldest that we support
        with open("/proc/cpuinfo") as cpuinfo:
            return "amx_bf16" in cpuinfo.read()
    except OSError:
        return False


@cache
def has_bfloat16_products() -> bool:
    """Whether the processor has instructions for products in bfloat16: AVX-512 or AMX."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            flags = cpuinfo.read()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on ``device``; for a CPU, what the system can give without swapping."""
    import psutil
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation, if it has such a setting (glibc).

    Each step frees and allocates tensors of many megabytes. If the memory went back to the system, every page would
    fault at the next step, which costs more than the work on it.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        pass


def compiled_by_torch(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """``torch.compile``; a failure, which shows at the first call, is reported as one of ``--compile``."""
    import torch

    compiled = torch.compile(function, **options)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError, ImportError) as error:
            first = str(error).strip().splitlines()[0]
            raise HierSAEError(
                f"--compile: torch.compile failed: {first}", "Leave --compile out, or install a C++ compiler."
            ) from error

    return call
