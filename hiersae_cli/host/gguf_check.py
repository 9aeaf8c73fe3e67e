"""Whether a GGUF file holds what its header claims, before a library believes it.

The libraries read as many fields and numbers as a header says there are, even where the file has ended.
Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_VERSIONS = (2, 3)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value, by its type
_STRING, _ARRAY = 8, 9
_WHOLE = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}  # types of sizes
_MOST_DEPTH, _MOST_DIMENSIONS = 4, 8
_LAYERS = ".block_count"


def require_whole(file: Path) -> None:
    """Raise ``ValueError`` if a GGUF file ends before its header does, or has more layers than tensors."""
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        header = _Header(content)
        version, tensors, fields = header.take("<4xIQQ")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} of the format")
        layers = 0
        for _ in range(fields):
            name, value = header.field()
            layers = max(layers, value) if name.endswith(_LAYERS) else layers
        for _ in range(tensors):
            header.string()
            (dimensions,) = header.take("<I")
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"a tensor of {dimensions:,} dimensions")
            header.skip(8 * dimensions + 4 + 8)
        if layers > tensors:
            raise ValueError(f"{layers:,} layers, but {tensors:,} tensors")


class _Header:
    """The bytes of a file, read from the start; going beyond its end raises ``ValueError``."""

    def __init__(self, content: mmap.mmap):
        self._content, self._place = content, 0

    def take(self, form: str) -> tuple[int, ...]:
        """Numbers in the notation of ``struct``."""
        start = self._place
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self._content, start)

    def skip(self, size: int) -> None:
        if size > len(self._content) - self._place:
            raise ValueError("the file ends within its header")
        self._place += size

    def string(self) -> bytes:
        (size,) = self.take("<Q")
        start = self._place
        self.skip(size)
        return self._content[start : start + size]

    def field(self) -> tuple[str, int]:
        """The name of a field, and its value if that is a whole number, else 0."""
        name = self.string().decode("utf-8", "replace")
        (kind,) = self.take("<I")
        if kind in _WHOLE:
            return name, self.take(_WHOLE[kind])[0]
        self._skip_value(kind, 1, 0)
        return name, 0

    def _skip_value(self, kind: int, count: int, depth: int) -> None:
        """Go past ``count`` values of a type."""
        if depth > _MOST_DEPTH:
            raise ValueError("lists nested too deeply")
        if kind in _SIZES:
            self.skip(_SIZES[kind] * count)
        elif kind in (_STRING, _ARRAY):
            for _ in range(count):  # each takes at least 8 bytes, so that the end of the file ends this
                if kind == _STRING:
                    self.string()
                else:
                    inner, number = self.take("<IQ")
                    self._skip_value(inner, number, depth + 1)
        else:
            raise ValueError(f"a value of the type {kind:,}")
