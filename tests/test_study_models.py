"""A language model as a rater: a local one, only some tasks, and its agreement with people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hiersae_cli.config.study import StudyRateConfig
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.study import load_study
from hiersae_cli.metrics.two_raters import cohen_kappa, confusion, gwet_ac1, resampled_tables
from hiersae_cli.study import report
from hiersae_cli.study.analysis import Settings, analyse
from hiersae_cli.study.protocol import CHECK, EDGE, EDGE_ANSWERS, session
from hiersae_cli.study.store import HUMAN, MODEL, Answer
from hiersae_cli.workflows.study.rate import prompt_of, rate
from tests import random_hosts
from tests.fake_study import make_study, opened


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", sets=6, raters=4, tasks=(EDGE,), checks=2)


def test_agreement_beyond_chance_is_that_of_the_sources():
    table = np.array([[[20, 5], [10, 15]]])
    assert cohen_kappa(table)[0] == pytest.approx(0.4)
    # AC1: p_o = 0.7; the mean shares are 0.55 and 0.45, so p_e = 0.55 * 0.45 + 0.45 * 0.55 = 0.495
    assert gwet_ac1(table)[0] == pytest.approx((0.7 - 0.495) / (1 - 0.495))
    # Gwet (2008): almost all answers are the same. Kappa is about 0 although the raters agree on 118 of 125.
    skewed = np.array([[[118, 5], [2, 0]]])
    assert cohen_kappa(skewed)[0] == pytest.approx(-0.0234, abs=5e-4)
    assert gwet_ac1(skewed)[0] == pytest.approx(0.9408, abs=5e-4)
    one_value = np.array([[[7, 0], [0, 0]]])
    assert np.isnan(cohen_kappa(one_value)[0]) and gwet_ac1(one_value)[0] == 1
    assert np.isnan(cohen_kappa(np.zeros((1, 3, 3)))[0]) and np.isnan(gwet_ac1(np.zeros((1, 3, 3)))[0])


def test_tables_are_resampled_by_units():
    counted = confusion(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), 3)
    assert counted.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    tables = resampled_tables(counted, 500, 0)
    assert tables.shape == (500, 3, 3) and (tables.sum((1, 2)) == 4).all()
    assert tables.mean(0) == pytest.approx(counted, abs=0.15)


def test_a_local_model_judges_edges_and_is_compared_with_people(folder: Path, tmp_path: Path):
    tokenizer = random_hosts.byte_tokenizer(add_bos=True)
    model = random_hosts.save(tmp_path / "tiny", random_hosts.gpt2(len(tokenizer), context=4096), tokenizer)
    config = StudyRateConfig(study=str(folder), model=str(model), device="cpu", tasks=(EDGE,))
    first = rate(config)
    items = [item for item in session(load_study(folder), 0) if item.task in (EDGE, CHECK)]
    assert first["answers"] == len(items) and first["unusable"] == 0 and first["cost"]["calls"] == len(items)
    assert rate(config)["answers"] == 0  # nothing is asked twice
    study, store, _ = opened(folder)
    judged = [answer for answer in store.answers(kind=MODEL, name="tiny") if study.items[answer.item].task == EDGE]
    store.close()
    other = {"yes": "no", "no": "unsure", "unsure": "yes"}
    people = [
        Answer(HUMAN, rater, "", answer.item, answer.value if rater < 2 else other[answer.value], 5000)
        for rater in range(3)
        for answer in judged
    ]
    found = analyse(study, [*people, *judged], Settings(0.95, 200, 0, keep_all=True))
    (row,) = found["models"]["tiny"]["with_people"]
    assert (row["task"], row["items"], row["same"], row["ac1"]) == (EDGE, len(judged), 1, 1)
    assert row["people"] < 1 and "with_people" not in found
    columns = {title: columns for title, columns, _ in report.tables(found)}
    assert "Gwet's AC1" in columns["Agreement with the commonest answer of people · tiny"]


def test_items_without_a_commonest_answer_do_not_count(folder: Path):
    study = load_study(folder)
    items = [item.id for item in study.items.values() if item.task == EDGE]
    people = [
        Answer(HUMAN, rater, "", id, EDGE_ANSWERS[rater if id == items[0] else 0], 5000)
        for rater in range(2)
        for id in items[:4]
    ]
    by_model = [Answer(MODEL, 0, "m", id, "no", 5) for id in items]
    found = analyse(study, [*people, *by_model], Settings(0.95, 200, 0, keep_all=True))
    (row,) = found["models"]["m"]["with_people"]
    assert row["items"] == 3 and row["same"] == 0 and row["ac1"] < 0
    assert row["people"] == pytest.approx(0.7193, abs=1e-4)  # 3 of 4 the same; p_e = 2 * 0.875 * 0.125 / 2


def test_a_model_sees_only_the_strong_marks(folder: Path):
    item = next(item for item in load_study(folder).items.values() if item.task == EDGE)
    prompt = prompt_of(item, "")
    assert "⟪ king⟫<script>" in prompt  # its step is 7; that of the next token is 3


@pytest.mark.parametrize(
    "flags",
    [{}, {"endpoint": "http://a", "llm": "m", "model": "m"}, {"endpoint": "http://a"}, {"model": "m", "llm": "m"}],
)
def test_a_service_or_a_local_model_is_named(flags: dict[str, str]):
    with pytest.raises(UsageError):
        StudyRateConfig(study="study", **flags)
