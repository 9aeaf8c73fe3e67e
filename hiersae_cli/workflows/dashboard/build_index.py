"""Build the dashboard's index: a resumable pass over the rows of caches, then tables of every latent.

Legend of shapes: R indexed rows, B rows of a batch, b rows of these to measure, D width, F latents of a dictionary,
T tokens listed for each latent, C latents listed for each latent.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import DROPPED, HELD_OUT, TRAIN, ActivationSet
from hiersae_cli.formats.index import (
    SCHEMA,
    SCHEMA_VERSION,
    FiringLists,
    IndexFile,
    IndexWriter,
    is_partial_of,
    partial_folder,
    remove_finished,
)
from hiersae_cli.formats.index_layout import BASELINE, RUN
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.run import Run
from hiersae_cli.host.model import Host
from hiersae_cli.interrupt import Interrupted, stoppable
from hiersae_cli.metrics.fates import VERDICTS, Fate, fate_of
from hiersae_cli.metrics.firings import NONE, Firings
from hiersae_cli.metrics.reconstruction import error_without
from hiersae_cli.sae import HierarchicalSAE, SparseAutoencoder
from hiersae_cli.workflows.common.encoding import decoded, firings_of
from hiersae_cli.workflows.common.evidence import extreme_logits, token_texts
from hiersae_cli.workflows.common.rows import batches_of, spread_blocks

_NEW_ROWS = 10**6  # of a new index without --tokens
_COMMIT_ROWS = 1 << 16
_ERROR_ROWS = 1 << 16  # held-out rows in which the error without each latent is measured
_LENS_TOKENS = 10
_FATE_ROWS = 4096  # of the firings of a baseline latent, which decide its fate
_FATE_PARTS = 8

Array = np.ndarray[Any, Any]


def ensure_index(
    config: DashboardConfig,
    run: Run,
    baseline: Run | None,
    acts: ActivationSet,
    host: Host | None,
    device: torch.device,
    console: Console,
) -> IndexFile:
    """The existing index of these inputs, or a new one.

    An existing index is used with the rows and the seed it was built with, unless the configuration names others.
    Raises ``FileError`` if the existing index was built from other inputs, unless ``config.rebuild``; ``UsageError``
    if no row to index is held out; ``Interrupted`` if the user stops it, and the same command resumes.
    """
    path = Path(config.index_file)
    existing = IndexFile(path) if path.exists() and not config.rebuild else None
    default = existing.header["made_of"] if existing else {"rows": _NEW_ROWS, "seed": 0}
    rows: int = default["rows"] if config.tokens is None else config.tokens
    config = replace(config, tokens=rows, seed=default["seed"] if config.seed is None else config.seed)
    blocks = spread_blocks(acts.rows, rows)
    made_of = {
        "run": run.sha256,
        "acts": list(acts.fingerprints().values()),
        "baseline": baseline.sha256 if baseline else None,
        "host": host.fingerprint if host else None,
        "rows": sum(stop - start for start, stop in blocks),
        "seed": config.seed,
    }
    if existing:
        if different := _different(existing.header["made_of"], made_of):
            raise FileError(
                f"{path}: was built {different}",
                "Give what it was built with, --rebuild to build it again, or another place with --index.",
            )
        existing.check()
        remove_finished(path, made_of)
        return existing
    if config.rebuild and not is_partial_of(path, made_of):
        shutil.rmtree(partial_folder(path), ignore_errors=True)
    description = header(SCHEMA, SCHEMA_VERSION, config, _inputs(config, run, baseline, acts, host))
    description |= {
        "made_of": made_of,
        "run": {**run.described, "step": run.steps_done, "steps": run.config.steps},
        "baseline": baseline.described if baseline else None,
        "host": run.header["host"],
        "tokens": "text" if host else "ids",
    }
    models = {RUN: run.model} | ({BASELINE: baseline.model} if baseline else {})
    _Builder(config, description, models, run.hardened, acts, blocks, host, device, console).build()
    return IndexFile(path)


def _inputs(
    config: DashboardConfig, run: Run, baseline: Run | None, acts: ActivationSet, host: Host | None
) -> dict[str, str]:
    of_baseline = {config.baseline: baseline.sha256} if baseline else {}
    of_host = {config.model: host.fingerprint} if host else {}
    return {config.run: run.sha256, **of_baseline, **of_host, **acts.fingerprints()}


def _different(saved: dict[str, Any], made_of: dict[str, Any]) -> str:
    """How the inputs of an index differ from ``made_of``, to follow "was built"; "" if they do not."""
    flags = {"run": "run", "acts": "--acts", "baseline": "--baseline", "host": "--model"}
    for name, value in made_of.items():
        if saved[name] == value:
            continue
        if name == "rows":
            return f"from {saved[name]:,} rows, not {value:,}"
        if name == "seed":
            return f"with --seed {saved[name]}, not {value}"
        if value is None or saved[name] is None:
            return f"{'with' if value is None else 'without'} {flags[name]}"
        return f"from another {flags[name]}"
    return ""


class _Builder:
    """One index in the making."""

    def __init__(
        self,
        config: DashboardConfig,
        description: dict[str, Any],
        models: dict[str, SparseAutoencoder],
        hardened: HierarchicalSAE | None,
        acts: ActivationSet,
        blocks: list[tuple[int, int]],
        host: Host | None,
        device: torch.device,
        console: Console,
    ):
        self._config, self._description, self._models, self._hardened = config, description, models, hardened
        self._acts, self._blocks, self._host = acts, blocks, host
        self._device, self._console = device, console
        self._parent_F = models[RUN].tree_F
        self._row_R = np.concatenate([np.arange(start, stop) for start, stop in blocks])
        split = acts.column("split")[self._row_R]
        usable = acts.rows_of(TRAIN, HELD_OUT)
        self._split_R = np.where(usable[self._row_R], split, DROPPED)
        held_out = np.flatnonzero(self._split_R == HELD_OUT)
        if not len(held_out):
            raise UsageError(
                f"none of the {len(self._row_R):,} rows to index is held out", "Index more rows: --tokens COUNT."
            )
        self._measured_R = np.zeros(len(self._row_R), bool)
        self._measured_R[held_out[:: -(-len(held_out) // _ERROR_ROWS)]] = True

    @torch.inference_mode()
    def build(self) -> None:
        """Build the index, or finish an unfinished one."""
        latents, width = self._models[RUN].latents, self._acts.width
        per_latent = ("active", "both", "error", *(("active_soft", "both_soft") if self._hardened else ()))
        sums = {name: np.zeros(latents) for name in per_latent}
        sums |= {"measured": np.zeros(1), "square": np.zeros(1), "sum": np.zeros(width)}
        sizes = {name: model.latents for name, model in self._models.items()}
        writer = IndexWriter(self._config.index_file, self._description, sizes, sums)
        done, total = writer.rows_committed, len(self._row_R)
        with stoppable() as stopped, self._console.progress("index", total, "tokens", done) as progress:
            first = 0  # of the batch, in the index's numbering
            for start, stop in batches_of(self._blocks, self._config.batch):
                last = first + stop - start
                if last > done:  # commits end with batches, but another --batch cuts others
                    cut = max(0, done - first)
                    self._add(writer, start + cut, slice(first + cut, last))
                    if last - writer.rows_committed >= _COMMIT_ROWS:
                        writer.commit(last)
                    progress.advance(last - first - cut)
                first = last
                if stopped():
                    writer.commit(last)
                    writer.close()
                    raise Interrupted(f"stopped after {last:,} of {total:,} rows")
        writer.commit(total)
        self._console.say("index: sorting firings by latent, then tokens and comparisons of every latent")
        documents, document_R = np.unique(self._acts.column("document")[self._row_R], return_inverse=True)
        names = self._acts.document_names()
        columns = {
            "cache_row": self._row_R,
            "token": self._acts.column("tokens")[self._row_R],
            "document": document_R,
            "position": self._acts.column("position")[self._row_R],
            "split": self._split_R,
        }
        writer.finish(
            columns,
            [names[number] for number in documents.tolist()],
            lambda lists: self._tables(lists, columns["token"], writer.sums),
        )

    def _add(self, writer: IndexWriter, start: int, rows: slice) -> None:
        """Index some neighbouring rows: ``start`` in the caches, ``rows`` in the index."""
        split_B = self._split_R[rows]
        x_BD = self._acts.rows_at(np.arange(start, start + len(split_B))).to(self._device, torch.float32)
        for name, model in self._models.items():
            firings = _only(firings_of(model, x_BD, self._config.batch), split_B != DROPPED)
            writer.append(name, firings)
            if name == RUN:
                self._count(writer.sums, "", _only(firings, split_B == HELD_OUT))
                self._measure(writer.sums, model, x_BD, firings, np.flatnonzero(self._measured_R[rows]))
        held_out = torch.from_numpy(np.flatnonzero(split_B == HELD_OUT)).to(self._device)
        if self._hardened and len(held_out):
            hardened = self._hardened
            soft = firings_of(hardened, x_BD[held_out], self._config.batch, partial(hardened.codes, hard=False))
            self._count(writer.sums, "_soft", soft)

    def _count(self, sums: dict[str, Array], suffix: str, firings: Firings) -> None:
        """Count firings of held-out rows, and those together with the parent."""
        latents = len(self._parent_F)
        sums[f"active{suffix}"] += np.bincount(firings.latent_n, minlength=latents)
        child = self._parent_F[firings.latent_n] != NONE
        row, latent = firings.row_n[child], firings.latent_n[child]
        both = firings.among(row, self._parent_F[latent])
        sums[f"both{suffix}"] += np.bincount(latent[both], minlength=latents)

    def _measure(
        self, sums: dict[str, Array], model: SparseAutoencoder, x_BD: torch.Tensor, firings: Firings, row_b: Array
    ) -> None:
        """Add how much the error would grow without each latent, in the rows ``row_b`` of the batch."""
        if not len(row_b):
            return
        place_B = np.full(len(x_BD), NONE)
        place_B[row_b] = np.arange(len(row_b))
        measured_n = place_B[firings.row_n] != NONE
        place_n = place_B[firings.row_n[measured_n]] * model.latents + firings.latent_n[measured_n]
        measured = Firings(len(row_b), model.latents, place_n, firings.value_n[measured_n])
        x_bD = x_BD[torch.from_numpy(row_b).to(x_BD.device)]
        sums["error"] += error_without(x_bD, decoded(model, measured), measured, model.W_dec_FD)
        sums["measured"] += len(row_b)
        sums["square"] += float(x_bD.double().square().sum())
        sums["sum"] += x_bD.double().sum(0).cpu().numpy()

    def _tables(
        self, lists: dict[str, FiringLists], token_R: Array, sums: dict[str, Array]
    ) -> tuple[dict[str, Array], dict[int, str]]:
        """Tables of every latent, and the texts of the tokens that the pages may show."""
        variance = sums["square"][0] - np.square(sums["sum"]).sum() / max(sums["measured"][0], 1)
        tables: dict[str, Array] = {
            f"{RUN}/parent": self._parent_F,
            f"{RUN}/fvu_increase": (sums["error"] / variance if variance > 0 else sums["error"] * np.nan).astype("<f4"),
        }
        for name in ("active", "both", "active_soft", "both_soft"):
            if name in sums:
                tables[f"{RUN}/{name}"] = sums[name].astype("<i8")
        own = lists[RUN].own_tokens(token_R, self._split_R != DROPPED)
        tables[f"{RUN}/own_tokens"], tables[f"{RUN}/own_shares"] = own
        tables |= self._lens()
        if BASELINE in lists:
            usable = int((self._split_R != DROPPED).sum())
            with self._console.progress("compare", lists[BASELINE].latents, "latents of the baseline") as progress:
                tables |= _fates(lists[RUN], lists[BASELINE], usable, progress.advance)
        if not self._host:
            return tables, {}
        tokens = [token_R] + [ids for name, ids in tables.items() if name.endswith(("/promoted", "/suppressed"))]
        ids = np.unique(np.concatenate([part.ravel() for part in tokens]))
        return tables, dict(zip(ids.tolist(), token_texts(self._host)(ids), strict=True))

    def _lens(self) -> dict[str, Array]:
        """Tokens promoted and suppressed, (F, T), with their logits."""
        tables: dict[str, Array] = {}
        if not self._host:
            return tables
        try:
            for name, model in self._models.items():
                sides = extreme_logits(self._host, model.W_dec_FD, _LENS_TOKENS)
                for side, (ids, logits) in zip(("promoted", "suppressed"), sides, strict=True):
                    tables[f"{name}/{side}"], tables[f"{name}/{side}_logits"] = ids.astype("<i4"), logits.astype("<f4")
        except FileError as error:
            self._console.warn(f"no promoted tokens: {error.message}")
        return tables


def _only(firings: Firings, chosen_B: Array) -> Firings:
    """The firings of the chosen rows; the other rows stay, without firings."""
    if chosen_B.all():
        return firings
    chosen_n = chosen_B[firings.row_n]
    return Firings(firings.rows, firings.latents, firings.place_n[chosen_n], firings.value_n[chosen_n])


def _fates(ours: FiringLists, theirs: FiringLists, rows: int, advance: Any) -> dict[str, Array]:
    """The fate of each latent of the baseline: see ``metrics.fates``."""
    latents, fired_F = theirs.latents, ours.fired_F
    verdict, covered = np.zeros(latents, "u1"), np.full(latents, np.nan, "<f4")
    part = np.full((latents, _FATE_PARTS), NONE, "<i4")
    share, within = np.zeros((2, latents, _FATE_PARTS), "<f4")
    counted = np.zeros((latents, _FATE_PARTS), "u1")
    for latent in range(latents):
        fired = theirs.rows_of(latent)
        sampled = fired[:: max(1, -(-len(fired) // _FATE_ROWS))]
        place_m, latent_m = ours.at(sampled)
        fate: Fate = fate_of(place_m, latent_m, len(sampled), len(fired), fired_F, rows)
        verdict[latent], covered[latent] = VERDICTS.index(fate.verdict), fate.covered
        first = slice(0, min(len(fate.part_C), _FATE_PARTS))
        part[latent, first], share[latent, first] = fate.part_C[first], fate.share_C[first]
        within[latent, first], counted[latent, first] = fate.within_C[first], fate.counted_C[first]
        advance(1)
    names = ("verdict", "covered", "part", "share", "within", "counted")
    values = (verdict, covered, part, share, within, counted)
    return {f"{BASELINE}/{name}": array for name, array in zip(names, values, strict=True)}
