"""The contents of a report in every format: doubts first, then a few kinds of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hiersae_cli.formats.report import SEED_OF
from hiersae_cli.levels import MOST_LEVELS, current_id
from hiersae_cli.metrics.catalogue import BY_NAME, CHOW_LIU, SECTIONS, SHUFFLED, STABILITY, base_name, metric_of
from hiersae_cli.metrics.spectrum import in_words

Figure = Mapping[str, Any] | None


@dataclass(frozen=True)
class Table:
    """A table of texts; a row with one cell is a heading for the rows below it.

    Attributes:
        spare: columns that a narrow terminal may leave out, see ``layout``.
        together: how many neighbouring columns belong together, see ``layout``.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    spare: tuple[int, ...] = ()
    together: int = 1


def title(report: Mapping[str, Any]) -> str:
    """What was compared, and on which rows, in one line."""
    first, others = compared(report)
    against = f" against {', '.join(others)}" if others else ""
    return f"{first}{against}: {sample_in_words(report)}, {report['sample']['module']}"


def compared(report: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The measured group and its baselines."""
    return next(iter(report["groups"])), list(report["mismatches"])


def sample_in_words(report: Mapping[str, Any]) -> str:
    """``2,048 held-out rows of 12 documents``."""
    rows, documents = report["sample"]["rows"], report["sample"]["documents"]
    return f"{rows:,} held-out rows of {documents:,} document{'s' * (documents != 1)}"


def doubts(report: Mapping[str, Any]) -> list[str]:
    """What makes the comparison doubtful, beginning with baselines that do not match the first group."""
    first = next(iter(report["groups"]))
    unmatched = [
        f"{name} is not matched to {first}: {'; '.join(differences)}"
        for name, differences in report["mismatches"].items()
        if differences
    ]
    return [*unmatched, *report["warnings"]]


def tables(report: Mapping[str, Any]) -> list[Table]:
    """All tables: the first group against each baseline, trees against their controls, control dictionaries."""
    names, baselines = list(report["groups"]), list(report["mismatches"])
    controls = [name for name in names[1:] if name not in baselines]
    result = [_compared(report, names[0], name) for name in baselines] or [_single(report, names[0])]
    result += [_trees(report, name) for name in [names[0], *baselines] if report["control_trees"].get(name)]
    result += _stability(report, [names[0], *baselines])
    result += [_controls(report, names[0], controls)] if controls else []
    return [*result, *([_concepts(report, [names[0], *baselines])] if "tasks" in report else [])]


def _compared(report: Mapping[str, Any], first: str, other: str) -> Table:
    first_figures, other_figures = _figures(report, first), _figures(report, other)
    paired = report["paired"][other]
    rows = []
    for metric in _ordered(report, [first, other]):
        difference = paired.get(metric)
        rows.append(
            (
                metric,
                with_interval(first_figures.get(metric)),
                with_interval(other_figures.get(metric)),
                *_tested(difference),
            )
        )
    unmatched = " (not matched)" if report["mismatches"][other] else ""
    columns = ["", _name(report, first), _name(report, other), "difference", "p", f"{first} is"]
    return Table(f"{first} against {other}{unmatched}", columns, _in_sections(rows), spare=(3, 4))


def _single(report: Mapping[str, Any], first: str) -> Table:
    figures = _figures(report, first)
    rows = [(metric, with_interval(figures[metric])) for metric in _ordered(report, [first])]
    return Table(first, ["", _name(report, first)], _in_sections(rows))


def _trees(report: Mapping[str, Any], name: str) -> Table:
    """A group's tree compared with other trees of the same dictionary, with a test against shuffled parents."""
    figures, tests = _figures(report, name), report["control_trees"][name]
    rows = []
    for metric in BY_NAME:
        if f"{metric}{SHUFFLED}" in figures and metric in figures:
            control = [_short(figures.get(f"{metric}{suffix}")) for suffix in (CHOW_LIU, SHUFFLED)]
            tested = tests.get(SHUFFLED.lstrip("_"), {}).get(metric)
            rows.append([labelled(metric), with_interval(figures[metric]), *control, *_tested(tested)])
    kind = _kind(report, name)
    columns = ["", kind, "Chow–Liu", "shuffled", f"{kind} − shuffled", "p", f"{kind} is"]
    return Table(f"The {kind} tree of {name} and other trees over its latents", columns, rows, spare=(4, 5))


def _stability(report: Mapping[str, Any], names: list[str]) -> list[Table]:
    """How alike the seeds of each group are, in all levels and by level; no table if no group has several seeds."""
    groups = [name for name in names if "stability_cosine" in _figures(report, name)]
    metrics = [metric for metric in BY_NAME if metric_of(metric).section == STABILITY]
    columns, cells = [""], []
    for name in groups:
        figures = _figures(report, name)
        levels = [level for level in range(MOST_LEVELS) if f"stability_latents_level_{level}" in figures]
        columns += [name, *(f"{name if len(groups) > 1 else ''} level {level}".strip() for level in levels)]
        for ending in ("", *(f"_level_{level}" for level in levels)):
            live = figures.get(f"stability_live{ending}") or {"n": 0}
            of_part = [figures.get(f"{metric}{ending}") for metric in metrics]
            cells.append([f"{live['n']:,}", *map(with_interval, of_part)])
    rows = zip(["live latents", *map(labelled, metrics)], *cells, strict=True)
    return [Table(STABILITY, columns, [list(row) for row in rows])] if groups else []


def _controls(report: Mapping[str, Any], first: str, controls: list[str]) -> Table:
    names = [first, *controls]
    figures_of_groups = [_figures(report, name) for name in names]
    rows = []
    for metric in _ordered(report, controls):
        cells = [_short(figures_of_groups[0].get(metric))]
        for name, figures in zip(controls, figures_of_groups[1:], strict=True):
            verdict = (report["paired"][name].get(metric) or {}).get("verdict", "")
            cells += [_short(figures.get(metric)), verdict]
        rows.append((metric, *cells))
    columns = ["", _name(report, first)]
    for name in controls:
        columns += [name, f"against {name}"]
    return Table(f"{first} against untrained dictionaries", columns, _in_sections(rows), together=2)


def _concepts(report: Mapping[str, Any], groups: list[str]) -> Table:
    """Which latent detects each concept; the first of several seeds represents them all."""
    tasks = report["tasks"]
    first = {name: report["groups"][name]["subjects"][0] for name in groups}
    detectors = {name: tasks["subjects"][subject] for name, subject in first.items()}
    rows = []
    for number, concept in enumerate(tasks["concepts"]):
        parts = concept["name"].split("/")
        cells = ["· " * concept["level"] + (parts[-1] if concept["parent"] else concept["name"])]
        cells += [f"{concept['share']:.2%}", f"{concept['probe_f1']:.2f}"]
        for name in groups:
            cells += _detector(detectors[name][number])
        rows.append(cells)
    columns = ["", "share of rows", "F1 of dense probe"]
    for name in groups:
        columns += [f"{name}: latent, F1", f"{name}: absorbed"]
    return Table(
        "Concepts and the latent that detects each best (↳: below the latent of the parent concept, =: the same)",
        columns,
        rows,
        together=2,
    )


def _detector(concept: Mapping[str, Any]) -> list[str]:
    """``↳ b204 (0.81)``, and the share of absorbed rows."""
    latent = concept.get("latent")
    sign = "↳ " if concept.get("below", concept.get("edge")) else "= " if concept.get("shared") else ""
    text = f"{sign}{current_id(latent)} ({concept['f1']:.2f})" if latent else "-"
    absorbed = concept.get("absorption")
    return [text, "" if absorbed is None else f"{absorbed:.0%}"]


def _fitted_to_rows(report: Mapping[str, Any]) -> Iterator[str]:
    """By group: how long it was trained, and what PCA leaves unexplained at its L0; of several seeds the first."""
    for name in [next(iter(report["groups"])), *report["mismatches"]]:
        subject = report["subjects"][report["groups"][name]["subjects"][0]]
        trained = ""
        if subject["steps"] is not None:
            trained = f"{subject['steps']:,} steps, {subject['tokens_per_latent']:,.0f} tokens per latent, "
        yield f"{name}: {trained}FVU of PCA at its L0 {subject['pca_fvu']:.3g}."


def _ordered(report: Mapping[str, Any], names: list[str]) -> list[str]:
    """The metrics of some groups without those of control trees and of stability, in the order of the tables."""
    order = list(BY_NAME)
    metrics = dict.fromkeys(metric for name in names for metric in _figures(report, name))
    of_runs = [metric for metric in metrics if metric_of(metric).section != STABILITY]
    own_metrics = [metric for metric in of_runs if not metric.endswith((CHOW_LIU, SHUFFLED)) or metric in BY_NAME]
    return sorted(own_metrics, key=lambda metric: order.index(base_name(metric)))


def _in_sections(rows: list[Any]) -> list[list[str]]:
    """Rows whose first cell is a metric, below the headings of their sections."""
    result: list[list[str]] = []
    for heading in SECTIONS:
        section = [list(row) for row in rows if metric_of(row[0]).section == heading]
        result += [[heading], *([labelled(row[0]), *row[1:]] for row in section)] if section else []
    return result


def labelled(metric: str) -> str:
    """A metric's name with an arrow towards the better values."""
    return f"{metric} {metric_of(metric).arrow}".rstrip()


def _seeds_in_words(group: Mapping[str, Any]) -> str:
    """``the seeds 0, 1 of first weights and data order``."""
    seeds_of = {words: group[f"{name}_seeds"] for name, words in SEED_OF.items()}
    if None in group["seeds"]:
        return f"{len(group['seeds'])} runs of unknown seeds"
    if group["init_seeds"] == group["order_seeds"]:
        return f"the seeds {', '.join(map(str, group['init_seeds']))} of {' and '.join(seeds_of)}"
    return "runs with " + " and ".join(
        f"seed {' or '.join(map(str, dict.fromkeys(seeds)))} of the {words}" for words, seeds in seeds_of.items()
    )


def _figures(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    figures: Mapping[str, Any] = report["groups"][name]["figures"]
    return figures


def _name(report: Mapping[str, Any], name: str) -> str:
    seeds = report["groups"][name]["seeds"]
    text = f"{name} ({len(seeds)} seeds)" if len(seeds) > 1 else name
    return f"{text}, post-hoc tree" if _kind(report, name) == "post-hoc" else text


def _kind(report: Mapping[str, Any], name: str) -> str:
    return str(report["subjects"][report["groups"][name]["subjects"][0]]["tree"])


def _tested(difference: Figure) -> tuple[str, str, str]:
    """A difference, its corrected p-value and the verdict."""
    if difference is None:
        return "", "", ""
    p = difference["p_holm"]
    return with_interval(difference), "" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}", difference["verdict"]


def with_interval(figure: Figure) -> str:
    """``0.0349 [0.0345, 0.0352]``, or for two seeds ``0.0349 (0.0347, 0.0351)`` with the figure of each seed."""
    if figure is None or figure["value"] is None:
        return "-"
    if figure["low"] is None:
        seeds = ["-" if value is None else f"{value:.4g}" for value in figure.get("of_seeds", ())]
        return f"{figure['value']:.4g}" + (f" ({', '.join(seeds)})" if seeds else "")
    return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}]"


def _short(figure: Figure) -> str:
    return "-" if figure is None or figure["value"] is None else f"{figure['value']:.4g}"


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """How to read the report: what is compared, tested and left out."""
    groups = report["groups"]
    for name in [next(iter(groups)), *report["mismatches"]]:
        if len(groups[name]["seeds"]) > 1:
            yield f"{name}: mean over {_seeds_in_words(groups[name])} ({', '.join(groups[name]['subjects'])})."
    if report.get("spectrum"):
        yield f"Training rows: {in_words(report['spectrum'])}. {' '.join(_fitted_to_rows(report))}"
    if "tasks" in report:
        tasks = report["tasks"]
        f1, accuracy = (with_interval(tasks["ceiling"][name]) for name in ("probe_f1", "probe_accuracy"))
        yield (
            f"Concepts: {len(tasks['concepts'])} of the {tasks['concepts_found']:,} found ({tasks['labeller']}), "
            f"probed on {tasks['rows']['fitted']:,} training rows. Dense probes on the activations themselves reach "
            f"F1 {f1} and balanced accuracy {accuracy}."
        )
    if left_alone := report["sample"].get("left_alone"):
        yield (
            f"Loss: {left_alone:,} positions of its windows kept their activations, because dictionaries are not "
            "trained on the rows that a cache leaves out."
        )
    tests = report["tests"]
    yield (
        f"Brackets are {1 - tests['level']:.0%} intervals, parentheses the figures of two seeds. p is corrected for "
        f"the number of tests in its table ({tests['correction']}); better and worse mean p below {tests['level']:.2g}."
    )
