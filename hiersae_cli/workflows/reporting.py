"""The report of ``hiersae eval``: from sums over the held-out rows to metrics, differences and a table.

Legend of shapes: N rows of the sample, K blocks of documents, E edges, n weightings of the blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hiersae_cli.config import EvalConfig
from hiersae_cli.console import Console
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.report import SCHEMA, SCHEMA_VERSION
from hiersae_cli.formats.run import Run
from hiersae_cli.formats.tree_writers import SOFT
from hiersae_cli.metrics.intervals import Bootstrap, Draws, Share
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.metrics.reconstruction import CodeSums, DataSums, EdgeSums
from hiersae_cli.metrics.tree import edge_statistics
from hiersae_cli.workflows.recovery import TreeSums

LEAST_FIRINGS = 20  # of a child in the sample: below, an edge's statistics are left out of the means
FEW_BLOCKS = 10  # of documents: below, intervals deserve a warning

ZERO, MEAN = "(zero)", "(mean)"  # names of the ablations among the interventions; no run folder is called so

# In the order of the table: whether more is better, None where neither is. Figures of one level (``l0_level_1``) and
# of a hardened tree's soft firing (``fvu_soft``) stand with those of the whole.
MORE_IS_BETTER: dict[str, bool | None] = {
    "fvu": False,
    "ev": True,
    "l0": None,
    "dead": False,
    "ce_recovered": True,
    "ce_recovered_mean": True,
    "kl": False,
    "mi_bits": True,
    "mi_over_max": True,
    "p_parent_given_child": True,
    "lift": True,
    "bits_per_token": False,
    "bits_per_token_tree": False,
    "bits_per_token_chow_liu": False,
    "hierarchy_score": True,
    "hierarchy_score_chow_liu": True,
    "hierarchy_score_shuffled": None,
    "mcc": True,
    "uniqueness": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "edge_precision": True,
    "edge_recall": True,
    "edge_f1": True,
    "edge_f1_chow_liu": True,
    "edge_f1_shuffled": None,
    "ancestor_precision": True,
    "ancestor_recall": True,
    "ancestor_f1": True,
}


# Means over the edges of a tree, with their units.
TREE_METRICS = {"mi_bits": "bits", "mi_over_max": "1", "p_parent_given_child": "1", "lift": "1"}


@dataclass
class Subject:
    """A run under measurement.

    Attributes:
        name: its key in the report.
        run: the loaded run.
        tree: "learned", "post-hoc" where a flat run was given one for comparison, or "none".
        sums, edges: what is summed over its codes.
        soft: the same for the soft firing of a hardened tree, where a child may fire without its parent.
        trees: what is summed for the figures of trees as wholes.
    """

    name: str
    run: Run
    tree: str
    sums: CodeSums
    edges: EdgeSums | None = None
    soft: tuple[CodeSums, EdgeSums] | None = None
    trees: TreeSums | None = None


@dataclass(frozen=True)
class Sample:
    """Held-out rows, and the block of documents that each belongs to.

    Attributes:
        rows: (N,) row numbers, ascending.
        block: (N,) int64.
        blocks: K.
        documents: how many documents they come from.
    """

    rows: np.ndarray
    block: np.ndarray
    blocks: int
    documents: int


def build_report(
    subjects: list[Subject],
    data: DataSums,
    loss: LossSums | None,
    sample: Sample,
    acts: ActivationSet,
    config: EvalConfig,
) -> dict[str, Any]:
    """What ``report.json`` holds; the first subject is compared with each of the others."""
    bootstrap = Bootstrap(sample.blocks, config.resamples, config.seed)
    measured = {subject.name: _measure(subject, data, loss, bootstrap) for subject in subjects}
    first, baselines = subjects[0], subjects[1:]
    inputs = acts.fingerprints() | {str(subject.run.path): subject.run.sha256 for subject in subjects}
    return {
        **header(SCHEMA, SCHEMA_VERSION, config, inputs),
        "sample": {
            "rows": len(sample.rows),
            "documents": sample.documents,
            "blocks": sample.blocks,
            "loss_tokens": int(loss.tokens_K.sum()) if loss else 0,
            "module": acts.module,
        },
        "subjects": {subject.name: _described(subject) for subject in subjects},
        "mismatches": {subject.name: _mismatches(first.run, subject.run) for subject in baselines},
        "runs": {
            name: {metric: figure.estimate(config.confidence).as_json() for metric, figure in figures.items()}
            for name, figures in measured.items()
        },
        "paired": {
            subject.name: _differences(measured[first.name], measured[subject.name], config.confidence)
            for subject in baselines
        },
    }


def show(report: dict[str, Any], console: Console) -> None:
    """The table on the terminal; what makes the comparison doubtful comes first."""
    names = list(report["runs"])
    for name, differences in report["mismatches"].items():
        if differences:
            console.warn(f"{name} is not matched to {names[0]}: {'; '.join(differences)}")
    sample = report["sample"]
    if sample["blocks"] < FEW_BLOCKS:
        console.warn(f"only {sample['documents']} held-out documents: intervals are rough or missing")
    metrics = dict.fromkeys(metric for name in names for metric in report["runs"][name])
    rows = []
    for metric in sorted(metrics, key=lambda metric: list(MORE_IS_BETTER).index(_of_the_whole(metric))):
        figures = [report["runs"][name].get(metric) for name in names]
        row = [metric, _shown(figures[0])]
        for name, figure in zip(names[1:], figures[1:], strict=True):
            row += [_shown(figure), _verdict(metric, report["paired"][name].get(metric))]
        rows.append(row)
    columns = names[:1]
    for name in names[1:]:
        post_hoc = report["subjects"][name]["tree"] == "post-hoc"
        columns += [f"{name} (post-hoc tree)" if post_hoc else name, "difference"]
    title = f"{sample['rows']:,} held-out rows of {sample['documents']:,} documents, {sample['module']}"
    console.table(title, ["", *columns], rows)


def _measure(subject: Subject, data: DataSums, loss: LossSums | None, bootstrap: Bootstrap) -> dict[str, Draws | Share]:
    """Every metric of a run, over the sample and over each resample."""
    sums, name = subject.sums, subject.name
    rows = int(data.rows_K.sum())
    found: dict[str, Draws | Share] = {}

    def add(metric: str, unit: str, n: int, statistic: Callable[[np.ndarray], np.ndarray]) -> None:
        found[metric] = bootstrap.draws(statistic, n, unit)

    add("fvu", "1", rows, partial(sums.fvu, data))
    add("ev", "1", rows, lambda weights_nK: 1 - sums.fvu(data, weights_nK))
    add("l0", "latents", rows, partial(sums.l0, data))
    if len(sums.widths) > 1:
        for level in range(len(sums.widths)):
            add(f"l0_level_{level}", "latents", rows, partial(sums.l0, data, level=level))
    found["dead"] = Share(sums.dead(), sum(sums.widths))
    if loss:
        tokens = int(loss.tokens_K.sum())
        add("ce_recovered", "1", tokens, partial(loss.recovered, name, ZERO))
        add("ce_recovered_mean", "1", tokens, partial(loss.recovered, name, MEAN))
        add("kl", "nats", tokens, partial(loss.kl, name))
    if subject.edges:
        found |= _measure_tree(sums, subject.edges, data, bootstrap)
    if subject.trees:
        found |= subject.trees.figures(sums, data, bootstrap, LEAST_FIRINGS)
    if subject.soft:
        soft, edges = subject.soft
        add(f"fvu{SOFT}", "1", rows, partial(soft.fvu, data))
        add(f"l0{SOFT}", "latents", rows, partial(soft.l0, data))
        tree = _measure_tree(soft, edges, data, bootstrap)
        found |= {f"{metric}{SOFT}": figure for metric, figure in tree.items()}
    return found


def _measure_tree(sums: CodeSums, edges: EdgeSums, data: DataSums, bootstrap: Bootstrap) -> dict[str, Draws]:
    """Means over the edges whose child fires often enough in the sample for its rates to be known."""
    child_KE, parent_KE = sums.fired_KF[:, edges.child_E.cpu()], sums.fired_KF[:, edges.parent_E.cpu()]
    known_E = child_KE.sum(0) >= LEAST_FIRINGS
    if not known_E.any():
        return {}
    child_KE, parent_KE, both_KE = child_KE[:, known_E], parent_KE[:, known_E], edges.both_KE[:, known_E]

    def means(w_K: np.ndarray) -> list[float]:
        values = edge_statistics(w_K @ parent_KE, w_K @ child_KE, w_K @ both_KE, w_K @ data.rows_K)
        return [float(np.nanmean(values[name])) for name in TREE_METRICS]

    whole = means(np.ones(len(data.rows_K)))
    resampled_RM = np.array([means(w_K) for w_K in bootstrap.weights_RK]).reshape(-1, len(TREE_METRICS))
    return {
        name: Draws(whole[number], resampled_RM[:, number], int(known_E.sum()), unit)
        for number, (name, unit) in enumerate(TREE_METRICS.items())
    }


def _differences(first: dict[str, Any], other: dict[str, Any], confidence: float) -> dict[str, Any]:
    """The first run's figures minus the other's, for the metrics that both have.

    A run that is not hardened fires softly, so its figures are the other side of a hardened one's soft figures.
    Those of a hardened tree itself are compared with nothing: how often parent and child fire decides them all.
    """
    found = {}
    for metric in dict.fromkeys([*first, *other]):
        if metric in TREE_METRICS and (metric + SOFT in first or metric + SOFT in other):
            continue
        plain = metric.removesuffix(SOFT)
        one, two = (figures.get(metric, figures.get(plain)) for figures in (first, other))
        if one and two:
            found[metric] = one.minus(two, confidence).as_json()
    return found


def _described(subject: Subject) -> dict[str, Any]:
    config = subject.run.config
    return {
        "path": str(subject.run.path),
        "arch": config.arch,
        "widths": list(config.widths),
        "k": list(config.k),
        "tokens": None if subject.run.converted else config.tokens,
        "seed": None if subject.run.converted else config.seed,
        "tree": subject.tree,
        "hard": subject.soft is not None,
        "edges": len(subject.edges.child_E) if subject.edges else 0,
        "sha256": subject.run.sha256,
    }


def _mismatches(first: Run, other: Run) -> list[str]:
    """In what a baseline is not the subject's equal, in words."""
    pairs = {
        "latents": (first.model.latents, other.model.latents),
        "wanted L0": (sum(first.config.k), sum(other.config.k)),
    }
    elsewhere = [f"{run.name} was trained by {run.converted['tool']}" for run in (first, other) if run.converted]
    if not elsewhere:
        pairs |= {
            "training tokens": (first.config.tokens, other.config.tokens),
            "batch": (first.config.batch, other.config.batch),
            "seed": (first.config.seed, other.config.seed),
        }
    found = [f"{what}: {a:,} against {b:,}" for what, (a, b) in pairs.items() if a != b] + elsewhere
    if not elsewhere and sorted(first.header["inputs"].values()) != sorted(other.header["inputs"].values()):
        found.append("trained on another cache")
    return found


def _shown(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.4g}"
    return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}]"


def _verdict(metric: str, difference: dict[str, Any] | None) -> str:
    """The difference, and whether it is better or worse than the baseline beyond its interval."""
    text = _shown(difference)
    more_is_better = MORE_IS_BETTER[_of_the_whole(metric)]
    if difference is None or difference["low"] is None or more_is_better is None:
        return text
    if difference["low"] <= 0 <= difference["high"]:
        return f"{text}  no evidence"
    return f"{text}  {'better' if (difference['value'] > 0) == more_is_better else 'worse'}"


def _of_the_whole(metric: str) -> str:
    """``l0`` for ``l0_level_1``, ``fvu`` for ``fvu_soft``."""
    return re.sub(rf"(_level_\d+|{SOFT})$", "", metric)
