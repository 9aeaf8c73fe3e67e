"""A study of items that another tool made: the documented file, what is refused, and the whole chain."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiersae_cli.config.study import StudyAnalyzeConfig, StudyNewConfig, StudySimulateConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.study import load_study
from hiersae_cli.study.from_file import read_items
from hiersae_cli.study.protocol import CHECK, CHILD, EDGE, EXAMPLE, LABEL, MATCH, session
from hiersae_cli.workflows.study import run as workflow
from tests.fake_study import serving
from tests.helpers import hiersae
from tests.test_study_web import Rater, fields, value_for

DOCS = Path(__file__).parent.parent / "docs"


def excerpt(word: str) -> dict[str, Any]:
    return {"tokens": [" the", f" {word}", "\n"], "activations": [0.0, 2.5, 0.5]}


def items_of(*conditions: str, sets: int = 3) -> dict[str, Any]:
    """A file with every task, for these conditions; labels are known beforehand."""
    items: list[dict[str, Any]] = []
    for number in range(sets):
        for name in conditions:
            common = {"condition": name, "set": 10 * number, "latents": [f"{name}/{number}"]}
            texts = [[excerpt(f"{name}{number}{place}")] for place in range(3)]
            items += [
                {**common, "task": EXAMPLE, "options": texts, "key": 2},
                {**common, "task": CHILD, "options": [[*group, *group] for group in texts], "key": 0},
                {**common, "task": EDGE, "shown": texts[:2]},
                {**common, "task": MATCH, "options": texts, "key": 1, "words": "names of kings"},
            ]
    return {"schema": "hiersae.items", "schema_version": 1, "conditions": list(conditions), "items": items}


def written(tmp_path: Path, content: dict[str, Any]) -> str:
    path = tmp_path / "items.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_items_of_another_tool_are_asked_rehearsed_and_analysed(tmp_path: Path):
    path, out = written(tmp_path, items_of("ours", "theirs")), tmp_path / "study"
    made = hiersae("study", "new", "--items", path, "--raters", 4, "--checks", 2, "-o", out, "--json", fresh=True)
    assert made.returncode == 0, made.stderr
    study = load_study(out)
    assert study.conditions(CHILD) == ("ours", "theirs") and study.design["sets"] == dict.fromkeys(
        (EXAMPLE, CHILD, EDGE, LABEL), 3
    )
    counts = Counter((item.task, item.condition) for item in study.items.values())
    assert counts[CHECK, ""] == 2 and {counts[task, "ours"] for task in (EXAMPLE, CHILD, EDGE, MATCH)} == {3}
    keys = {item.key for item in study.items.values() if item.task == CHILD}
    assert len(keys) > 1  # options are in random order
    for item in study.items.values():
        if item.task == CHILD:
            assert item.key is not None and item.options[item.key][0]["tokens"][1].endswith("0")
            assert item.options[0][0]["steps"] == [0, 9, 2]
    assert "made by another tool" in (out / "preregistration.md").read_text()
    with serving(out) as (address, served):
        rater = Rater(address, served.links.raters[0])
        rater.begin()
        texts = []
        while "<form" in (text := rater.question()):
            assert "ours" not in text.replace("theirs", "").split("<ul")[0]
            assert rater.answer(fields(text), value_for(text)) == 303
            texts.append(text)
        assert "Thank you" in text and len(texts) == len(session(study, 0)) == 26
        assert any("Which of these three groups does not belong?" in text for text in texts)
        assert any("names of kings" in text for text in texts)
    workflow.simulate(StudySimulateConfig(study=str(out), raters=12, logit=["ours=2"], overwrite=True))
    data = workflow.analyze(StudyAnalyzeConfig(study=str(out), simulated=True, resamples=200))
    shares = {(row["task"], row["condition"]): row for row in data["shares"]}
    assert shares[CHILD, "ours"]["value"] > shares[CHILD, "theirs"]["value"]
    assert shares[CHILD, "ours"]["chance"] == pytest.approx(1 / 3)
    assert any(text.startswith("SIMULATED. Child intruder: ours ") for text in data["sentences"])
    with pytest.raises(UsageError, match="--logit"):
        workflow.simulate(StudySimulateConfig(study=str(out), logit=["nobody=2"], overwrite=True))


def test_a_single_condition_is_compared_with_guessing_only(tmp_path: Path):
    out = tmp_path / "study"
    workflow.new(StudyNewConfig(items=written(tmp_path, items_of("ours")), raters=3, out=str(out)))
    workflow.simulate(StudySimulateConfig(study=str(out)))
    data = workflow.analyze(StudyAnalyzeConfig(study=str(out), simulated=True, resamples=100))
    assert data["differences"] == [] and data["shares"]


def test_labels_of_raters_may_be_part_of_the_file(tmp_path: Path):
    content = items_of("ours", "theirs")
    for item in [item for item in content["items"] if item["task"] == MATCH]:
        del item["words"]
        label = {"task": LABEL, "shown": [[excerpt("a")]]}
        content["items"].append({**{key: item[key] for key in ("condition", "set", "latents")}, **label})
    drafts, _ = read_items(written(tmp_path, content), 0)
    assert sum(draft["task"] == LABEL for draft in drafts) == 6


def test_the_documented_file_is_read(tmp_path: Path):
    text = (DOCS / "file-formats.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"hiersae.items"' in block)
    drafts, conditions = read_items(written(tmp_path, json.loads(example)), 0)
    assert conditions == ["ours", "theirs"] and [draft["task"] for draft in drafts] == [EXAMPLE, EXAMPLE]


def first(content: dict[str, Any], task: str) -> dict[str, Any]:
    return next(item for item in content["items"] if item["task"] == task)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(schema_version=2), "version 2 is not supported"),
        (lambda content: content.update(schema="hiersae.study.items"), "not a hiersae.items file"),
        (lambda content: content.update(conditions=[]), "'conditions'"),
        (lambda content: content.update(conditions=["ours", "ours"]), "different names"),
        (lambda content: content.update(conditions=["ours", "a\nb"]), "printable"),
        (lambda content: content.update(items=[]), "there are no items"),
        (lambda content: first(content, CHILD).update(task="colour"), "items[1], colour: the task"),
        (lambda content: first(content, CHILD).update(condition="nobody"), "'nobody' is not in 'conditions'"),
        (lambda content: first(content, CHILD).update(key=3), "'key' must be"),
        (lambda content: first(content, CHILD).pop("key"), "'key' must be"),
        (lambda content: first(content, CHILD).pop("options"), "'options' has 0 groups"),
        (lambda content: first(content, CHILD)["options"].pop(), "different numbers of options"),
        (lambda content: first(content, CHILD)["options"][1].clear(), "options[1] has no texts"),
        (lambda content: first(content, EXAMPLE)["options"][0].append(excerpt("a")), "a single text"),
        (lambda content: first(content, EDGE)["shown"].pop(), "'shown' has 1 groups, not 2"),
        (lambda content: first(content, EDGE).update(key=0), "nothing to choose from"),
        (lambda content: first(content, EDGE).update(words="a"), "'words' are for"),
        (lambda content: first(content, MATCH).update(words="a\nb"), "'words' are for"),
        (lambda content: first(content, MATCH).pop("words"), "a match needs 'words'"),
        (lambda content: content["items"].pop(0), "set 0 of the task example has items of theirs; it needs one"),
        (lambda content: content["items"].append(first(content, EDGE)), "set 0 of the task edge"),
        (lambda content: first(content, EDGE)["shown"][0][0].update(steps=[1]), "either 'activations' or 'steps'"),
        (lambda content: first(content, EDGE)["shown"][0][0].update(tokens=["a"]), "1 tokens, but 3 activations"),
        (lambda content: first(content, EDGE)["shown"][0][0].update(activations=[0, 0, 0]), "no token is marked"),
        (lambda content: first(content, EDGE)["shown"][0][0].update(activations=[0, -1, 0]), "negative"),
        (lambda content: first(content, EDGE)["shown"][0][0].update(tokens=["a", "b", "c" * 2000]), "2,002 characters"),
        (lambda content: first(content, EDGE).update(shown=7), "'items[2].shown' is 7"),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused_with_its_place(tmp_path: Path, change: Callable[..., Any], said: str):
    content = items_of("ours", "theirs")
    change(content)
    path = written(tmp_path, content)
    with pytest.raises(FileError, match=re.escape(said)) as refused:
        workflow.new(StudyNewConfig(items=path, out=str(tmp_path / "study")))
    assert refused.value.message.startswith(path) and not (tmp_path / "study").exists()


@pytest.mark.parametrize("flags", [{"run": "hier"}, {"baseline": "flat"}, {"sets": 4}, {"tasks": (EDGE,)}])
def test_flags_of_runs_are_refused_with_items(flags: dict[str, Any]):
    with pytest.raises(UsageError, match="no effect with --items"):
        StudyNewConfig(items="items.json", **flags)
