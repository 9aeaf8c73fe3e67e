"""Activation caches with random content, written without a language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.formats.activations import SCHEMA, SCHEMA_VERSION, ActivationsWriter, RowColumns
from hiersae_cli.formats.activations.layout import STORAGE
from hiersae_cli.formats.provenance import header

WIDTHS = {"h.1": 5, "h.0": 3}


@dataclass
class Content:
    """What a cache is made of: columns of every row, and by module the rows as stored (bfloat16 as its bits)."""

    rows: RowColumns
    stored: dict[str, np.ndarray]
    values: dict[str, np.ndarray]


def content(count: int, dtype: str = "float32", seed: int = 0, widths: dict[str, int] | None = None) -> Content:
    """Random rows in documents of 7, every fifth document held out, the first row of each dropped."""
    random = np.random.default_rng(seed)
    document = (np.arange(count) // 7).astype(np.int32)
    position = (np.arange(count) % 7).astype(np.int32)
    held_out = np.arange(document[-1] + 1) % 5 == 4
    split = held_out[document].astype(np.uint8)
    split[position == 0] = 2
    tokens = random.integers(0, 50, count, dtype=np.int32)
    names = [f"text {number} – é" for number in range(len(held_out))]
    stored, values = {}, {}
    for module, width in (widths or WIDTHS).items():
        x = random.normal(size=(count, width)).astype(np.float32)
        x[random.integers(0, count, max(1, count // 50))] *= 1000
        if dtype == "bfloat16":
            stored[module] = (x.view(np.uint32) >> 16).astype(np.uint16)
            values[module] = (stored[module].astype(np.uint32) << 16).view(np.float32)
        else:
            stored[module] = x.astype(STORAGE[dtype])
            values[module] = stored[module].astype(np.float32)
    rows = RowColumns(tokens, document, position, split, names, np.arange(len(names)) * 7, held_out)
    return Content(rows, stored, values)


def write(
    path: Path,
    made: Content,
    dtype: str = "float32",
    *,
    compression: str = "none",
    span: tuple[int, int] | None = None,
    host: str = "a",
    committed: int | None = None,
    drop_outliers: bool = False,
    **flags: Any,
) -> Path:
    """The cache of ``made``, or of the rows in ``span`` as a shard; unfinished where ``committed`` says how far."""
    first, last = span or (0, len(made.rows))
    config = CacheConfig(
        texts=["text.txt"], model="host", module=list(made.stored), dtype=dtype, drop_outliers=drop_outliers, **flags
    )
    head = {
        **header(SCHEMA, SCHEMA_VERSION, config, {"text.txt": "0"}),
        "host": {"name": "host", "fingerprint": host, "dtype": dtype, "device": "cpu", "context": 7},
        "text": {"sha256": "0"},
        "content": {"dtype": dtype, "modules": {module: x.shape[1] for module, x in made.stored.items()}},
        "batch": 2,
        "first_row": first,
        "total_rows": len(made.rows),
    }
    widths = {module: x.shape[1] for module, x in made.stored.items()}
    writer = ActivationsWriter.create(path, head, made.rows.between(first, last), widths, dtype)
    for module, stored in made.stored.items():
        norms = np.linalg.norm(made.values[module].astype(np.float64), axis=1)
        writer.write(module, 0, stored[first:last], norms[first:last].astype(np.float32))
    writer.commit(last - first if committed is None else committed)
    if committed is None:
        writer.finish(compression)
    else:
        writer.close()
    return path


def datasets(path: Path) -> dict[str, tuple[object, bytes]]:
    """Type and bytes of every dataset but the header, which tells when and how the file was made."""
    found: dict[str, tuple[object, bytes]] = {}

    def note(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and name != "header":
            data = np.asarray(item[()])
            value = repr(data.tolist()).encode() if data.dtype == object else data.tobytes()
            found[name] = (data.shape, value)

    with h5py.File(path) as file:
        file.visititems(note)
    return found
