"""What a reader of a report sees first, whatever it is written as: doubts, then tables of a few kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hiersae_cli.formats.report import CHOW_LIU, MORE_IS_BETTER, SECTIONS, SHUFFLED, of_the_whole
from hiersae_cli.levels import current_id

Figure = Mapping[str, Any] | None


@dataclass(frozen=True)
class Table:
    """A table of texts; a row of one cell is the heading of those below it."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def title(report: Mapping[str, Any]) -> str:
    """What was measured, in one line."""
    sample = report["sample"]
    return f"{sample['rows']:,} held-out rows of {sample['documents']:,} documents, {sample['module']}"


def doubts(report: Mapping[str, Any]) -> list[str]:
    """What makes the comparison doubtful, first of all that a baseline is not the first group's equal."""
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
    found = [_compared(report, names[0], name) for name in baselines] or [_alone(report, names[0])]
    found += [_trees(report, name) for name in [names[0], *baselines] if report["control_trees"].get(name)]
    found += [_controls(report, names[0], controls)] if controls else []
    return [*found, *([_concepts(report, [names[0], *baselines])] if "tasks" in report else [])]


def _compared(report: Mapping[str, Any], first: str, other: str) -> Table:
    one, two = _figures(report, first), _figures(report, other)
    paired = report["paired"][other]
    rows = []
    for metric in _ordered(report, [first, other]):
        difference = paired.get(metric)
        rows.append((metric, shown(one.get(metric)), shown(two.get(metric)), *_tested(difference)))
    unmatched = " (not matched)" if report["mismatches"][other] else ""
    columns = ["", _name(report, first), _name(report, other), "difference", "p", ""]
    return Table(f"{first} against {other}{unmatched}", columns, _in_sections(rows))


def _alone(report: Mapping[str, Any], first: str) -> Table:
    figures = _figures(report, first)
    rows = [(metric, shown(figures[metric])) for metric in _ordered(report, [first])]
    return Table(first, ["", _name(report, first)], _in_sections(rows))


def _trees(report: Mapping[str, Any], name: str) -> Table:
    """A group's own tree beside what else its dictionary can be given, with a test against shuffled parents."""
    figures, tests = _figures(report, name), report["control_trees"][name]
    rows = []
    for metric in MORE_IS_BETTER:
        if f"{metric}{SHUFFLED}" in figures and metric in figures:
            control = [_short(figures.get(f"{metric}{suffix}")) for suffix in (CHOW_LIU, SHUFFLED)]
            tested = tests.get(SHUFFLED.lstrip("_"), {}).get(metric)
            rows.append([_label(metric), shown(figures[metric]), *control, *_tested(tested)])
    columns = ["", _kind(report, name), "Chow–Liu", "shuffled", f"{_kind(report, name)} − shuffled", "p", ""]
    return Table(f"The {_kind(report, name)} tree of {name} beside other trees over its latents", columns, rows)


def _controls(report: Mapping[str, Any], first: str, controls: list[str]) -> Table:
    names = [first, *controls]
    of_each = [_figures(report, name) for name in names]
    rows = []
    for metric in _ordered(report, controls):
        cells = [_short(of_each[0].get(metric))]
        for name, figures in zip(controls, of_each[1:], strict=True):
            verdict = (report["paired"][name].get(metric) or {}).get("verdict", "")
            cells += [_short(figures.get(metric)), verdict]
        rows.append((metric, *cells))
    columns = ["", _name(report, first)]
    for name in controls:
        columns += [name, f"{first} is"]
    return Table(f"{first} against dictionaries that nobody trained", columns, _in_sections(rows))


def _concepts(report: Mapping[str, Any], groups: list[str]) -> Table:
    """Which latent stands for each concept; of several seeds the first stands for all."""
    tasks = report["tasks"]
    first = {name: report["groups"][name]["subjects"][0] for name in groups}
    known = {name: tasks["subjects"][subject] for name, subject in first.items()}
    rows = []
    for number, concept in enumerate(tasks["concepts"]):
        parts = concept["name"].split("/")
        cells = ["· " * concept["level"] + (parts[-1] if concept["parent"] else concept["name"])]
        cells += [f"{concept['share']:.2%}", f"{concept['probe_f1']:.2f}"]
        for name in groups:
            cells += _detector(known[name][number])
        rows.append(cells)
    columns = ["", "share of rows", "F1 of dense probe"]
    for name in groups:
        columns += [f"{name}: latent, F1", "absorbed"]
    return Table(
        "Concepts, and the latent whose firing tells most of each (↳: below the latent of its parent)", columns, rows
    )


def _detector(told: Mapping[str, Any]) -> list[str]:
    """``↳ b204 (.81)``, and the share of absorbed rows."""
    latent = told.get("latent")
    text = f"{'↳ ' if told['edge'] else ''}{current_id(latent)} ({told['f1']:.2f})" if latent else "-"
    absorbed = told.get("absorption")
    return [text, "" if absorbed is None else f"{absorbed:.0%}"]


def _ordered(report: Mapping[str, Any], names: list[str]) -> list[str]:
    """The metrics of some groups in the order of the tables, without those of control trees."""
    order = list(MORE_IS_BETTER)
    metrics = dict.fromkeys(metric for name in names for metric in _figures(report, name))
    kept = [metric for metric in metrics if metric in MORE_IS_BETTER or not metric.endswith((CHOW_LIU, SHUFFLED))]
    return sorted(kept, key=lambda metric: order.index(of_the_whole(metric)))


def _in_sections(rows: list[Any]) -> list[list[str]]:
    """Rows, whose first cell is a metric, below the headings of their sections."""
    found: list[list[str]] = []
    for heading, metrics in SECTIONS.items():
        inside = [list(row) for row in rows if of_the_whole(row[0]) in metrics]
        found += [[heading], *([_label(row[0]), *row[1:]] for row in inside)] if inside else []
    return found


def _label(metric: str) -> str:
    """A metric's name with an arrow where the better values are."""
    return metric + {True: " ↑", False: " ↓", None: ""}[MORE_IS_BETTER[of_the_whole(metric)]]


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
    return shown(difference), "" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}", difference["verdict"]


def shown(figure: Figure) -> str:
    """``0.0349 [0.0345, 0.0352]``."""
    if figure is None or figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.4g}"
    return f"{figure['value']:.4g} [{figure['low']:.4g}, {figure['high']:.4g}]"


def _short(figure: Figure) -> str:
    return "-" if figure is None or figure["value"] is None else f"{figure['value']:.4g}"


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """How the report is to be read: what is compared, tested and left out."""
    groups = report["groups"]
    for name in [next(iter(groups)), *report["mismatches"]]:
        if len(groups[name]["seeds"]) > 1:
            seeds = ", ".join(map(str, groups[name]["seeds"]))
            yield f"{name}: mean over the seeds {seeds} ({', '.join(groups[name]['subjects'])})."
    if "tasks" in report:
        tasks = report["tasks"]
        f1, accuracy = (shown(tasks["ceiling"][name]) for name in ("probe_f1", "probe_accuracy"))
        yield (
            f"Concepts: {len(tasks['concepts'])} of the {tasks['concepts_found']:,} found ({tasks['labeller']}), "
            f"probed on {tasks['rows']['fitted']:,} training rows. Dense probes on the activations themselves reach "
            f"F1 {f1} and balanced accuracy {accuracy}."
        )
    tests = report["tests"]
    yield (
        f"Brackets are {1 - tests['level']:.0%} intervals. p is corrected for the number of tests of its table "
        f"({tests['correction']}); better and worse are said of p below {tests['level']:.2g}."
    )
