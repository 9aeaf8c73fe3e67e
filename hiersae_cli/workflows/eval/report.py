"""The report of ``hiersae eval``: from sums over the held-out rows to metrics, differences and tests.

Legend of shapes: K blocks of documents, n weightings of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.formats.activations import ActivationSet
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.report import (
    MORE_IS_BETTER,
    OWN,
    SCHEMA,
    SCHEMA_VERSION,
    TOO_FEW_DOCUMENTS,
    TOO_FEW_SEEDS,
    verdict,
)
from hiersae_cli.metrics.catalogue import CHOW_LIU, SHUFFLED, SOFT, metric_of
from hiersae_cli.metrics.intervals import (
    LEAST_SEEDS,
    Bootstrap,
    Difference,
    Estimate,
    Figure,
    Share,
    difference,
    holm,
    mean,
    seeds_suffice,
)
from hiersae_cli.metrics.loss import LossSums
from hiersae_cli.metrics.recovery import shuffled_parents
from hiersae_cli.metrics.stability import mean_over_pairs, same_latents, shared_edges, shared_latents
from hiersae_cli.workflows.eval.sample import Sample
from hiersae_cli.workflows.eval.subjects import Group, Subject, mismatches
from hiersae_cli.workflows.eval.tasks import Tasks
from hiersae_cli.workflows.eval.trees import LEAST_FIRINGS, TREE_METRICS, tree_figures

__all__ = ["LEAST_FIRINGS", "MEAN", "MORE_IS_BETTER", "ZERO", "build_report"]

LEAST_DOCUMENTS = 10  # held out: below, nothing is called better or worse

SMALL_FVU, GOOD_RECOVERY = 0.05, 0.95  # a smaller FVU and a smaller share of the loss contradict each other

ZERO, MEAN = "(zero)", "(mean)"  # names of the ablations among the interventions; no run folder is called so


def build_report(
    groups: list[Group],
    control_groups: list[Group],
    further: list[Subject],
    loss: LossSums | None,
    tasks: Tasks | None,
    sample: Sample,
    warnings: list[str],
    acts: ActivationSet,
    config: EvalConfig,
) -> dict[str, Any]:
    """What ``report.json`` holds; the first group is compared with each of the others.

    Args:
        groups, control_groups: what was measured: of runs, the first being the subject, and of controls.
        further: runs for the stability of the first group's tree alone.
        tasks: the downstream tasks, if any.
        warnings: what is known to make the figures doubtful.
    """
    bootstrap = Bootstrap(sample.blocks, config.resamples, config.seed)
    everything = [*groups, *control_groups]
    subjects = [subject for group in everything for subject in group.subjects]
    for subject in subjects:
        subject.figures = _measure(subject, loss, bootstrap)
    first, baselines = groups[0], groups[1:]
    inputs = acts.fingerprints()
    inputs |= {str(subject.run.path): subject.run.sha256 for subject in (*subjects, *further) if subject.run}
    l0 = {subject.name: subject.figures["l0"].value for subject in subjects}
    report = {
        **header(SCHEMA, SCHEMA_VERSION, config, inputs),
        "sample": {
            "rows": len(sample.rows),
            "documents": sample.documents,
            "blocks": sample.blocks,
            "loss_tokens": int(loss.tokens_K.sum()) if loss else 0,
            "left_alone": loss.left_alone if loss else 0,
            "module": acts.module,
        },
        "warnings": warnings + contradictions(subjects) + _doubts(groups, sample),
        "subjects": {subject.name: _described(subject) for subject in subjects},
        "mismatches": {group.name: mismatches(first, group, l0) for group in baselines},
        "runs": {
            subject.name: {
                metric: _as_json(metric, figure.estimate(config.confidence))
                for metric, figure in subject.figures.items()
            }
            for subject in subjects
        },
        "groups": {group.name: _group(group, further if group is first else [], config) for group in everything},
        "paired": {group.name: _differences(first, group, config.confidence) for group in everything[1:]},
        "control_trees": {group.name: _against_controls(group, config.confidence) for group in groups},
    }
    if tasks:
        report["tasks"] = _tasks(tasks, subjects, bootstrap, config)
    report["tests"] = _correct(report, 1 - config.confidence)
    return report


def _measure(subject: Subject, loss: LossSums | None, bootstrap: Bootstrap) -> dict[str, Figure]:
    """Every metric of a dictionary, over the sample and over each resample."""
    sums, data, name = subject.sums, subject.data, subject.name
    rows = int(data.rows_K.sum())
    found: dict[str, Figure] = {}

    def add(metric: str, unit: str, n: int, statistic: Callable[[np.ndarray], np.ndarray]) -> None:
        found[metric] = bootstrap.draws(statistic, n, unit)

    add("fvu", "1", rows, partial(sums.fvu, data))
    add("ev", "1", rows, lambda weights_nK: 1 - sums.fvu(data, weights_nK))
    add("l0", "latents", rows, partial(sums.l0, data))
    if len(sums.levels.widths) > 1:
        for level in range(len(sums.levels.widths)):
            add(f"l0_level_{level}", "latents", rows, partial(sums.l0, data, level=level))
    found["dead"] = Share(sums.dead(), sums.levels.latents)
    if loss and subject.run:
        tokens = int(loss.tokens_K.sum())
        add("ce_recovered", "1", tokens, partial(loss.recovered, name, ZERO))
        add("ce_recovered_mean", "1", tokens, partial(loss.recovered, name, MEAN))
        add("kl", "nats", tokens, partial(loss.kl, name))
    if subject.trees:
        found |= subject.trees.figures(sums, data, bootstrap)
    if subject.tasks:
        found |= subject.tasks.figures(bootstrap)
    if subject.soft:
        soft, edges = subject.soft
        add(f"fvu{SOFT}", "1", rows, partial(soft.fvu, data))
        add(f"l0{SOFT}", "latents", rows, partial(soft.l0, data))
        found |= {f"{metric}{SOFT}": figure for metric, figure in tree_figures(edges, soft, data, bootstrap).items()}
    return found


def _tasks(tasks: Tasks, subjects: list[Subject], bootstrap: Bootstrap, config: EvalConfig) -> dict[str, Any]:
    """The concepts, what probes on the activations reach, and by subject what is said of each concept."""
    ceiling = tasks.ceiling_figures(bootstrap)
    return {
        "labeller": config.labels or config.labeller,
        "rows": {"fitted": len(tasks.fit.x_ND), "scored": len(tasks.held_out.x_ND)},
        "concepts_found": tasks.found,
        "concepts": tasks.described(),
        "ceiling": {
            name: _as_json(f"{name}_reconstruction", figure.estimate(config.confidence))
            for name, figure in ceiling.items()
        },
        "subjects": {subject.name: subject.tasks.table(subject.model.levels) for subject in subjects if subject.tasks},
    }


def _group(group: Group, further: list[Subject], config: EvalConfig) -> dict[str, Any]:
    """The mean of every figure over the seeds, with what only several runs have: the stability of their trees."""
    common = [metric for metric in group.subjects[0].figures if all(metric in each.figures for each in group.subjects)]
    figures = {
        metric: mean([subject.figures[metric] for subject in group.subjects], config.confidence) for metric in common
    }
    shares: dict[str, dict[tuple[int, int], Share]] = {}
    for (i, one), (j, two) in combinations(enumerate([*group.subjects, *further]), 2):
        if one.own_F is None or two.own_F is None:
            continue
        same_F = same_latents(one.model.W_dec_FD, two.model.W_dec_FD)
        shuffled_F = shuffled_parents(one.own_F, one.model.levels, config.seed)
        for metric, share in (
            ("stability", shared_edges(same_F, one.own_F, two.own_F)),
            ("stability_shuffled", shared_edges(same_F, shuffled_F, two.own_F)),
            ("stability_latents", shared_latents(same_F, two.model.latents)),
        ):
            shares.setdefault(metric, {})[i, j] = share
    figures |= {metric: mean_over_pairs(of_pairs, config.confidence) for metric, of_pairs in shares.items()}
    shown = {metric: _as_json(metric, figure) for metric, figure in figures.items()}
    if len(group.subjects) > 1:
        for metric in common:
            values = [subject.figures[metric].value for subject in group.subjects]
            shown[metric]["of_seeds"] = [value if np.isfinite(value) else None for value in values]
    return {"subjects": [subject.name for subject in group.subjects], "seeds": group.seeds, "figures": shown}


def _as_json(metric: str, estimate: Estimate) -> dict[str, Any]:
    """A figure or a difference as the report holds it: no end of an interval lies where the metric cannot."""
    clip = partial(metric_of(metric).clip, difference=isinstance(estimate, Difference))
    return {**estimate.as_json(), "low": clip(estimate.low), "high": clip(estimate.high)}


def _differences(first: Group, other: Group, confidence: float) -> dict[str, Any]:
    """The first group's figures minus the other's, for the metrics that both have.

    A run that is not hardened fires softly, so its figures are the other side of a hardened one's soft figures.
    Those of a hardened tree itself are compared with nothing: how often parent and child fire decides them all.
    Those of control trees are compared with the run's own tree alone.
    """
    one, two = (group.subjects[0].figures for group in (first, other))
    same_seeds = bool(first.seeds) and first.seeds == other.seeds
    found = {}
    for metric in dict.fromkeys([*one, *two]):
        if metric in TREE_METRICS and (metric + SOFT in one or metric + SOFT in two):
            continue
        if metric not in MORE_IS_BETTER and metric.endswith((CHOW_LIU, SHUFFLED)):
            continue
        ours, theirs = (_figures(group, metric, metric.removesuffix(SOFT)) for group in (first, other))
        if ours and theirs:
            found[metric] = _as_json(metric, difference(ours, theirs, confidence, same_seeds))
    return found


def _against_controls(group: Group, confidence: float) -> dict[str, Any]:
    """By control tree: the figures of each run's own tree minus those of the control over the same dictionary."""
    found: dict[str, Any] = {}
    for suffix in (SHUFFLED, CHOW_LIU):
        for metric, better in MORE_IS_BETTER.items():
            own, control = _figures(group, metric), _figures(group, metric + suffix)
            if better is not None and own and control and metric + suffix not in MORE_IS_BETTER:
                compared = difference(own, control, confidence, same_seeds=True)
                found.setdefault(suffix.lstrip("_"), {})[metric] = _as_json(metric, compared)
    return found


def _figures(group: Group, *names: str) -> list[Figure]:
    """The figure of each seed under the first of ``names`` that there is; empty where a seed has none."""
    for name in names:
        found = [subject.figures[name] for subject in group.subjects if name in subject.figures]
        if len(found) == len(group.subjects):
            return found
    return []


def _correct(report: dict[str, Any], level: float) -> dict[str, Any]:
    """Add to every difference its corrected p-value and the verdict. Each comparison of two is a family of tests."""
    seeds = {name: len(group["subjects"]) for name, group in report["groups"].items()}
    first = next(iter(seeds))
    families = [(seeds_suffice(seeds[first], seeds[name]), of_group) for name, of_group in report["paired"].items()]
    for name, of_group in report["control_trees"].items():
        families += [(seeds_suffice(seeds[name]), compared) for compared in of_group.values()]
    few_documents = report["sample"]["documents"] < LEAST_DOCUMENTS
    for enough_seeds, compared in families:
        tested = []
        for metric, figure in compared.items():
            figure |= {"p": None if few_documents else figure["p"], "p_holm": None, "verdict": ""}
            if metric_of(metric).better is None or figure["value"] is None:
                continue
            if few_documents:
                figure["verdict"] = TOO_FEW_DOCUMENTS
            elif not enough_seeds:
                figure["verdict"] = TOO_FEW_SEEDS
            elif figure["p"] is not None:
                tested.append((metric, figure))
        for (metric, figure), p in zip(tested, holm([figure["p"] for _, figure in tested]), strict=True):
            figure |= {"p_holm": p, "verdict": verdict(metric, figure["value"], p, level)}
    return {"correction": "Holm", "level": level}


def contradictions(subjects: list[Subject]) -> list[str]:
    """Subjects whose FVU says that little is lost, and whose loss says that much is."""
    return [
        f"{subject.name}: FVU {fvu.value:.2g} says that little is lost, but the host recovers only "
        f"{recovered.value:.1%} of its loss: a few rows or directions probably hold most of the variance"
        for subject in subjects
        if (fvu := subject.figures["fvu"]).value < SMALL_FVU
        and (recovered := subject.figures.get("ce_recovered"))
        and recovered.value < GOOD_RECOVERY
    ]


def _doubts(groups: list[Group], sample: Sample) -> list[str]:
    found = []
    documents = f"{sample.documents} held-out document{'s' * (sample.documents != 1)}"
    if sample.documents < LEAST_DOCUMENTS:
        intervals = "intervals are rough" if sample.documents > 1 else "there are no intervals"
        found.append(f"only {documents}: {intervals}, and nothing is called better or worse below {LEAST_DOCUMENTS}")
    single = [group.name for group in groups if len(group.subjects) == 1]
    if single:
        found.append(
            f"one seed of {' and of '.join(single)}: intervals and tests say how figures vary with the documents, not "
            "with the training"
        )
    few = [group.name for group in groups if 1 < len(group.subjects) < LEAST_SEEDS]
    if few:
        found.append(
            f"two seeds of {' and of '.join(few)}: the figures of both are shown; intervals and tests over seeds need "
            f"{LEAST_SEEDS}"
        )
    return found


def _described(subject: Subject) -> dict[str, Any]:
    model = subject.model
    found = {
        "tree": subject.tree,
        "hard": subject.soft is not None,
        "edges": len(subject.trees.edges[OWN].child_E) if subject.trees and OWN in subject.trees.edges else 0,
        "latents": model.latents,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if not subject.run:
        return {"arch": "control", "widths": list(model.widths), "k": list(model.k), **found}
    config = subject.run.config
    return {
        "path": str(subject.run.path),
        "arch": config.arch,
        "widths": list(config.widths),
        "k": list(config.k),
        "tokens": None if subject.run.converted else config.tokens,
        "seed": None if subject.run.converted else config.seed,
        **found,
        "sha256": subject.run.sha256,
    }
