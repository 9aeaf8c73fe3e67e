"""Labels by a language model: what it reads, the tests of its labels, its cost, and the exchange with Neuronpedia."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiersae_cli.browse.index import Index
from hiersae_cli.browse.label_contexts import FIRING, OTHER, SIBLING, LabelContexts
from hiersae_cli.browse.model import Context
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.label import LabelConfig
from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats.labels import Labels, Score
from hiersae_cli.formats.run import load_run
from hiersae_cli.formats.text import visible
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.metrics.firings import NONE
from hiersae_cli.metrics.intervals import Share
from hiersae_cli.pages.render import Pages
from hiersae_cli.workflows.common.chat_local import LocalChat
from hiersae_cli.workflows.dashboard.run import open_dashboard
from hiersae_cli.workflows.label import run
from hiersae_cli.workflows.labelling.prompts import marked
from tests import random_hosts
from tests.helpers import hiersae
from tests.test_labels import Service, says

SCORE = Score("judge", 0.85, 0.63, 0.93, 10, 9, 5, 3, 5, 5, 0)


@pytest.fixture(autouse=True)
def short_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latents of the tiny run fire so often that they are silent only in short contexts."""
    monkeypatch.setattr("hiersae_cli.browse.contexts._CHARACTERS_AROUND", 3)


@pytest.fixture()
def folder(tiny_dashboard: DashboardConfig, tmp_path: Path) -> Path:
    """A copy of the run with its index."""
    path = tmp_path / "hier"
    shutil.copytree(tiny_dashboard.run, path)
    return path


@pytest.fixture()
def index(folder: Path, tiny_dashboard: DashboardConfig) -> Index:
    return open_dashboard(replace(tiny_dashboard, run=str(folder)))[0]


@pytest.fixture()
def labels(folder: Path) -> Labels:
    return Labels(folder, load_run(folder).sha256)


@pytest.fixture()
def family(index: Index) -> tuple[str, str]:
    """A parent and one of its children, both of which fire often enough to be tested."""
    nodes, lists = index.nodes, index.dictionary.lists
    contexts = LabelContexts(index)
    for child in np.argsort(-lists.fired_F, kind="stable").tolist():
        parent = int(nodes.parent_F[child])
        if parent != NONE and all(
            {context.kind for context in contexts.tested(latent, 4)} == {FIRING, SIBLING, OTHER}
            for latent in (parent, child)
        ):
            return nodes.ids[parent], nodes.ids[child]
    raise AssertionError("the tiny run has no such family")


@pytest.fixture()
def start() -> Iterator[Callable[..., Service]]:
    """Starts services that answer a prompt by a function of the user's message."""
    started: list[Service] = []

    def start(answer: Callable[[str], str | int]) -> Service:
        def reply(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
            text = answer(body["messages"][1]["content"])
            if isinstance(text, int):
                return text, {}, "the service is down"
            return 200, {}, says(text) | {"usage": {"prompt_tokens": 100, "completion_tokens": 2}}

        started.append(Service(reply))
        return started[-1]

    yield start
    for service in started:
        service.close()


def is_test(prompt: str) -> bool:
    return prompt.startswith("Description: ")


def knowing(index: Index, ids: tuple[str, ...], count: int) -> Callable[[str], str]:
    """A model that knows in which of the tested contexts each node fires, and calls nodes by their numbers."""
    fires = {
        (f"node {id}", visible("".join(context.tokens))): context.kind == FIRING
        for id in ids
        for context in LabelContexts(index).tested(index.nodes.levels.latent(id), count)
    }
    names = iter(ids)

    def answer(prompt: str) -> str:
        if not is_test(prompt):
            return f"node {next(names)}"
        description, text = prompt.removeprefix("Description: ").split("\n\n")[:2]
        return "Yes" if fires[description.rpartition(": ")[2] or description, text.removeprefix("Text: ")] else "no."

    return answer


def test_only_strong_tokens_are_marked_and_neighbours_together():
    context = Context(list("america"), [0, 1, 4, 9, 8, 0, 2], 3, "", 0, 0, False)
    assert marked(context, 10) == "ame⟪ri⟫ca"
    weak = Context(list("abc"), [0, 1, 0], 1, "", 0, 0, False)
    assert marked(weak, 10) == "a⟪b⟫c"  # the token that the context was chosen for


def test_a_writer_reads_training_rows_and_a_test_uses_held_out_ones(index: Index, family: tuple[str, str]):
    contexts = LabelContexts(index)
    for id in family:
        latent = index.nodes.levels.latent(id)
        shown = contexts.shown(latent, 6)
        assert len(shown) == 6 and not any(context.held_out for context in shown)
        assert all(context.activation > 0 for context in shown)
        silent = contexts.contrasts(latent, 4)
        assert silent and not any(contrast.context.held_out for contrast in silent)
        assert all(contrast.context.activation > 0 and contrast.id != id for contrast in silent)
        by_row = {context.row for context in index.dictionary.strongest(latent, 10_000)}
        assert not by_row & {contrast.context.row for contrast in silent}
    parent, child = family
    related = {contrast.id for contrast in contexts.contrasts(index.nodes.levels.latent(child), 4)}
    siblings = {index.nodes.ids[other] for other in index.nodes.children(index.nodes.levels.latent(parent))}
    assert related <= siblings | {parent}
    tested = contexts.tested(index.nodes.levels.latent(child), 5)
    kinds = [context.kind for context in tested]
    assert kinds.count(FIRING) == 5 and 0 < kinds.count(SIBLING) <= 2 and len(kinds) <= 10
    assert tested == contexts.tested(index.nodes.levels.latent(child), 5)


def test_parents_are_labelled_first_and_named_to_their_children(
    folder: Path, index: Index, labels: Labels, family: tuple[str, str], start: Callable[..., Service]
):
    service = start(knowing(index, family, 8))
    config = LabelConfig(run=str(folder), endpoint=service.address, llm="wise", node=list(family[::-1]), score=8)
    summary = run(config)
    parent, child = family
    prompts = [request["messages"][1]["content"] for request in service.asked]
    writing = [prompt for prompt in prompts if not is_test(prompt)]
    assert f"part of a wider feature: node {parent}." in writing[1] and "wider feature" not in writing[0]
    assert all("in which it is silent" in prompt for prompt in writing)
    tests = [prompt for prompt in prompts if is_test(prompt)]
    assert all("⟪" not in prompt for prompt in tests)
    assert sum(prompt.startswith(f"Description: within node {parent}: node {child}\n") for prompt in tests) >= 12
    for id in family:
        label = labels.current()[id]
        assert (label.text, label.author) == (f"node {id}", "wise (automatic)")
        assert label.score and label.score.balanced_accuracy == 1 and label.score.above_chance
        assert label.score.firing == label.score.firing_right == 8 and label.score.siblings
    assert summary["written"] == summary["scored"] == 2
    assert summary["cost"]["calls"] == len(prompts) and summary["cost"]["tokens_read"] == 100 * len(prompts)
    recorded = [json.loads(line) for line in (folder / "label-prompts.jsonl").read_text().splitlines()]
    assert [line["asked"] for line in recorded].count("label") == 2 and len(recorded) == len(prompts)


def test_a_parents_label_that_failed_its_test_is_not_passed_on(
    folder: Path, labels: Labels, family: tuple[str, str], start: Callable[..., Service]
):
    service = start(lambda prompt: "yes" if is_test(prompt) else "nonsense")
    run(LabelConfig(run=str(folder), endpoint=service.address, llm="m", node=list(family), score=6))
    score = labels.current()[family[0]].score
    assert score and score.balanced_accuracy == 0.5 and not score.above_chance
    assert not any("wider feature: nonsense" in json.dumps(request) for request in service.asked)
    assert not any("within nonsense" in json.dumps(request) for request in service.asked)


def test_labels_of_people_are_scored_too_and_unusable_answers_counted(
    folder: Path, labels: Labels, family: tuple[str, str], start: Callable[..., Service]
):
    labels.set({family[1]: "by hand"}, "Ada")
    service = start(lambda prompt: "perhaps")
    config = LabelConfig(run=str(folder), endpoint=service.address, llm="m", node=[family[1]], score=5)
    run(config)
    label = labels.current()[family[1]]
    assert (label.text, label.author) == ("by hand", "Ada") and label.score
    assert label.score.balanced_accuracy is None and label.score.unusable == len(service.asked)
    assert "too few usable answers" in label.score.in_words
    run(config)  # nothing is left to do
    assert label.score.unusable == len(service.asked)


def test_labelling_resumes_after_a_failure(
    folder: Path, labels: Labels, family: tuple[str, str], start: Callable[..., Service]
):
    calls = iter(range(100))

    def failing(prompt: str) -> str | int:
        return 400 if next(calls) == 9 else ("yes" if is_test(prompt) else "a label")

    service = start(failing)
    config = LabelConfig(run=str(folder), endpoint=service.address, llm="m", node=list(family), score=6)
    with pytest.raises(HierSAEError, match="the service is down"):
        run(config)
    assert set(labels.current()) == {family[0]} and labels.current()[family[0]].score is None
    run(config)
    assert all(labels.current()[id].score for id in family)
    writing = [request for request in service.asked if not is_test(request["messages"][1]["content"])]
    assert len(writing) == 2


def test_a_whole_family_can_be_named_by_its_parent_and_costs_are_foreseen(folder: Path, family: tuple[str, str]):
    done = hiersae("label", folder, "--dry-run", "--node", family[0], "--descendants", "--score", 3, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    ids = [prompt["node"] for prompt in answer["prompts"]]
    assert ids[0] == family[0] and family[1] in ids
    assert answer["estimate"]["calls"] > len(ids) and answer["estimate"]["tokens_read"] > 100
    assert "nothing was sent" in done.stderr


def test_a_balanced_accuracy_has_the_interval_of_both_shares():
    perfect = Share(10, 10).mean_with(Share(10, 10), 0.95)
    assert (perfect.value, perfect.high) == (1, 1) and perfect.low == pytest.approx(0.8037, abs=1e-3)
    always_yes = Share(10, 10).mean_with(Share(0, 10), 0.95)
    assert always_yes.value == 0.5 and always_yes.low and always_yes.low < 0.5 < (always_yes.high or 0)


# --- a model on this machine


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with random weights, a tokenizer of bytes, and a long context."""
    folder = tmp_path_factory.mktemp("labeller") / "tiny"
    tokenizer = random_hosts.byte_tokenizer(add_bos=True)
    return random_hosts.save(folder, random_hosts.gpt2(len(tokenizer), context=8192), tokenizer)


def test_a_local_model_labels_and_scores(folder: Path, family: tuple[str, str], small_model: Path):
    done = hiersae(
        "label", folder, "--model", small_model, "--node", family[1], "--score", 3, "--device", "cpu", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["cost"]["calls"] >= 1 and answer["cost"]["tokens_read"] > 500 and "tokens read" in done.stderr
    for label in answer["labels"].values():  # random weights may write nothing
        assert label["author"] == "tiny (automatic)" and label["score"]["unusable"] == 0
        assert label["score"]["firing"] == 3


def test_a_local_model_answers_the_same_again_and_uses_its_template(small_model: Path, tmp_path: Path):
    chat = LocalChat(str(small_model), "cpu")
    assert chat.ask("Be brief.", "the cat?") == chat.ask("Be brief.", "the cat?")
    assert chat.choose("s", "u", ("yes", "no", "unsure"))[0] in ("yes", "no", "unsure")
    assert chat.cost.calls == 3 and chat.cost.tokens_written <= 81
    templated = tmp_path / "templated"
    shutil.copytree(small_model, templated)
    refuse = "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    (templated / "chat_template.jinja").write_text("{% for m in messages %}" + refuse + "[{{ m.content }}]{% endfor %}")
    other = LocalChat(str(templated), "cpu")
    other.choose("s", "u", ("yes", "no"))
    assert other.cost.tokens_read == len("[s\n\nu]")


def test_a_prompt_that_does_not_fit_the_local_model_is_an_error(folder: Path, family: tuple[str, str], tmp_path: Path):
    tokenizer = random_hosts.byte_tokenizer(add_bos=True)
    model = random_hosts.save(tmp_path / "short", random_hosts.gpt2(len(tokenizer)), tokenizer)
    done = hiersae("label", folder, "--model", model, "--node", family[1], "--device", "cpu")
    assert done.returncode == 1 and "does not fit its context of 32" in done.stderr, done.stderr
    assert not (folder / "labels.json").exists()


# --- where labels are shown, and Neuronpedia


def test_scores_are_kept_listed_and_exported(
    folder: Path, index: Index, labels: Labels, tiny_acts: Path, tmp_path: Path
):
    labels.set({"a3": "rivers", "b7": "lakes"}, "wise (automatic)")
    assert labels.score("a3", "rivers", SCORE) and not labels.score("a3", "brooks", SCORE)
    assert not labels.score("a4", "rivers", SCORE)
    assert labels.current()["a3"].score == SCORE and labels.current()["b7"].score is None
    labels.set({"b7": "ponds"}, "Ada")
    assert labels.current()["a3"].score == SCORE  # another label changed
    shown = hiersae("label", folder)
    assert "0.85 [0.63, 0.93] in 20 contexts, by judge" in " ".join(shown.stdout.split())
    table = tmp_path / "labels.csv"
    assert hiersae("label", folder, "-o", table).returncode == 0
    assert table.read_text().splitlines()[1].endswith(",0.85,judge")
    page = Pages(index, served=False).feature("a3").body
    assert "detection 0.85 [0.63, 0.93]" in page and "wise (automatic)" in page
    tree = tmp_path / "tree.json"
    done = hiersae("export-tree", folder, "--acts", tiny_acts, "--contexts", 0, "-o", tree)
    assert done.returncode == 0, done.stderr
    node, other = load_tree(tree)["a3"], load_tree(tree)["b7"]
    assert (node.label, node.label_author, node.label_score) == ("rivers", "wise (automatic)", 0.85)
    assert (other.label_author, other.label_score) == ("Ada", None)
    info = json.loads(hiersae("info", folder / "labels.json", "--json").stdout)
    assert info["scored"] == 1


def test_labels_go_to_neuronpedia_and_back(folder: Path, labels: Labels, family: tuple[str, str], tmp_path: Path):
    parent, child = family
    labels.set({parent: "countries", child: "in Europe"}, "Ada")
    labels.score(child, "in Europe", SCORE)
    file = tmp_path / "explanations.jsonl"
    done = hiersae("label", folder, "-o", file, "--source", "gpt2-small/6-hier")
    assert done.returncode == 0, done.stderr
    rows = {row["description"]: row for row in map(json.loads, file.read_text().splitlines())}
    row = rows["within countries: in Europe"]
    ids = load_run(folder).model.levels.ids
    assert (row["modelId"], row["layer"], row["index"]) == ("gpt2-small", "6-hier", str(ids.index(child)))
    assert row["explanationModelName"] == "Ada" and row["scores"][0]["value"] == 0.85
    labels.path.unlink()
    packed = tmp_path / "explanations.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    labels.set({parent: "nations"}, "Grace")
    done = hiersae("label", folder, "--from-neuronpedia", packed)
    assert done.returncode == 0 and "1 features keep" in done.stderr, done.stderr
    current = {id: (label.text, label.author) for id, label in labels.current().items()}
    assert current == {parent: ("nations", "Grace"), child: ("in Europe", "Ada")}


def test_explanations_of_another_dictionary_are_refused(folder: Path, tmp_path: Path):
    row = {"modelId": "gpt2", "layer": "6-res", "index": "1", "description": "x"}
    file = tmp_path / "explanations.jsonl"

    def take(*rows: dict[str, Any], source: str = "") -> None:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run(LabelConfig(run=str(folder), from_neuronpedia=str(file), source=source))

    for rows, said in (
        ([{**row, "index": "100000"}], "explains latent 100000"),
        ([{**row, "notes": f"run sha256 {'0' * 64}"}], "another run"),
        ([{**row, "index": "x"}], "damaged"),
        ([{"modelId": "gpt2"}], "damaged"),
        ([], "no explanations"),
    ):
        with pytest.raises(FileError, match=said):
            take(*rows)
    with pytest.raises(UsageError, match="explanations of gpt2/6-res, gpt2/7-res"):
        take(row, {**row, "layer": "7-res"})
    take(row, {**row, "layer": "7-res", "description": "y", "explanationModelName": "gpt-4o"}, source="gpt2/7-res")
    label = Labels(folder, load_run(folder).sha256).current()[load_run(folder).model.levels.ids[1]]
    assert (label.text, label.author) == ("y", "gpt-4o")
