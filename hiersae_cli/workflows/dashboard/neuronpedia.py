"""Feature rows of a run for Neuronpedia and SAEDashboard: a folder of ``batch-N.json`` and ``tree.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.neuronpedia_rows import feature_row
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError
from hiersae_cli.formats.atomic import replacing_folder, write_text
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.tree import SCHEMA, SCHEMA_VERSION, Node, Tree, label_fields, save_tree
from hiersae_cli.host.model import Host
from hiersae_cli.metrics.firings import NONE, FiringCounts
from hiersae_cli.workflows.tree.statistics import statistics_of

BATCH = 128  # features in a file
TREE_FILE = "tree.json"


def is_ours(name: str) -> bool:
    """Whether a file of this name belongs in such a folder."""
    return name == TREE_FILE or re.fullmatch(r"batch-\d+\.json", name) is not None


def write_feature_rows(
    index: Index, host: Host, config: DashboardConfig, advance: Callable[[int], None], console: Console
) -> int:
    """Write all rows and replace those of before; returns the number of files with rows.

    A row's ``feature_index`` is the place of its node in ``tree.json``, counted from 0.
    """
    run = index.file.header["run"]
    described = {
        "model_id": index.file.header["host"]["name"],
        "layer": _layer(run["module"]),
        "sae_set": run["name"],
        "sae_id_suffix": "",
    }
    decoder_FD = torch.from_numpy(index.dictionary.decoder_FD)
    latents = len(decoder_FD)
    with replacing_folder(config.neuronpedia) as folder:
        for start in range(0, latents, BATCH):
            numbers = range(start, min(start + BATCH, latents))
            logits_FV = _logits(host, decoder_FD[numbers.start : numbers.stop], console if start == 0 else None)
            rows = [
                feature_row(index, latent, None if logits_FV is None else logits_FV[latent - start].numpy())
                for latent in numbers
            ]
            text = json.dumps({**described, "features": rows}, ensure_ascii=False, allow_nan=False)
            write_text(folder / f"batch-{start // BATCH}.json", text.encode("utf-8", "replace").decode())
            advance(len(rows))
        save_tree(folder / TREE_FILE, _tree(index, config))
    return -(-latents // BATCH)


def _logits(host: Host, directions_FD: torch.Tensor, console: Console | None) -> torch.Tensor | None:
    try:
        return host.direct_logits(directions_FD)[:, : len(host.tokenizer)].cpu()
    except FileError as error:
        if console:
            console.warn(f"no logits: {error.message}")
        return None


def _tree(index: Index, config: DashboardConfig) -> Tree:
    """The tree with its statistics and names; the other evidence is in the rows."""
    overview, ids, labels, statistics = index.overview(), index.ids(), index.labels(), _statistics(index)
    nodes = [
        Node(
            id=id,
            parent=None if overview.parent[place] == NONE else ids[overview.parent[place]],
            level=overview.level[place],
            latent=overview.latent[place],
            statistics=statistics[place],
            evidence={"tokens": _own_tokens(index, place)},
            **label_fields(labels.get(id)),
        )
        for place, id in enumerate(ids)
    ]
    described = {
        **header(SCHEMA, SCHEMA_VERSION, config, index.file.header["inputs"]),
        "run": index.file.header["run"],
        "host": index.file.header["host"],
        "sample": {
            "rows": overview.rows,
            "rows_held_out": overview.held_out_rows,
            "statistics": "held-out rows only",
            "contexts": "in the feature rows",
        },
        "tokens": index.file.header["tokens"],
    }
    return Tree(described, nodes)


def _own_tokens(index: Index, latent: int) -> list[dict[str, Any]]:
    ids = index.dictionary.own_tokens[0][latent].tolist()
    tokens = index.dictionary.tokens(latent)
    return [{"token": token.text, "id": id, "share": token.value} for id, token in zip(ids, tokens, strict=False)]


def _statistics(index: Index) -> list[dict[str, Any]]:
    """The statistics of every node in held-out rows."""
    tables, lists, held_out_R = index.dictionary.tables, index.dictionary.lists, index.contexts.held_out_R
    by_suffix = []
    for suffix in ("", "_soft") if "active_soft" in tables else ("",):
        counts = FiringCounts(index.nodes.parent_F)
        counts.rows = int(held_out_R.sum())
        counts.active_F, counts.both_F = (tables[f"{name}{suffix}"].astype(float) for name in ("active", "both"))
        by_suffix.append(counts)
    for latent in range(lists.latents):
        row_n, value_n = lists.of(latent)
        by_suffix[0].sum_F[latent] = value_n[held_out_R[row_n]].sum(dtype=np.float64)
    return statistics_of(by_suffix[0], by_suffix[1] if len(by_suffix) > 1 else None)


def _layer(module: str) -> int:
    """The number of the block in a module's path, such as 2 in ``transformer.h.2``; 0 if it has none."""
    numbers = re.findall(r"(?:^|\.)(\d+)(?=\.|$)", module)
    return int(numbers[0]) if numbers else 0
