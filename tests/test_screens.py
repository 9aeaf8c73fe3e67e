"""What people read on a terminal: the answer of ``eval``, tables, progress and help, at the widths of terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersae_cli.cli.app import commands
from hiersae_cli.cli.helptext import first_sentence
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.console import Console, Progress
from hiersae_cli.formats.tree import Node, Tree
from hiersae_cli.layout import table_lines
from hiersae_cli.metrics.catalogue import METRICS, explain, metric_of, names_like
from hiersae_cli.render.report_answer import WIDTH, answer
from hiersae_cli.render.report_tables import tables
from hiersae_cli.study import report as study_report
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.tree import run as export_tree
from tests.helpers import PATIENCE, command, environment, hiersae

WIDTHS = (60, 80, 120)
LONG = "smollm2-135m-layer15-hier-24+232-k2,14-seed0"
TOKENS = ("Ġthe", "킬", "ビ", "\n", "asgow", "[[", "�", "'", " –")


@pytest.fixture(scope="module")
def report(tiny_hier: Path, tiny_flat: Path, tiny_deep: Path, tiny_acts: Path) -> dict[str, Any]:
    """A hierarchical run against two baselines, with controls."""
    baselines = [str(tiny_flat), str(tiny_deep)]
    return evaluate.run(EvalConfig(runs=[str(tiny_hier)], baseline=baselines, acts=[str(tiny_acts)], device="cpu"))


def renamed(report: dict[str, Any], *, baselines: int, name: str = "hier", other: str = "flat") -> dict[str, Any]:
    """The report with other names of its groups, and only so many of the baselines."""
    text = json.dumps(report).replace('"hier"', json.dumps(name)).replace('"flat"', json.dumps(other))
    found: dict[str, Any] = json.loads(text)
    for left_out in list(found["mismatches"])[baselines:]:
        for part in ("groups", "mismatches", "paired", "control_trees"):
            del found[part][left_out]
    for compared in found["paired"].values():
        for number, figure in enumerate(compared.values()):
            figure["verdict"] = figure["verdict"] and ("better", "worse", "no evidence")[number % 3]
    return found


def tokens_of_a_tree() -> list[list[str]]:
    """Rows of the table of ``export-tree``, of a tokenizer of bytes and pairs."""
    context = {"token": TOKENS[1], "before": list(TOKENS) * 3, "after": list(TOKENS) * 3}
    evidence = {"promoted": [{"token": token} for token in TOKENS], "contexts": [context]}
    statistics = {"rate": 0.996, "dead": False, "n_active": 900, "mi_over_max": 0.5}
    parents = [Node(f"a{number}", None, 0, number, statistics, evidence) for number in (1, 10)]
    children = [Node(f"b{number}", "a10", 1, number, statistics, evidence) for number in range(3)]
    tree = Tree({}, [*parents, *children])
    return [export_tree._table_row(tree, node) for node in parents]


def analysed() -> dict[str, Any]:
    """What the tables of a study are made of."""
    numbers = {"value": 0.812, "low": 0.71, "high": 0.9, "p": 0.0123, "p_holm": 0.05, "chance": 0.2, "n": 1234}
    numbers |= {"clustered_low": 0.7, "clustered_high": 0.91, "alpha": 0.4, "items": 20, "pairs": 400, "raters": 20}
    numbers |= {"sets": 14, "clusters": "raters", "odds_ratio": 2.5, "median": 8.1}
    texts = {"task": "child", "condition": "hierarchy", "outcome": "correct", "first": "hierarchy", "other": "shuffled"}
    parts = ("shares", "differences", "equations", "agreement", "seconds")
    return {**{part: [numbers | texts] for part in parts}, "models": {}, "simulated": False}


def all_tables(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments of every table that a command prints."""
    renamed_ = renamed(report, baselines=2, name=LONG, other=f"{LONG}-flat")
    found = [vars(table) for table in tables(renamed_)]
    columns = ["parent", "rate", "children", "dead", "I/I_max", "name", "strongest context"]
    found.append({"title": "Parents with the most children", "columns": columns, "rows": tokens_of_a_tree()})
    found += [
        {"title": title, "columns": list(columns), "rows": rows}
        for title, columns, rows in study_report.tables(analysed())
    ]
    labels = [["a10", "Ġthe name of a city, 킬", "somebody@example.org", "2026-01-01T00:00:00+00:00"]]
    found.append({"title": f"Labels of {LONG}", "columns": ["node", "label", "author", "time"], "rows": labels})
    return found


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_table_loses_a_column_or_a_cell(report: dict[str, Any], width: int, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in all_tables(report):
        Console().table(**arguments)
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= width and "…" not in shown.replace(arguments["title"], "")
        spare = {arguments["columns"][number] for number in arguments.get("spare", ())}
        for column in set(arguments["columns"]) - spare:
            # Long names are wrapped within their column, between other columns' lines.
            assert all(word[:8] in shown for word in column.split()), (column, shown)
        for row in arguments["rows"]:
            assert row[0][: width // 4] in shown, row
            assert len(row) == 1 or all(word[:8] in shown for word in row[-1].split()), row
            verdicts = [cell for cell in row if cell in ("better", "worse", "no evidence", "too few documents")]
            assert all(verdict in shown for verdict in verdicts)


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@given(st.integers(2, 6), st.integers(1, 4), st.sampled_from([40, *WIDTHS]), st.data())
def test_every_cell_of_any_table_is_there(columns: int, rows: int, width: int, data: st.DataObject) -> None:
    cells = st.lists(words, min_size=columns, max_size=columns)
    heads, table = data.draw(cells), [data.draw(cells) for _ in range(rows)]
    lines = table_lines("A title", heads, table, width)
    text = "\n".join(lines)
    assert all(cell in text for row in [heads, *table] for cell in row)


def test_intervals_and_spare_columns_go_before_a_table_is_parted() -> None:
    rows = [["metric", "0.1234 [0.1111, 0.2222]", "0.5 (0.4, 0.6)", "context [1, 2]", "better"]]
    columns = ["", "ours", "theirs", "spare", "verdict"]
    wide, narrow, narrower = ("\n".join(table_lines("", columns, rows, width, [3])) for width in (90, 50, 40))
    assert "[0.1111, 0.2222]" in wide and "(0.4, 0.6)" in wide
    assert "[0.1111" not in narrow and "(0.4" not in narrow and "0.1234" in narrow and "context [1, 2]" in narrow
    assert "context" not in narrower and "better" in narrower and narrower.count("metric") == 1


@pytest.mark.parametrize("columns", ["60", "80", ""])
def test_the_tables_of_a_command_in_a_pipe(tiny_hier: Path, tiny_acts: Path, tmp_path: Path, columns: str) -> None:
    out = tmp_path / "tree.json"
    done = hiersae("export-tree", tiny_hier, "--acts", tiny_acts, "-o", out, env={"COLUMNS": columns})
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= int(columns or 120)
    for column in ("parent", "rate", "children", "dead", "I/I_max", "strongest", "context"):
        assert column in done.stdout


@pytest.mark.parametrize("baselines", [0, 1, 2])
@pytest.mark.parametrize("names", [("hier", "flat"), (LONG, f"{LONG}-flat")])
def test_the_answer_is_short_and_in_words(report: dict[str, Any], baselines: int, names: tuple[str, str]) -> None:
    lines = answer(renamed(report, baselines=baselines, name=names[0], other=names[1]))
    text = "\n".join(lines)
    assert len(lines) <= 13, text
    assert max(map(len, lines)) <= WIDTH, text
    assert all(squeezed(name) in squeezed(text) for name in names[: 1 + baselines])
    # Two long names leave no room for it.
    assert "rows: effective rank" in text or (baselines == 2 and names[0] == LONG), text
    for words_ in ("variance not explained", "child inside its parent*", "lift of an edge", "bits per token"):
        assert words_ in text
    for words_ in ("* What the run is trained for", "Not measured: loss (--model)", "more figures"):
        assert words_ in " ".join(text.split())
    assert ("better" in text) == (baselines > 0) and ("--baseline" in text) == (baselines == 0)


def test_the_answer_gives_no_verdict_that_the_report_does_not_give(report: dict[str, Any]) -> None:
    """Of eight held-out documents nothing is better or worse."""
    for baselines in (1, 2):
        short = json.loads(json.dumps(report))
        short["mismatches"] = dict(list(report["mismatches"].items())[:baselines])
        lines = answer(short)
        text = " ".join("\n".join(lines).split())
        assert "No verdicts: too few documents." in text and "better" not in text
        assert text.count("too few") == 1 and max(map(len, lines)) <= WIDTH


@pytest.fixture(scope="module")
def evaluated(tiny_hier: Path, tiny_acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``eval`` wrote and printed into a pipe of ASCII whose reader left after the first line."""
    folder = tmp_path_factory.mktemp("pipe")
    words_ = command("eval", tiny_hier, "--acts", tiny_acts, "-o", folder / "report.json", "--full", "--no-controls")
    env = environment({"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    with subprocess.Popen(words_, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stdout and process.stderr
        (folder / "first").write_bytes(process.stdout.readline())
        process.stdout.close()
        (folder / "errors").write_bytes(process.stderr.read())
    (folder / "code").write_text(str(process.returncode))
    return folder


def test_a_reader_that_leaves_and_an_ascii_terminal_fail_nothing(evaluated: Path) -> None:
    errors = (evaluated / "errors").read_text()
    assert (evaluated / "code").read_text() == "0" and "Traceback" not in errors, errors
    assert json.loads((evaluated / "report.json").read_text())["schema"] == "hiersae.report"
    assert (evaluated / "first").read_text().startswith("hier: ")


def test_what_the_output_cannot_hold_is_replaced() -> None:
    script = (
        "from hiersae_cli.console import Console, steady_streams\n"
        "steady_streams()\n"
        "Console().table('I − 킬', ['metric ↑', '킬'], [['fvu ↓', '1 × 2']])\n"
        "Console().say('→ 킬')\n"
        "Console(json=True).result({'token': '킬'}, '')\n"
    )
    for encoding in ("ascii", "latin-1"):
        env = environment({"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding})
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=env, timeout=PATIENCE)
        out = done.stdout.decode(encoding)
        assert done.returncode == 0 and "metric ^" in out and "fvu v" in out and "I - ?" in out, done.stderr
        assert json.loads(out[out.index("{") :]) == {"token": "킬"}, "data is never replaced"
        assert done.stderr.decode(encoding) == "-> ?\n"


def test_eval_explains_a_figure_and_measures_nothing() -> None:
    done = hiersae("eval", "--explain", "lift")
    assert done.returncode == 0 and "1 is chance" in done.stdout and "more is better" in done.stdout
    everything = hiersae("eval", "--explain", "all").stdout
    assert all(metric.name in everything and metric.label in everything for metric in METRICS)
    wrong = hiersae("eval", "--explain", "p_child_given")
    assert wrong.returncode == 2 and "p_child_given_parent" in wrong.stderr
    assert hiersae("eval", "--explain", "lift of an edge").stdout == done.stdout
    asked = json.loads(hiersae("eval", "--explain", "fvu", "--json").stdout)
    assert asked["fvu"]["range"] == [0, None]
    assert hiersae("eval").returncode == 2


def test_the_catalogue_explains_every_figure_of_a_report(report: dict[str, Any]) -> None:
    found = {metric for group in report["groups"].values() for metric in group["figures"]}
    for name in found:
        figure, metric = report["groups"]["hier"]["figures"].get(name), metric_of(name)
        assert figure is None or figure["unit"] == metric.unit
        assert explain(name).startswith(f"{name}: {metric.label}")
    for metric in METRICS:
        assert 3 <= len(metric.label) <= 24 and metric.definition.endswith(".")
        assert max(map(len, explain(metric.name).splitlines())) <= 120
    assert len({metric.label for metric in METRICS}) == len(METRICS)
    assert "shuffled" in explain("lift_shuffled") and names_like("fvuu") == ["fvu"]


def test_the_catalogue_needs_nothing_heavy() -> None:
    script = "import sys, hiersae_cli.metrics.catalogue; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], env=environment(), timeout=PATIENCE).returncode == 0


def test_the_docs_name_every_figure_with_its_unit() -> None:
    text = (Path(__file__).parent.parent / "docs" / "file-formats.md").read_text(encoding="utf-8")
    for metric in METRICS:
        rows = [line for line in text.splitlines() if f"`{metric.name}`" in line and line.startswith("| `")]
        assert rows and f"| {metric.unit} |" in rows[0], metric.name


_PROGRESS = """
from hiersae_cli.console import Console
with Console().progress("train", 1_000_000, "tokens") as progress:
    progress._started -= 4
    progress.advance(438_272, fvu="0.0306", L0="8.0+8.0", dead="12.1%", phase="gate")
    __import__("time").sleep(0.3)
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_the_progress_line_keeps_its_name_and_its_bar(width: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = environment({"TERM": "xterm", "NO_COLOR": "1"})
    env.pop("COLUMNS", None)
    with subprocess.Popen([sys.executable, "-c", _PROGRESS], stderr=theirs, env=env) as process:
        process.wait(60)
    os.close(theirs)
    shown = ""
    while True:
        try:
            shown += os.read(ours, 1 << 16).decode(errors="replace")
        except OSError:  # the other end is closed and all is read
            break
    os.close(ours)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    line = next(line for line in reversed(re.split(r"[\r\n]+", shown)) if "438k" in line).rstrip()
    assert line.startswith("train ") and "━" * 4 in line and "438k/1M" in line and "/s" in line
    assert len(line) <= width and "…" not in line
    assert ("phase gate" in line) == (width > 100) and ("dead 12.1%" in line) == (width >= 80)


def test_a_slow_rate_is_not_nought() -> None:
    progress = Progress(7)
    progress._started -= 10
    progress.done = 2
    assert "0.2/s" in progress.line("dictionaries", {}) and "0.2/s" in progress.short_line({}, 40)


def test_help_is_whole_sentences_in_groups() -> None:
    shown = hiersae("--help", env={"COLUMNS": "80"}).stdout
    for name, verb in commands().items():
        brief = first_sentence(verb.help)
        assert len(brief) <= 55 and brief.endswith("."), brief
        if " " not in name:
            assert re.search(rf"^  {name} +{re.escape(brief)}$", shown, re.MULTILINE), name
    headings = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options:", "Make:", "Measure:", "Look:", "Share:"]
    assert "..." not in shown.replace("[ARGS]...", "") and max(map(len, shown.splitlines())) <= 80
    assert "hiersae eval runs/hier --baseline runs/flat --acts acts.h5" in shown


def test_what_every_command_has_stands_last_in_its_help() -> None:
    sections = re.findall(r"^(\w+):$", hiersae("eval", "--help").stdout, re.MULTILINE)
    assert sections[0] == "Arguments" and sections[-1] == "Output"
