"""The report of ``hiersae eval``: from figures to estimates, differences and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.formats.numbers import finite_or_none
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.report import (
    MORE_IS_BETTER,
    OWN,
    SCHEMA,
    SCHEMA_VERSION,
    SEED_OF,
    TOO_FEW_DOCUMENTS,
    TOO_FEW_SEEDS,
    verdict,
)
from hiersae_cli.metrics.catalogue import CHOW_LIU, SHUFFLED, SOFT, metric_of
from hiersae_cli.metrics.intervals import (
    LEAST_SEEDS,
    Difference,
    Estimate,
    Figure,
    difference,
    holm,
    mean,
    seeds_suffice,
)
from hiersae_cli.metrics.spectrum import Spectrum
from hiersae_cli.workflows.eval.passes import OtherSeed
from hiersae_cli.workflows.eval.score import Evaluation, Scored, ScoredGroup
from hiersae_cli.workflows.eval.stability import stability
from hiersae_cli.workflows.eval.subjects import mismatches, varied_seeds
from hiersae_cli.workflows.eval.tasks import PreparedTasks
from hiersae_cli.workflows.eval.trees import TREE_METRICS

LEAST_DOCUMENTS = 10  # held out: with fewer, nothing is called better or worse

SMALL_FVU, GOOD_RECOVERY = 0.05, 0.95  # a smaller FVU and a smaller share of the loss contradict each other


def build_report(evaluation: Evaluation) -> dict[str, Any]:
    """What ``report.json`` holds; the first group is compared with each of the others."""
    config, sample, loss = evaluation.config, evaluation.sample, evaluation.loss
    first, scored = evaluation.groups[0], evaluation.scored
    further = [other.subject for other in evaluation.further]
    runs = [subject.run for subject in [*(dictionary.subject for dictionary in scored), *further]]
    inputs = {**evaluation.fingerprints, **{str(run.path): run.sha256 for run in runs if run}}
    l0 = {dictionary.name: dictionary.figures["l0"].value for dictionary in scored}
    report = {
        **header(SCHEMA, SCHEMA_VERSION, config, inputs),
        "sample": {
            "rows": len(sample.rows),
            "documents": sample.documents,
            "blocks": sample.blocks,
            "loss_tokens": int(loss.tokens_K.sum()) if loss else 0,
            "left_alone": loss.left_alone if loss else 0,
            "module": evaluation.module,
        },
        "spectrum": evaluation.spectrum.as_json() if evaluation.spectrum else None,
        "warnings": [*evaluation.warnings, *contradictions(scored), *_doubts(evaluation)],
        "subjects": {dictionary.name: _described(dictionary, evaluation.spectrum) for dictionary in scored},
        "mismatches": {group.name: mismatches(first.group, group.group, l0) for group in evaluation.groups[1:]},
        "runs": {
            dictionary.name: {
                metric: _as_json(metric, figure.estimate(config.confidence))
                for metric, figure in dictionary.figures.items()
            }
            for dictionary in scored
        },
        "groups": {
            group.name: _group(group, evaluation.further if group is first else (), config)
            for group in evaluation.all_groups
        },
        "paired": {group.name: _differences(first, group, evaluation) for group in evaluation.all_groups[1:]},
        "control_trees": {group.name: _against_controls(group, evaluation) for group in evaluation.groups},
    }
    if evaluation.tasks:
        report["tasks"] = _tasks(evaluation.tasks, evaluation)
    return {**report, "tests": {"correction": "Holm", "level": 1 - config.confidence}}


def _tasks(tasks: PreparedTasks, evaluation: Evaluation) -> dict[str, Any]:
    """The concepts, what probes reach on the activations, and by subject what is known of each concept."""
    config, probed = evaluation.config, tasks.probed
    return {
        "labeller": config.labels or config.labeller,
        "rows": {"fitted": len(probed.fit.x_ND), "scored": len(probed.held_out.x_ND)},
        "concepts_found": probed.candidates,
        "concepts": probed.described(),
        "ceiling": {
            name: _as_json(f"{name}_reconstruction", figure.estimate(config.confidence))
            for name, figure in probed.ceiling_figures(evaluation.bootstrap).items()
        },
        "subjects": {
            dictionary.name: dictionary.tasks.table(dictionary.subject.model.levels)
            for dictionary in evaluation.scored
            if dictionary.tasks
        },
    }


def _group(group: ScoredGroup, further: Sequence[OtherSeed], config: EvalConfig) -> dict[str, Any]:
    """The mean of every figure over the seeds, with what only several runs have: their stability."""
    of_seeds = [dictionary.figures for dictionary in group.scored]
    common = [metric for metric in of_seeds[0] if all(metric in figures for figures in of_seeds)]
    means = {metric: mean([figures[metric] for figures in of_seeds], config.confidence) for metric in common}
    means |= stability(group, further, config)
    in_json = {metric: _as_json(metric, estimate) for metric, estimate in means.items()}
    if len(of_seeds) > 1:
        for metric in common:
            in_json[metric]["of_seeds"] = [finite_or_none(figures[metric].value) for figures in of_seeds]
    return {
        "subjects": [dictionary.name for dictionary in group.scored],
        **group.group.seeds_as_json(),
        "figures": in_json,
    }


def _as_json(metric: str, estimate: Estimate) -> dict[str, Any]:
    """A figure or a difference as the report holds it, with the ends of its interval inside the metric's range."""
    clip = partial(metric_of(metric).clip, difference=isinstance(estimate, Difference))
    return {**estimate.as_json(), "low": clip(estimate.low), "high": clip(estimate.high)}


def _differences(first: ScoredGroup, other: ScoredGroup, evaluation: Evaluation) -> dict[str, Any]:
    """The first group's figures minus the other's, for the metrics that both have, with their tests.

    A run that is not hardened fires softly, so its figures are compared with the soft figures of a hardened run.
    Those of a hardened tree itself are compared with nothing: how often parent and child fire decides them all.
    Those of control trees are only compared with the run's own tree.
    """
    metrics = dict.fromkeys(metric for group in (first, other) for metric in group.scored[0].figures)
    same_seeds, seedless = first.group.same_seeds(other.group), not other.group.run
    differences = {}
    for metric in metrics:
        if metric in TREE_METRICS and metric + SOFT in metrics:
            continue
        if metric not in MORE_IS_BETTER and metric.endswith((CHOW_LIU, SHUFFLED)):
            continue
        ours, theirs = (_figures(group, metric, metric.removesuffix(SOFT)) for group in (first, other))
        if ours and theirs:
            differences[metric] = difference(ours, theirs, evaluation.config.confidence, same_seeds, seedless)
    counts = [len(first.scored), *([] if seedless else [len(other.scored)])]
    return _tested(differences, seeds_suffice(*counts), evaluation)


def _against_controls(group: ScoredGroup, evaluation: Evaluation) -> dict[str, Any]:
    """By control tree: the figures of each run's own tree minus those of the control over the same dictionary."""
    by_control: dict[str, dict[str, Difference]] = {}
    for suffix in (SHUFFLED, CHOW_LIU):
        for metric, better in MORE_IS_BETTER.items():
            own, control = _figures(group, metric), _figures(group, metric + suffix)
            if better is not None and own and control and metric + suffix not in MORE_IS_BETTER:
                compared = difference(own, control, evaluation.config.confidence, same_seeds=True)
                by_control.setdefault(suffix.lstrip("_"), {})[metric] = compared
    enough_seeds = seeds_suffice(len(group.scored))
    return {name: _tested(differences, enough_seeds, evaluation) for name, differences in by_control.items()}


def _figures(group: ScoredGroup, *names: str) -> list[Figure]:
    """The figure of each seed under the first of ``names`` that all seeds have; empty if they have none of them."""
    for name in names:
        figures = [dictionary.figures[name] for dictionary in group.scored if name in dictionary.figures]
        if len(figures) == len(group.scored):
            return figures
    return []


def _tested(differences: dict[str, Difference], enough_seeds: bool, evaluation: Evaluation) -> dict[str, Any]:
    """Differences as the report holds them, with corrected p-values and verdicts: together a family of tests."""
    level = 1 - evaluation.config.confidence
    few_documents = evaluation.sample.documents < LEAST_DOCUMENTS
    rows = {metric: _as_json(metric, compared) for metric, compared in differences.items()}
    tested = []
    for metric, row in rows.items():
        row |= {"p": None if few_documents else row["p"], "p_holm": None, "verdict": ""}
        if metric_of(metric).better is None or row["value"] is None:
            continue
        if few_documents:
            row["verdict"] = TOO_FEW_DOCUMENTS
        elif not enough_seeds:
            row["verdict"] = TOO_FEW_SEEDS
        elif row["p"] is not None:
            tested.append((metric, row))
    for (metric, row), p in zip(tested, holm([row["p"] for _, row in tested]), strict=True):
        row |= {"p_holm": p, "verdict": verdict(metric, row["value"], p, level)}
    return rows


def contradictions(scored: Sequence[Scored]) -> list[str]:
    """Dictionaries whose FVU says that little is lost, although their loss says that much is."""
    return [
        f"{dictionary.name}: FVU {fvu.value:.2g} says that little is lost, but the host recovers only "
        f"{recovered.value:.1%} of its loss: a few rows or directions probably hold most of the variance"
        for dictionary in scored
        if (fvu := dictionary.figures["fvu"]).value < SMALL_FVU
        and (recovered := dictionary.figures.get("ce_recovered"))
        and recovered.value < GOOD_RECOVERY
    ]


def _doubts(evaluation: Evaluation) -> list[str]:
    groups, sample, doubts = evaluation.groups, evaluation.sample, []
    documents = f"{sample.documents} held-out document{'s' * (sample.documents != 1)}"
    if sample.documents < LEAST_DOCUMENTS:
        intervals = "intervals are rough" if sample.documents > 1 else "there are no intervals"
        doubts.append(f"only {documents}: {intervals}, and nothing is called better or worse below {LEAST_DOCUMENTS}")
    single = [group.name for group in groups if len(group.scored) == 1]
    if single:
        doubts.append(
            f"one seed of {' and of '.join(single)}: intervals and tests say how figures vary with the documents, not "
            "with the training"
        )
    if single and len(single) < len(groups):
        doubts.append("one seed against several: differences between them have no intervals and no tests")
    few = [group.name for group in groups if 1 < len(group.scored) < LEAST_SEEDS]
    if few:
        doubts.append(
            f"two seeds of {' and of '.join(few)}: the figures of both are shown; intervals and tests over seeds need "
            f"{LEAST_SEEDS}"
        )
    return [*doubts, *_doubts_of_seeds(evaluation)]


def _doubts_of_seeds(evaluation: Evaluation) -> Iterator[str]:
    """Groups whose runs have the same first weights, or the same data order."""
    for group in evaluation.groups:
        seeds = list(group.group.seeds)
        if group is evaluation.groups[0]:
            seeds += [other.subject.run.seeds for other in evaluation.further if other.subject.run]
        varied = varied_seeds(seeds)
        if len(varied) == 1:
            yield (
                f"runs of {group.name} differ only in the seed of the {SEED_OF[varied[0]]}: runs that differ in both "
                "seeds may be less alike"
            )


def _described(dictionary: Scored, spectrum: Spectrum | None) -> dict[str, Any]:
    model, run, encoded = dictionary.subject.model, dictionary.subject.run, dictionary.encoded
    properties = {
        "tree": encoded.fitted.tree,
        "hard": encoded.soft is not None,
        "edges": len(encoded.trees.edges[OWN].child_E) if OWN in encoded.trees.edges else 0,
        "latents": model.latents,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "pca_fvu": spectrum.pca_fvu(dictionary.figures["l0"].value) if spectrum else None,
    }
    if not run:
        return {"arch": "control", "widths": list(model.widths), "k": list(model.k), **properties}
    return {
        "path": str(run.path),
        "arch": run.config.arch,
        "widths": list(run.config.widths),
        "k": list(run.config.k),
        "tokens": None if run.converted else run.config.tokens,
        "steps": None if run.converted else run.config.steps,
        "tokens_per_latent": None if run.converted else run.config.tokens / model.latents,
        "seed": None if run.converted else run.config.seed,
        "init_seed": None if run.converted else run.config.seeds.init,
        "order_seed": None if run.converted else run.config.seeds.order,
        **properties,
        "sha256": run.sha256,
    }
