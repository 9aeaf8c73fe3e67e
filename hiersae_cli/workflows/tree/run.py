"""``hiersae export-tree``: run folder + acts.h5 (+ host) -> tree.json, or another format.

Legend of shapes: B rows of a batch, D width, F latents of all levels, the coarsest first.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.export_tree import ExportTreeConfig
from hiersae_cli.console import Console
from hiersae_cli.device import resolve_device
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import HELD_OUT, TRAIN, ActivationSet
from hiersae_cli.formats.atomic import human_bytes, refuse_existing
from hiersae_cli.formats.labels import Label, Labels
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import Run, load_run
from hiersae_cli.formats.text import visible
from hiersae_cli.formats.tree import SCHEMA, SCHEMA_VERSION, Node, Tree, label_fields
from hiersae_cli.host.model import Host
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import NONE, FiringCounts, TopFirings, firings
from hiersae_cli.metrics.own_tokens import ActivationByToken, StrongestRows
from hiersae_cli.render.tree_writers import context_text, edge_statistic, export
from hiersae_cli.sae import SparseAutoencoder
from hiersae_cli.workflows.common.evidence import (
    Texts,
    complete_characters,
    gather_contexts,
    gather_tokens,
    listed_tokens,
    parts_of_characters,
    token_ids,
    token_texts,
)
from hiersae_cli.workflows.common.inputs import load_host, open_acts
from hiersae_cli.workflows.common.rows import batches_of, spread_blocks
from hiersae_cli.workflows.eval.trees import LEAST_FIRINGS
from hiersae_cli.workflows.tree.statistics import edges_of, statistics_of

_MOST_PARENTS = 10  # in the table
_LONGEST_CONTEXT = 60  # characters in the table


def run(config: ExportTreeConfig, console: Console | None = None) -> dict[str, Any]:
    """Write the tree of a run with its statistics and evidence; returns the summary that ``--json`` prints.

    Statistics come from held-out rows, contexts from all rows that are read. Raises ``UsageError`` and ``FileError``,
    before any work, if run, caches and host do not belong together or the output exists.
    """
    console = console or Console.silent()
    started = time.monotonic()
    refuse_existing(config.out, config.overwrite)
    device = resolve_device(config.device)
    trained = load_run(config.run, device)
    levels = trained.model.levels
    root = _root(config, levels)
    acts = open_acts(trained, config.acts)
    host = load_host(config.model, trained, acts, device, console) if config.model else None
    labels = _labels(trained, console)
    steps = trained.config.steps
    if trained.steps_done < steps:
        console.warn(f"{trained.path}: training not ended (step {trained.steps_done:,} of {steps:,})")
    parent_F = trained.model.tree_F
    if root is not None:
        parent_F[root] = NONE
    texts = token_texts(host) if host else token_ids
    parts = StrongestRows(parts_of_characters(acts.column("tokens"), texts))
    counts, soft, top, by_token, looked_at = _pass(config, trained, acts, parent_F, parts, device, console)
    chosen_F = _select(config, counts, soft or counts, root)
    statistics = statistics_of(counts, soft)
    evidence = _evidence(config, trained.model, acts, host, texts, top, by_token, parts, chosen_F, device, console)
    nodes = [
        Node(
            levels.ids[latent],
            levels.parent_id(parent_F[latent]),
            *levels.place(latent),
            statistics=statistics[latent],
            evidence=evidence[latent],
            **label_fields(labels.get(levels.ids[latent])),
        )
        for latent in np.flatnonzero(chosen_F).tolist()
    ]
    tree = Tree(_header(config, trained, acts, counts, looked_at, host), nodes)
    export(config.out, tree, config.format)
    acts.close()
    summary = _summary(config, tree, looked_at, counts.rows)
    _show(tree, summary, console, time.monotonic() - started)
    return summary


def _labels(trained: Run, console: Console) -> dict[str, Label]:
    """The labels in the run's folder; none, with a warning, if they cannot be read or belong to other weights."""
    try:
        return Labels(trained.path, trained.sha256).current()
    except FileError as error:
        console.warn(f"no labels: {error.message}")
        return {}


def _root(config: ExportTreeConfig, levels: Levels) -> int | None:
    """The latent that ``--root`` names."""
    if not config.root:
        return None
    if config.root not in levels:
        raise UsageError(f"--root {config.root}: {config.run} has no such node", f"It has {levels}.")
    return levels.latent(config.root)


@torch.inference_mode()
def _pass(
    config: ExportTreeConfig,
    trained: Run,
    acts: ActivationSet,
    parent_F: np.ndarray,
    parts: StrongestRows,
    device: torch.device,
    console: Console,
) -> tuple[FiringCounts, FiringCounts | None, TopFirings, ActivationByToken, int]:
    """Read the rows once, and add their firings to ``parts``.

    Returns the counts over held-out rows, those of the soft firings of a hardened tree (a child's hard firings are all
    within its parent's), the strongest firings and the activations by token over all rows, and the number of rows.
    """
    held_out = acts.usable(HELD_OUT)
    usable = acts.rows_of(TRAIN, HELD_OUT)
    position, tokens = acts.column("position"), acts.column("tokens")
    blocks = spread_blocks(acts.rows, config.tokens)
    if not any(held_out[start:stop].any() for start, stop in blocks):
        raise UsageError(f"--tokens {config.tokens:,}: none of the rows looked at is held out", "Look at more rows.")
    counts, top = FiringCounts(parent_F), TopFirings(len(parent_F), config.contexts)
    by_token = ActivationByToken(len(parent_F), int(tokens.max()) + 1)
    soft = FiringCounts(parent_F) if trained.hardened else None
    parents = torch.from_numpy(parent_F).to(device)
    looked_at = 0
    with console.progress("export-tree", sum(stop - start for start, stop in blocks), "tokens") as progress:
        for start, stop in batches_of(blocks, config.batch):
            x_BD = acts.rows_at(np.arange(start, stop)).to(device, torch.float32)
            row, latent, value, with_parent = firings(trained.model.encode(x_BD), parents)
            row += start
            counted = held_out[row]
            counts.add(int(held_out[start:stop].sum()), latent[counted], value[counted], with_parent[counted])
            if soft and trained.hardened:
                row_soft, *columns = firings(trained.hardened.encode(x_BD, hard=False), parents)
                counted = held_out[row_soft + start]
                soft.add(int(held_out[start:stop].sum()), *(column[counted] for column in columns))
            allowed = usable[row]
            row, latent, value = row[allowed], latent[allowed], value[allowed]
            # The first row of a window identifies it.
            top.add(latent, value, row, row - position[row])
            by_token.add(tokens[start:stop][usable[start:stop]], tokens[row], latent, value)
            parts.add(tokens[row], latent, value, row)
            looked_at += int(usable[start:stop].sum())
            progress.advance(stop - start)
    return counts, soft, top, by_token, looked_at


def _select(config: ExportTreeConfig, counts: FiringCounts, soft: FiringCounts, root: int | None) -> np.ndarray:
    """Which latents (F,) bool to write, by ``--root``, ``--min-rate`` and ``--max-children``.

    Latents are ordered by level, so a pass from the front reaches every descendant and a pass from the back every
    ancestor.
    """
    parent_F = counts.parent_F
    has_parent = np.flatnonzero(parent_F != NONE)
    chosen_F = counts.active_F >= config.min_rate * counts.rows
    if root is not None:
        inside_F = np.arange(len(parent_F)) == root
        for latent in has_parent:
            inside_F[latent] |= inside_F[parent_F[latent]]
        chosen_F &= inside_F
        chosen_F[root] = True
    if not chosen_F.any():
        most = counts.active_F.max() / counts.rows
        raise UsageError(f"--min-rate {config.min_rate:g}: leaves no latent; the highest rate is {most:.3g}")
    for latent in has_parent[::-1]:
        chosen_F[parent_F[latent]] |= chosen_F[latent]
    if config.max_children:
        information_F = edges_of(soft)["mi_bits"]
        child = has_parent[chosen_F[has_parent]]
        child = child[np.lexsort((child, -information_F[child], parent_F[child]))]
        _, first, number = np.unique(parent_F[child], return_index=True, return_inverse=True)
        rank = np.arange(len(child)) - first[number]
        chosen_F[child[rank >= config.max_children]] = False
        for latent in has_parent:
            chosen_F[latent] &= chosen_F[parent_F[latent]]
    return chosen_F


def _evidence(
    config: ExportTreeConfig,
    model: SparseAutoencoder,
    acts: ActivationSet,
    host: Host | None,
    texts: Texts,
    top: TopFirings,
    by_token: ActivationByToken,
    parts: StrongestRows,
    chosen_F: np.ndarray,
    device: torch.device,
    console: Console,
) -> list[dict[str, Any]]:
    """Own tokens, contexts, and with a host promoted and suppressed tokens, of chosen latents; none of the others."""
    with torch.inference_mode():
        contexts = gather_contexts(
            acts, model.encode, top, chosen_F, config.context_tokens, texts, config.batch, device
        )
    evidence: list[dict[str, Any]] = [{"contexts": of_latent} for of_latent in contexts]
    for latent, ids, shares in zip(range(model.latents), *by_token.own_tokens(), strict=True):
        if chosen_F[latent]:
            evidence[latent]["tokens"] = listed_tokens(ids[ids != NONE], shares, texts)
    complete_characters(acts, [of_latent.get("tokens", []) for of_latent in evidence], parts, texts)
    if host and config.top_tokens:
        chosen = np.flatnonzero(chosen_F)
        directions_FD = model.W_dec_FD.detach()[torch.from_numpy(chosen).to(device)]
        try:
            tokens = gather_tokens(host, directions_FD, config.top_tokens, texts)
        except FileError as error:
            console.warn(f"no promoted tokens: {error.message}")
        else:
            for latent, lists in zip(chosen.tolist(), tokens, strict=True):
                evidence[latent] |= lists
    return evidence


def _header(
    config: ExportTreeConfig,
    trained: Run,
    acts: ActivationSet,
    counts: FiringCounts,
    looked_at: int,
    host: Host | None,
) -> dict[str, Any]:
    return {
        **header(SCHEMA, SCHEMA_VERSION, config, {config.run: trained.sha256, **acts.fingerprints()}),
        "run": {**trained.described, "step": trained.steps_done, "steps": trained.config.steps},
        "host": trained.header["host"],
        "sample": {
            "rows": looked_at,
            "rows_held_out": counts.rows,
            "statistics": "held-out rows only",
            "contexts": "all rows looked at",
        },
        "tokens": "text" if host else "ids",
    }


def _summary(config: ExportTreeConfig, tree: Tree, looked_at: int, held_out: int) -> dict[str, Any]:
    shares = _shares(tree.nodes)
    bits = [b for b in (edge_statistic(node, "mi_bits") for node in tree.nodes) if b is not None]
    return {
        "file": str(config.out),
        "format": config.format,
        "rows": looked_at,
        "rows_held_out": held_out,
        "nodes": len(tree),
        "roots": len(tree.roots()),
        "parents": sum(bool(tree.children(node.id)) for node in tree.nodes),
        "edges": sum(node.parent is not None for node in tree.nodes),
        "dead": sum(node.statistics["dead"] for node in tree.nodes),
        "mi_bits_sum": math.fsum(bits),
        "mi_over_max_mean": math.fsum(shares) / len(shares) if shares else None,
    }


def _show(tree: Tree, summary: dict[str, Any], console: Console, seconds: float) -> None:
    parents = [node for node in tree.nodes if tree.children(node.id)]
    parents = sorted(parents, key=lambda node: (-len(_live(tree, node)), -len(tree.children(node.id))))[:_MOST_PARENTS]
    if parents:
        rows = [_table_row(tree, node) for node in parents]
        columns = ["parent", "rate", "children", "dead", "I/I_max", "name", "strongest context"]
        filled = [number for number in range(len(columns)) if any(row[number] for row in rows)]
        console.table(
            "Parents with the most children",
            [columns[number] for number in filled],
            [[row[number] for number in filled] for row in rows],
        )
    console.say(
        f"{summary['file']}: {summary['nodes']:,} features, {summary['edges']:,} with a parent; "
        f"{summary['dead']:,} dead: they never fire in {summary['rows_held_out']:,} held-out rows"
    )
    console.say(
        f"measured on these rows; contexts and names from {summary['rows']:,} rows; "
        f"{human_bytes(Path(summary['file']).stat().st_size)} in {seconds:.1f} s"
    )


def _shares(nodes: list[Node]) -> list[float]:
    """I/I_max of the nodes that fire often enough, as in ``hiersae eval``."""
    known = [edge_statistic(node, "mi_over_max") for node in nodes if node.statistics["n_active"] >= LEAST_FIRINGS]
    return [share for share in known if share is not None]


def _live(tree: Tree, node: Node) -> list[Node]:
    return [child for child in tree.children(node.id) if not child.statistics["dead"]]


def _table_row(tree: Tree, node: Node) -> list[str]:
    children = tree.children(node.id)
    shares = _shares(children)
    text = context_text(node)
    if len(text) > _LONGEST_CONTEXT:
        middle = text.find("⟪")
        first = max(0, min(middle - _LONGEST_CONTEXT // 2, len(text) - _LONGEST_CONTEXT))
        text = text[first : first + _LONGEST_CONTEXT]
    return [
        node.id,
        f"{node.statistics['rate']:.2%}",
        f"{len(children):,}",
        f"{len(children) - len(_live(tree, node)):,}",
        f"{sum(shares) / len(shares):.2f}" if shares else "-",
        visible(node.name),
        text,
    ]
