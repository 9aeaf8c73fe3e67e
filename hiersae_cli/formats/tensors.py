"""Files of tensors in the safetensors format: written in one way, and read safely."""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import replacing
from hiersae_cli.reading import reading, require_regular

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
_ALIGNMENT = 8  # bytes
_CHECKSUM = "crc32"  # in the metadata, of the data

Tensors = Mapping[str, torch.Tensor] | Mapping[str, np.ndarray[Any, Any]]


def save_tensors(path: str | Path, tensors: Tensors, metadata: Mapping[str, str], *, checked: bool = False) -> None:
    """Replace a file of tensors atomically. Its bytes depend only on the content: names and metadata are sorted.

    ``checked`` adds a checksum, which ``read_tensors`` compares. Raises ``OSError``, which names the file, if the disk
    is full.
    """
    path = Path(path)
    whole = {name: torch.as_tensor(tensor).detach().cpu().contiguous() for name, tensor in tensors.items()}
    # The widest types first, so that every tensor lies at a multiple of the size of its numbers.
    names = sorted(whole, key=lambda name: (-whole[name].element_size(), name))
    if checked:
        metadata = {**metadata, _CHECKSUM: _checksum(whole)}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        start, end = end, end + whole[name].nbytes
        shape = list(whole[name].shape)
        header[name] = {"dtype": _TYPES[whole[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for name in names:
                file.write(_bytes(whole[name]))
    except OSError as error:  # a full disk has no name
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None


def read_tensors(path: str | Path, hint: str) -> dict[str, torch.Tensor]:
    """The tensors of a file; raises ``FileError`` if it is damaged."""
    with opened_tensors(path, hint) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        checksum = (file.metadata() or {}).get(_CHECKSUM)
    if checksum and checksum != _checksum(tensors):
        raise FileError(f"{path}: damaged: its content does not have its checksum", hint)
    return tensors


def require_numbers(path: str | Path, tensors: Mapping[str, torch.Tensor], hint: str) -> None:
    """Raise ``FileError`` if a tensor of a file holds not-a-number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise FileError(f"{path}: damaged: {name} holds not-a-number", hint)


@contextmanager
def opened_tensors(path: str | Path, hint: str) -> Iterator[Any]:
    """A file of tensors, open for reading its metadata and single tensors; raises ``FileError`` if it is damaged."""
    require_regular(path)
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with reading(path, hint), safe_open(path, framework="pt") as file:
        yield file


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Turn what safetensors and tokenizers raise on a full disk into ``OSError``, which names ``path``."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # tokenizers has no class for it
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        raise


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(_bytes(tensors[name]), value)
    return f"{value:08x}"
