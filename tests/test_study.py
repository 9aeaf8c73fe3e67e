"""A study behind the pages: sessions, the store, the analysis, and the whole through the command line."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.study import StudyNewConfig, StudyRateConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.study import Item, Links, fingerprint, load_study
from hiersae_cli.metrics.agreement import crossed_mean, krippendorff_alpha
from hiersae_cli.study.analysis import Settings, analyse, included
from hiersae_cli.study.answers import to_publish
from hiersae_cli.study.conditions import share_marked as marked_by_latent
from hiersae_cli.study.consent import as_html, unmentioned
from hiersae_cli.study.draw import share_marked
from hiersae_cli.study.duration import minutes
from hiersae_cli.study.preregistration import power_text
from hiersae_cli.study.protocol import (
    CHECK,
    CHILD,
    CONDITIONS,
    EDGE,
    EXAMPLE,
    FLAT,
    HIERARCHY,
    LABEL,
    MATCH,
    SHUFFLED,
    allowed,
    session,
)
from hiersae_cli.study.rehearsal import rehearse
from hiersae_cli.study.sentences import of_figures, sentences
from hiersae_cli.study.simulation import Raters, difference_error, effect_of, power, probabilities, truth
from hiersae_cli.study.store import HUMAN, MODEL, Answer, Store
from hiersae_cli.workflows.study import run as workflow
from hiersae_cli.workflows.study.rate import rate
from tests.fake_study import make_study, opened
from tests.helpers import PATIENCE, command, environment, hiersae
from tests.test_labels import Service, says


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", sets=6, raters=8, checks=4)


# --- agreement and differences


def alpha_by_pairs(value_RU: np.ndarray) -> float:
    """Krippendorff's alpha by its definition: every pair of values of a unit, every pair of all values."""
    units = [column[column >= 0].tolist() for column in value_RU.T]
    units = [unit for unit in units if len(unit) >= 2]
    pooled = [value for unit in units for value in unit]
    observed = sum(
        sum(a != b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / (len(unit) - 1)
        for unit in units
    ) / len(pooled)
    expected = sum(a != b for i, a in enumerate(pooled) for j, b in enumerate(pooled) if i != j)
    return 1 - observed / (expected / (len(pooled) * (len(pooled) - 1)))


@pytest.mark.parametrize("seed", range(6))
def test_alpha_is_that_of_others(seed: int):
    draw = np.random.default_rng(seed)
    truth_U = draw.integers(0, 4, 25)
    value_RU = np.where(draw.random((7, 25)) < 0.6, truth_U, draw.integers(0, 4, (7, 25)))
    value_RU = np.where(draw.random((7, 25)) < 0.3, -1, value_RU)
    found = krippendorff_alpha(value_RU)
    assert found == pytest.approx(alpha_by_pairs(value_RU), abs=1e-12)
    other = pytest.importorskip("krippendorff", reason="the package krippendorff is not installed")
    data = np.where(value_RU < 0, np.nan, value_RU.astype(float))
    assert found == pytest.approx(other.alpha(reliability_data=data, level_of_measurement="nominal"), abs=1e-6)


def test_alpha_where_there_is_little():
    assert np.isnan(krippendorff_alpha(np.full((3, 4), -1)))
    assert np.isnan(krippendorff_alpha(np.array([[1, 1], [1, 1]])))  # nothing but one value
    assert np.isnan(krippendorff_alpha(np.array([[1, -1], [-1, 2]])))  # nothing rated twice
    assert krippendorff_alpha(np.array([[0, 1, 2], [0, 1, 2]])) == 1
    assert krippendorff_alpha(np.array([[0, 1], [1, 0]])) < 0


def test_a_crossed_mean_has_the_variance_of_its_components():
    """Against the closed form of a balanced two-way layout, over many draws."""
    raters, sets, errors, found = 12, 30, [], []
    for seed in range(150):
        draw = np.random.default_rng(seed)
        cells = draw.normal(0, 0.4, (raters, 1)) + draw.normal(0, 0.5, (1, sets)) + draw.normal(0, 1, (raters, sets))
        got = crossed_mean(cells, 0.95, 400, seed)
        errors.append(got.error**2)
        found.append(got.low <= 0 <= got.high)
    wanted = 0.4**2 / raters + 0.5**2 / sets + 1 / (raters * sets)
    assert np.mean(errors) == pytest.approx(wanted, rel=0.12)
    assert 0.90 <= np.mean(found) <= 0.995


def test_a_crossed_mean_of_nothing_or_little():
    assert crossed_mean(np.full((3, 4), np.nan), 0.95, 100, 0).n == 0
    single = crossed_mean(np.array([[0.0, 1.0]]), 0.95, 100, 0)
    assert single.value == 0.5 and np.isnan(single.low)
    same = crossed_mean(np.zeros((4, 5)), 0.95, 100, 0)
    assert same.value == 0 and same.p == 1
    holes = np.array([[1.0, np.nan, 0.0], [np.nan, 1.0, 1.0], [np.nan, np.nan, np.nan]])
    assert crossed_mean(holes, 0.95, 100, 0).value == 0.75 and crossed_mean(holes, 0.95, 100, 0).n == 4


def test_the_analysis_recovers_what_is_planted():
    """Few studies here; benchmarks/study/calibration.py has many."""
    raters = Raters(effect={HIERARCHY: 0.8})
    true = truth(raters, HIERARCHY, 0.25) - truth(raters, FLAT, 0.25)
    covered = []
    for seed in range(60):
        p = probabilities(raters, (HIERARCHY, FLAT), 0.25, (15, 25), seed)
        y = (np.random.default_rng((seed, 1)).random(p.shape) < p).astype(float)
        got = crossed_mean(y[..., 0] - y[..., 1], 0.95, 300, seed)
        covered.append(got.low <= true <= got.high)
    assert np.mean(covered) >= 0.88


def test_planned_power_is_what_simulation_finds():
    raters = effect_of(Raters(), FLAT, HIERARCHY, 0.25, 0.15)
    assert truth(raters, HIERARCHY, 0.25) - truth(raters, FLAT, 0.25) == pytest.approx(0.15, abs=1e-4)
    errors = []
    for seed in range(300):
        p = probabilities(raters, (HIERARCHY, FLAT), 0.25, (10, 20), seed)
        y = np.random.default_rng((seed, 2)).random(p.shape) < p
        errors.append((y[..., 0].mean() - y[..., 1].mean()) - 0.15)
    assert difference_error(raters, (HIERARCHY, FLAT), 0.25, 10, 20) == pytest.approx(np.std(errors), rel=0.12)
    assert power(0.05, 0.0, 0.95, 19) == pytest.approx(0.05, abs=0.02)
    with pytest.raises(ValueError, match="beyond"):
        effect_of(Raters(), FLAT, HIERARCHY, 0.25, 0.9)


def test_the_truth_is_that_of_a_large_population():
    raters = Raters(effect={HIERARCHY: 1.0}, lapse=0.1)
    p = probabilities(raters, (HIERARCHY, FLAT), 0.2, (1500, 1500), 0)
    assert p[..., 0].mean() == pytest.approx(truth(raters, HIERARCHY, 0.2), abs=0.015)


# --- sessions


def test_a_session_is_the_same_again_and_has_no_order_of_conditions(folder: Path):
    study = load_study(folder)
    first = session(study, 0)
    assert [item.id for item in first] == [item.id for item in session(study, 0)]
    assert [item.id for item in first] != [item.id for item in session(study, 2)]
    assert len({item.id for item in first}) == len(first)
    counts = Counter((item.task, item.condition) for item in first)
    for task in (EXAMPLE, CHILD, EDGE):
        assert {counts[task, condition] for condition in CONDITIONS[task]} == {6}
    assert counts[CHECK, ""] == 4
    tasks = [item.task for item in first if item.task != CHECK]
    blocks = [task for place, task in enumerate(tasks) if place == 0 or tasks[place - 1] != task]
    assert len(blocks) == 4 and blocks[0] == LABEL and MATCH not in blocks
    assert [item.task for item in session(study, 7) if item.task in (LABEL, MATCH)] == [MATCH] * 12
    mixed = [item.condition for item in first if item.task == EDGE]
    assert mixed != sorted(mixed)


def test_the_first_half_labels_and_the_second_half_matches(folder: Path):
    study = load_study(folder)
    for rater in range(8):
        sets = {task: {item.set for item in session(study, rater) if item.task == task} for task in (LABEL, MATCH)}
        assert sets == ({LABEL: set(range(6)), MATCH: set()} if rater < 4 else {LABEL: set(), MATCH: set(range(6))})
    study.design["sets_per_rater"] = 2
    labelled, matched = (
        {item.set for rater in raters for item in session(study, rater) if item.task == task}
        for task, raters in ((LABEL, range(4)), (MATCH, range(4, 8)))
    )
    assert matched <= labelled


def test_fewer_sets_a_rater_are_spread_evenly(folder: Path):
    study = load_study(folder)
    study.design["sets_per_rater"] = 3
    counts = Counter(item.set for rater in range(8) for item in session(study, rater) if item.task == EDGE)
    assert set(counts.values()) == {8 * 3 * 3 // 6}
    for rater in range(8):
        per_set = Counter(item.set for item in session(study, rater) if item.task == EDGE)
        assert set(per_set.values()) == {3}  # sets are whole, so differences are paired


def test_what_is_an_answer(folder: Path):
    study = load_study(folder)
    by_task = {item.task: item for item in study.items.values()}
    assert allowed(by_task[EXAMPLE], "4") and not allowed(by_task[EXAMPLE], "5")
    assert not allowed(by_task[CHILD], "-1") and not allowed(by_task[CHILD], "yes")
    assert allowed(by_task[EDGE], "unsure") and not allowed(by_task[EDGE], "0")
    assert allowed(by_task[LABEL], "rivers") and not allowed(by_task[LABEL], "") and not allowed(by_task[LABEL], "a\nb")
    assert not allowed(by_task[LABEL], "x" * 201)


def test_items_that_were_changed_are_refused(folder: Path):
    path = folder / "items.json"
    path.write_text(path.read_text().replace('"key": 1', '"key": 2', 1))
    with pytest.raises(FileError, match="not the items"):
        load_study(folder)


def test_info_describes_a_study(folder: Path):
    found = json.loads(hiersae("info", folder, "--json").stdout)
    assert (found["kind"], found["raters"], found["items"]["check"], found["complete"]) == ("study", 8, 4, True)


def test_links_are_long_private_and_stay(folder: Path):
    links = Links(folder)
    assert len(set(links.raters)) == 8 and all(len(token) >= 32 for token in [*links.raters, links.administrator])
    assert stat.S_IMODE(links.path.stat().st_mode) == 0o600
    before = links.raters
    links.ensure(10)
    again = Links(folder)
    assert again.raters[:8] == before and len(again.raters) == 10
    assert make_study(folder.parent / "other") and not set(Links(folder.parent / "other").raters) & set(before)


# --- the store


def databases() -> list[Any]:
    url = os.environ.get("HIERSAE_TEST_POSTGRESQL", "")
    reason = "no PostgreSQL: set HIERSAE_TEST_POSTGRESQL to the URL of an empty database"
    return ["sqlite", pytest.param(url, marks=pytest.mark.skipif(not url, reason=reason), id="postgresql")]


@pytest.fixture(params=databases())
def store(request, tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}" if request.param == "sqlite" else request.param
    found = Store(url, "of a study")
    yield found
    if request.param != "sqlite":
        from hiersae_cli.study.store import _tables

        _tables.drop_all(found._engine)
    found.close()


def test_the_first_answer_of_a_rater_to_an_item_counts(store: Store):
    assert store.add(Answer(HUMAN, 0, "", "a", "1", 900))
    assert not store.add(Answer(HUMAN, 0, "", "a", "2", 900))
    assert store.add(Answer(HUMAN, 1, "", "a", "2", 900), Answer(HUMAN, 1, "", "b", "<b>é\u202e", 1, label_of=0))
    assert store.add(Answer(MODEL, 0, "m", "a", "3", 900))
    assert not store.add(Answer(HUMAN, 2, "", "c", "0", 1), Answer(HUMAN, 1, "", "b", "x", 1))  # all or none
    assert [(one.rater, one.item, one.value) for one in store.answers(kind=HUMAN)] == [
        (0, "a", "1"),
        (1, "a", "2"),
        (1, "b", "<b>é\u202e"),
    ]
    assert store.answers(item="b")[0].label_of == 0


def test_answers_at_once_are_kept_once(store: Store):
    kept: list[bool] = []

    def answer(rater: int) -> None:
        for item in range(10):
            kept.append(store.add(Answer(HUMAN, rater % 8, "", str(item), str(rater), 5)))

    threads = [threading.Thread(target=answer, args=(rater,)) for rater in range(16)]  # two of each rater
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sum(kept) == 80 == len({(one.rater, one.item) for one in store.answers()}) == len(store.answers())


def test_steps_stopping_and_whose_answers_they_are(store: Store):
    store.take_step(3, "consent")
    store.take_step(3, "consent")
    assert store.steps(3) == {"consent"} and store.steps(4) == set()
    assert not store.stopped()
    store.stop(True)
    store.stop(True)
    assert store.stopped().startswith("20")
    store.stop(False)
    assert store.stopped() == ""
    with pytest.raises(FileError, match="another study"):
        Store(str(store._engine.url.render_as_string(hide_password=False)), "another")


def test_sqlite_is_set_to_keep_what_it_acknowledges(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path / 'a.sqlite'}", "x")
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


@pytest.mark.parametrize("url", ["nonsense", "nosuch://x/y"])
def test_a_database_that_is_none_is_a_usage_error(url: str):
    with pytest.raises(UsageError, match="--database"):
        Store(url, "x")


# --- the analysis


def test_careless_raters_are_left_out_by_the_rules(folder: Path):
    study = load_study(folder)
    answers, _ = rehearse(study, Raters(lapse=0.0), 8, 2, seed=1)
    answers = [one for one in answers if one.rater != 5 or one.item in {item.id for item in session(study, 5)[:9]}]
    found = analyse(study, answers, Settings(0.95, 200, 0))
    why = {one["rater"]: one["why"] for one in found["excluded"]}
    assert set(why) == {5, 6, 7} and "answered" in why[5]
    kept = analyse(study, answers, Settings(0.95, 200, 0, keep_all=True))
    assert kept["answers_analysed"] > found["answers_analysed"]


def test_shares_and_differences_are_those_by_hand(folder: Path):
    study = load_study(folder)
    answers, _ = rehearse(study, Raters(effect={HIERARCHY: 1.0, SHUFFLED: -3.0}), 8, 0, seed=2)
    found = analyse(study, answers, Settings(0.95, 200, 0, keep_all=True))
    right: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for one in answers:
        item = study.items[one.item]
        if item.task in (EXAMPLE, CHILD, EDGE, MATCH):
            good = one.value == "yes" if item.task == EDGE else one.value == str(item.key)
            right[item.task, item.condition] += good
            total[item.task, item.condition] += 1
    for share in found["shares"]:
        key = share["task"], share["condition"]
        assert share["value"] == pytest.approx(right[key] / total[key]) and share["n"] == total[key]
        assert share["low"] <= share["value"] <= share["high"]
    for one in found["differences"]:
        first, other = ((one["task"], one[name]) for name in ("first", "other"))
        assert one["value"] == pytest.approx(right[first] / total[first] - right[other] / total[other])
        assert one["p_holm"] >= one["p"]
    assert {one["condition"] for one in found["seconds"] if one["task"] == LABEL} == {HIERARCHY, FLAT}
    assert found["models"] == {}


def test_results_begin_with_sentences():
    shares = [
        {"task": CHILD, "condition": name, "value": value}
        for name, value in ((HIERARCHY, 0.81), (FLAT, 0.64), (SHUFFLED, 0.3))
    ]
    shares += [{"task": EDGE, "condition": name, "value": value} for name, value in ((HIERARCHY, 0.5), (FLAT, None))]
    numbers = {"value": 0.17, "low": 0.07, "high": 0.27, "p": 0.011, "p_holm": 0.011}
    differences = [
        {"task": CHILD, "first": HIERARCHY, "other": FLAT, **numbers},
        {"task": CHILD, "first": HIERARCHY, "other": SHUFFLED, **numbers, "low": -0.07, "p": 0.0001, "p_holm": 0.01},
        {"task": EDGE, "first": HIERARCHY, "other": FLAT, **dict.fromkeys(numbers)},
    ]
    figures = {"shares": shares, "differences": differences}
    assert of_figures(figures) == [
        "Child intruder: hierarchy 81 %, flat 64 %, +17 points [7, 27], p = .011.",
        "Child intruder: hierarchy 81 %, shuffled 30 %, +17 points [−7, 27], p < .001 (Holm .010).",
        "Edge rating, “yes”: hierarchy 50 %, flat no answers, nobody answered both conditions of a set.",
    ]
    everything = {**figures, "simulated": True, "models": {"small": figures}}
    assert [text.split(".")[0] for text in sentences(everything)] == ["SIMULATED"] * 3 + ["small"] * 3


def test_answers_are_published_with_what_they_answer_and_without_times_of_day(folder: Path):
    study = load_study(folder)
    answers, _ = rehearse(study, Raters(lapse=0.0), 8, 1, seed=1)
    settings = Settings(0.95, 100, 0)
    text = to_publish(study, answers, included(study, answers, settings))
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(answers) and "time" not in rows[0]
    assert {row["included"] for row in rows if row["rater"] == "7"} == {"0"}
    counted = [row for row in rows if row["included"] == "1" and row["task"] == "child"]
    found = analyse(study, answers, settings)
    for share in found["shares"]:
        if share["task"] == CHILD:
            right = [int(row["correct"]) for row in counted if row["condition"] == share["condition"]]
            assert np.mean(right) == pytest.approx(share["value"])


def test_if_nobody_is_left_the_terminal_says_why(folder: Path):
    study, store, _ = opened(folder)
    answers, _ = rehearse(study, Raters(), 2, 2, seed=1)
    store.add(*(Answer(HUMAN, one.rater, "", one.item, one.value, one.ms) for one in answers))
    store.close()
    done = hiersae("study", "analyze", folder)
    assert done.returncode == 0
    assert "excluded: rater 0, " in done.stderr and "no answers are left to analyse: 2 raters gave" in done.stderr
    report = (folder / "analysis" / "report.md").read_text()
    assert report.startswith("# Human study") and "No answers are left" in report and "SIMULATED" not in report


def test_no_power_is_below_the_level():
    assert power_text(0.0, 0.95) == "below 5%" and power_text(0.049, 0.999) == "5%" and power_text(0.8, 0.95) == "80%"


def test_power_counts_the_sets_of_a_rater():
    raters = effect_of(Raters(), FLAT, HIERARCHY, 0.25, 0.15)
    every, some = (difference_error(raters, (HIERARCHY, FLAT), 0.25, 20, 40, count) for count in (40, 8))
    assert difference_error(raters, (HIERARCHY, FLAT), 0.25, 20, 40) == every < some


def test_a_long_study_is_longer():
    study = {number: session_of(number) for number in (1, 4)}
    assert minutes(study[4]) > minutes(study[1]) > 3


def session_of(sets: int) -> list[Item]:
    excerpt = {"tokens": [" word"] * 30, "steps": [0] * 29 + [9]}
    return [Item("", CHILD, HIERARCHY, number, [], 0.0, 0, [], [[excerpt] * 3] * 4, 0) for number in range(sets)]


def test_odds_ratios_are_those_of_the_shares(folder: Path):
    study = load_study(folder)
    answers, _ = rehearse(study, Raters(), 8, 0, seed=4)
    found = analyse(study, answers, Settings(0.95, 200, 0, keep_all=True))
    shares = {(one["task"], one["condition"]): one["value"] for one in found["shares"]}
    for one in found["equations"]:
        if one["task"] in (EXAMPLE, EDGE):  # balanced, so the estimate is that of the margins
            a, b = shares[one["task"], one["first"]], shares[one["task"], one["other"]]
            assert one["odds_ratio"] == pytest.approx(a / (1 - a) / (b / (1 - b)), rel=1e-3)
            assert one["low"] <= one["odds_ratio"] <= one["high"]


def test_a_study_is_rehearsed_and_analysed_through_the_command(folder: Path):
    assert hiersae("study", "analyze", folder, "--simulated").returncode == 1
    done = hiersae("study", "simulate", folder, "--raters", 8, "--hierarchy", 1, "--json", fresh=True)
    assert done.returncode == 0 and json.loads(done.stdout)["planted"]["child"], done.stderr
    assert hiersae("study", "simulate", folder).returncode == 1  # there is one
    done = hiersae("study", "analyze", folder, "--simulated", "--json", fresh=True)
    assert done.returncode == 0, done.stderr
    out = folder / "analysis-simulated"
    written = {path.name for path in out.iterdir()}
    for name in ("analysis.json", "report.md", "shares.csv", "differences.svg", "answers.csv"):
        assert f"SIMULATED-{name}" in written
    assert all(name.startswith("SIMULATED-") for name in written)
    data = json.loads((out / "SIMULATED-analysis.json").read_text())
    assert data["departures"] == [] and data["raters"] == 8 and data["simulated"]
    text = (out / "SIMULATED-report.md").read_text()
    assert "As pre-registered." in text
    headings = [line for line in text.splitlines() if line.startswith("#") and line != "## Method"]
    assert all("SIMULATED" in line for line in headings) and "SIMULATED-shares.svg" in text
    assert all("SIMULATED" in (out / f"SIMULATED-{name}.csv").read_text() for name in ("shares", "seconds"))
    assert not any(word in text for word in ("1 raters", "1 sessions", "1 answers"))
    rows = list(csv.DictReader((out / "SIMULATED-answers.csv").open()))
    assert len(rows) == data["answers"]
    of_a_child = next(row for row in rows if row["task"] == "child")
    assert of_a_child["condition"] in CONDITIONS[CHILD] and of_a_child["kind"] == "simulated"
    assert of_a_child["correct"] == str(int(of_a_child["value"] == of_a_child["key"])) and "time" not in of_a_child
    assert "SIMULATED. Child intruder: hierarchy " in done.stderr + json.dumps(data["sentences"])
    refused = hiersae("study", "analyze", folder, "--simulated")
    assert refused.returncode == 1 and "--overwrite" in refused.stderr
    (folder / "preregistration.md").write_text("something else")
    again = hiersae(
        "study", "analyze", folder, "--simulated", "--overwrite", "--keep-all", "--confidence", 0.9, "--resamples", 300
    )
    assert again.returncode == 0
    for said in ("another design", "0.9", "300 resamples", "nobody is left out"):
        assert said in again.stderr
    assert not list(folder.glob("answers.sqlite*"))  # a rehearsal never enters the answers


# --- items from an index


def test_a_study_is_drawn_from_an_index(tiny_dashboard: DashboardConfig, tmp_path: Path):
    out = tmp_path / "study"
    shared: dict[str, Any] = {
        "run": tiny_dashboard.run,
        "acts": tiny_dashboard.acts,
        "baseline": tiny_dashboard.baseline,
        "model": tiny_dashboard.model,
        "device": "cpu",
        "sets": 4,
        "raters": 4,
        "checks": 3,
    }
    made = workflow.new(StudyNewConfig(**shared, out=str(out)))
    study = load_study(out)
    counts = Counter((item.task, item.condition) for item in study.items.values())
    for task in (EXAMPLE, CHILD, EDGE, LABEL, MATCH):
        assert {counts[task, condition] for condition in CONDITIONS[task]} == {4}
    assert counts[CHECK, ""] == 3 and made["items"] == len(study.items)
    assert 3 < made["minutes"] == study.design["minutes"]
    assert study.design["conditions"][CHILD] == list(CONDITIONS[CHILD])
    index = json.dumps([list(vars(item).values()) for item in study.items.values()])
    assert "⟪" not in index
    for item in study.items.values():
        for group in [*item.shown, *item.options]:
            for excerpt in group:
                assert len(excerpt["tokens"]) == len(excerpt["steps"]) and max(excerpt["steps"]) > 0
        if item.task == EXAMPLE:
            assert len(item.options) == 5 and item.decile
            # The marks of the intruder are those of one of the others, so they do not give it away.
            assert all(any(one["steps"]) for (one,) in item.options)
        if item.task == CHILD:
            assert len(item.latents) == 5 and len(set(item.latents)) == 5 and len(item.options) == 4
    assert all(share_marked(item) < 0.6 for item in study.items.values())
    # Conditions of a set are matched.
    rates: dict[tuple[str, int], list[float]] = {}
    for item in study.items.values():
        if item.task in (EXAMPLE, EDGE, LABEL):
            rates.setdefault((item.task, item.set), []).append(item.rate)
    assert all(max(of_set) <= 4 * min(of_set) for of_set in rates.values())
    deciles = {}
    for item in study.items.values():
        if item.task == EXAMPLE:
            deciles.setdefault(item.set, set()).add(item.decile)
    assert all(len(one) == 1 for one in deciles.values()) and len(deciles) == 4
    again = tmp_path / "again"
    workflow.new(StudyNewConfig(**shared, out=str(again)))
    assert load_study(again).sha256 == study.sha256
    assert Links(again).raters != Links(out).raters
    with pytest.raises(UsageError, match="--sets 500"):
        workflow.new(StudyNewConfig(**{**shared, "sets": 500}, out=str(tmp_path / "many")))
    with pytest.raises(UsageError, match="--sets-per-rater 20"):
        workflow.new(StudyNewConfig(**{**shared, "sets": None}, sets_per_rater=20, out=str(tmp_path / "many")))
    assert not (tmp_path / "many").exists()
    with pytest.raises(FileError, match="already exists"):
        workflow.new(StudyNewConfig(**shared, out=str(out)))
    (out / "answers.sqlite").touch()
    with pytest.raises(FileError, match="answers of raters"):
        workflow.new(StudyNewConfig(**shared, out=str(out), overwrite=True))
    # The checks of a study of edges only are made from its edges, never from another check.
    workflow.new(StudyNewConfig(**{**shared, "checks": 40, "tasks": (EDGE,)}, out=str(tmp_path / "edges")))
    checks = [item for item in load_study(tmp_path / "edges").items.values() if item.task == CHECK]
    assert len(checks) == 40 and all(len(item.options) == 8 and item.key in range(8) for item in checks)


def test_dense_latents_are_left_out_and_said(tiny_dashboard: DashboardConfig, tmp_path: Path, capsys):
    shared: dict[str, Any] = {
        "run": tiny_dashboard.run,
        "acts": tiny_dashboard.acts,
        "baseline": tiny_dashboard.baseline,
        "model": tiny_dashboard.model,
        "device": "cpu",
        "raters": 2,
        "tasks": (EXAMPLE,),
        "sets": 1,
    }
    workflow.new(StudyNewConfig(**shared, most_marks=0.12, out=str(tmp_path / "sparse")), Console())
    assert "left out, whose marks are on more than 12% of the tokens" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no candidates") as refused:
        workflow.new(StudyNewConfig(**shared, most_marks=1e-6, out=str(tmp_path / "none")))
    assert "--most-marks" in refused.value.hint


def test_the_marks_of_a_latent_are_counted_in_its_texts():
    rows, ones = np.arange(0, 400, 4), np.ones(100)
    assert marked_by_latent(rows, ones, np.full(400, True), 20) == pytest.approx(0.25, abs=0.02)
    assert marked_by_latent(rows, ones, np.full(400, False), 20) == 0.0
    together = np.arange(100, 130)  # a burst is dense, however rare the latent
    assert marked_by_latent(together, np.ones(30), np.full(100_000, True), 5) > 0.8


CONSENT = """# About the researchers

A. Person, *University* of **X**, a.person@example.org.

## Payment

- {minutes} minutes for {questions} questions: 5 €
- [Terms](https://example.org/a?b=1&c=2)

## Contact for complaints
## How long it takes
## Withdrawal
"""


def test_a_consent_file_is_shown_as_written_and_nothing_in_it_is_code():
    shown = as_html(CONSENT, 12, 40)
    assert "<h2>About the researchers</h2>" in shown and "<em>University</em> of <strong>X</strong>" in shown
    assert '<a href="mailto:a.person@example.org">' in shown and "<li>12 minutes for 40 questions: 5 €</li>" in shown
    assert '<a href="https://example.org/a?b=1&amp;c=2">Terms</a>' in shown
    hostile = as_html("<script>x</script> [a](javascript:alert(1)) **<b>**\n# <i>", 1, 1)
    assert "<script" not in hostile and "<b>" not in hostile and "<i>" not in hostile and "href" not in hostile
    assert unmentioned(CONSENT) == [] and len(unmentioned("words")) == 5
    assert unmentioned(CONSENT.replace("## Payment", "## More")) == ["the payment"]


def test_the_consent_file_is_part_of_the_study(tmp_path: Path):
    folder = make_study(tmp_path / "study", consent=CONSENT)
    assert load_study(folder).consent == CONSENT
    assert fingerprint(CONSENT) in (folder / "preregistration.md").read_text()
    (folder / "consent.md").write_text("something else")
    with pytest.raises(FileError, match="not the text that was registered"):
        load_study(folder)
    (folder / "consent.md").unlink()
    with pytest.raises(FileError, match="no such file"):
        load_study(folder)


def test_an_older_study_is_refused_clearly(folder: Path):
    for name in ("items.json", "study.json"):
        path = folder / name
        path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1', 1))
        with pytest.raises(FileError, match="version 1"):
            load_study(folder)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tasks", "example,colour"], "colour is not one of"),
        (["--sets", 0], "at least 1"),
        (["--effect", 2], "between 0 and 1"),
        (["--sets-per-rater", 30], "there are only 20"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(flags: list[Any], said: str):
    done = hiersae("study", "new", "run", "--acts", "a.h5", "--baseline", "flat", *flags)
    assert done.returncode == 2 and said in done.stderr, done.stderr


# --- a language model as a rater


def test_a_model_rates_blinded_and_is_reported_by_itself(folder: Path):
    study, store, _ = opened(folder)
    for item in session(study, 1):
        if item.task == LABEL:  # raters of the second half match them
            store.add(Answer(HUMAN, 1, "", item.id, "names of <kings>", 5000))

    def answer(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        asked = body["messages"][1]["content"]
        if "Choose number" in asked:
            return 200, {}, says(asked.split("Choose number ")[1][0])
        if "yes, no, unsure" in asked:
            return 200, {}, says("Yes.")
        return 200, {}, says("kings" if "eight words" in asked else "2" if number % 5 else "none of them")

    service = Service(answer)
    config = StudyRateConfig(study=str(folder), endpoint=service.address, llm="small", rater=4)
    first = rate(config)
    again = rate(config)
    service.close()
    assert first["answers"] and first["unusable"] and again["answers"] <= first["unusable"]
    given = store.answers(kind=MODEL, name="small")
    assert len(given) == len({one.item for one in given})
    for request in service.asked:
        text = json.dumps(request)
        assert not any(word in text for word in ("hierarchy", "shuffled", "baseline", "run:"))
    assert any("names of <kings>" in request["messages"][1]["content"] for request in service.asked)
    people, _ = rehearse(study, Raters(), 4, 0, seed=0)
    found = analyse(study, [*people, *given], Settings(0.95, 200, 0))
    assert set(found["models"]) == {"small"} and found["models"]["small"]["shares"]
    assert found["answers"] == len(people)
    store.close()


def test_servers_warn_beyond_loopback_without_tls(folder: Path):
    served = command("study", "serve", folder, "--host-address", "127.0.0.2", "--port", 0)
    process = subprocess.Popen(served, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr
    lines = []
    while not lines or "rater 7:" not in lines[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.terminate()  # SIGINT is ignored if the tests run in the background
    process.communicate(timeout=PATIENCE)
    said = "".join(lines)
    assert "speaks no TLS" in said and "/admin/" in said
