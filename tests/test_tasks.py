"""Downstream tasks through the command line: on the tiny chain, and on a planted hierarchy where right is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hiersae_cli import load_run
from hiersae_cli.config.evaluate import TASKS, EvalConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import RowColumns
from hiersae_cli.formats.report import TOO_FEW_DOCUMENTS
from hiersae_cli.formats.run import RunFolder
from hiersae_cli.host.model import Host
from hiersae_cli.metrics.catalogue import BY_NAME, CONCEPTS, INTERVENTIONS, PROBES, base_name
from hiersae_cli.render.report_tables import tables
from hiersae_cli.sae import HierarchicalSAE, build
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.eval import tasks as tasks_package
from hiersae_cli.workflows.eval.tasks import tasks_named
from tests import caches
from tests.fixtures_chain import save_host
from tests.helpers import PATIENCE, hiersae

GROUPS, MEMBERS, WIDTH, ROWS = 6, 4, 40, 16_000
LETTERS = "abcdefghijklmnopqrstuvwx"
SPARSE = [f"probe_{what}_k{k}" for what in ("f1", "accuracy") for k in (1, 2, 5, 16)]


@pytest.fixture(scope="module")
def report(
    tiny_host: Path, tiny_acts: Path, tiny_hier: Path, tiny_flat: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tasks")
    done = hiersae(
        "eval", tiny_hier, "--baseline", tiny_flat, "--acts", tiny_acts, "--model", tiny_host, "--tasks", "all",
        "--no-controls", "--resamples", 200, "-o", folder / "report.json", "--markdown", folder / "report.md", "--html",
        folder / "report.html", "--full", timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(json.loads((folder / "report.json").read_text()))
    texts = [done.stdout + done.stderr, (folder / "report.md").read_text(), (folder / "report.html").read_text()]
    return {**found, "texts": texts}


def test_every_run_and_baseline_is_measured(report: dict[str, Any]) -> None:
    # The untrained host hardly tells tokens apart, so no direction does the damage that steering wants.
    wanted = [*SPARSE, "probe_f1_reconstruction", "concept_score", "concept_score_shuffled", "absorption", "tpp"]
    for name, figures in report["runs"].items():
        for metric in wanted:
            figure = figures[metric]
            assert figure["value"] is not None and figure["low"] <= figure["value"] <= figure["high"], (name, metric)
        assert set(map(base_name, figures)) <= set(BY_NAME)
    assert next(iter(report["paired"].values()))["probe_f1_k1"]["verdict"] == TOO_FEW_DOCUMENTS
    assert "concept_score" in report["control_trees"][next(iter(report["groups"]))]["shuffled"]


def test_concepts_are_told_one_by_one(report: dict[str, Any], tiny_hier: Path) -> None:
    tasks = report["tasks"]
    concepts, told = tasks["concepts"], tasks["subjects"][tiny_hier.name]
    names = [concept["name"] for concept in concepts]
    assert {"character: letter", "character: letter/e", "character: space"} <= set(names)
    assert len(concepts) == len(told) <= tasks["concepts_found"]
    for number, concept in enumerate(concepts):
        assert 0 < concept["share"] < 1 and 0 <= concept["probe_f1"] <= 1
        assert (concept["parent"] is None) == (concept["level"] == 0)
        assert concept["parent"] is None or concept["parent"] in names[:number]
    assert {
        "latent",
        "tree_level",
        "f1",
        "phi",
        "edge",
        "below",
        "shared",
        "probe_f1_k1",
        "absorption",
        "splitting",
    } <= set(told[0])
    best = [concept["f1"] for concept in told if concept["f1"] is not None]
    assert max(best) > 0.7
    mean = np.mean([concept["probe_f1_k5"] for concept in told])
    assert report["runs"][tiny_hier.name]["probe_f1_k5"]["value"] == pytest.approx(mean)
    ceiling = tasks["ceiling"]["probe_accuracy"]["value"]
    assert ceiling >= report["runs"][tiny_hier.name]["probe_accuracy_k1"]["value"]


def test_detectors_by_hand(report: dict[str, Any], tiny_hier: Path, tiny_acts: Path, tiny_text: Path) -> None:
    """The latent for "e", from the file of text and the model alone."""
    from hiersae_cli import Activations

    with Activations(tiny_acts) as acts:
        module = acts.modules[0]
        x = acts.read(module).float()
        train, held_out = (acts.usable(module, split) for split in (0, 1))
    text = np.array(list(tiny_text.read_text()))
    fired, is_e = (load_run(tiny_hier).model.encode(x) > 0).numpy(), np.isin(text, ["e", "E"])
    with np.errstate(invalid="ignore"):
        phi = np.nan_to_num(np.corrcoef(np.column_stack([is_e, fired])[train].T)[0, 1:])
    best = int(phi.argmax())
    number = [concept["name"] for concept in report["tasks"]["concepts"]].index("character: letter/e")
    told = report["tasks"]["subjects"][tiny_hier.name][number]
    assert told["latent"] == (f"a{best}" if best < 16 else f"b{best - 16}")
    assert told["phi"] == pytest.approx(np.corrcoef(is_e[held_out], fired[held_out, best])[0, 1])


def test_a_report_of_an_older_release_shows_ids_as_today(report: dict[str, Any]) -> None:
    old = json.loads(json.dumps({name: value for name, value in report.items() if name != "texts"}))
    changed = 0
    for told in (told for subject in old["tasks"]["subjects"].values() for told in subject):
        if told.get("latent"):
            told["latent"] = f"{'ab'.index(told['latent'][0])}.{told['latent'][1:]}"
            changed += 1
    assert changed and tables(old) == tables(report)


def test_all_forms_show_the_tasks(report: dict[str, Any]) -> None:
    for text in report["texts"]:
        assert "probe_f1_k1" in text and "character: letter" in text and "Dense probes on the activations" in text


def test_every_task_is_a_module_and_every_metric_of_the_tasks_has_one() -> None:
    folder = Path(tasks_package.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "concept_rows"}
    tasks = tasks_named()
    assert sorted(task.name for task in tasks) == sorted(TASKS) == sorted(modules)
    metrics = [metric for task in tasks for metric in task.metrics]
    of_tasks = [name for name, metric in BY_NAME.items() if metric.section in (PROBES, CONCEPTS, INTERVENTIONS)]
    assert sorted(metrics) == sorted(of_tasks)


def test_no_tasks_unless_asked_for() -> None:
    assert EvalConfig(runs=["run"], acts=["acts.h5"]).tasks == ()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks", "all"], "--tasks"),
        (["--tasks", "probing,nothing", "--model", "HOST"], "'nothing' is not a task"),
        (["--labels", "l.csv"], "add --tasks all"),
        (["--tasks", "probing", "--model", "HOST", "--labeller", "latin"], "--labeller"),
        (["--tasks", "probing", "--model", "HOST", "--task-rows", "0"], "--task-rows"),
    ],
)
def test_wrong_requests(flags: list[str], message: str) -> None:
    done = hiersae("eval", "run", "--acts", "acts.h5", *flags)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"task_rows": 50}, FileError, "has enough rows for and against it"),
        ({"labels": "none.csv"}, UsageError, "none.csv: no such file"),
    ],
)
def test_what_cannot_be_labelled_is_refused_before_any_work(
    more: dict[str, Any], error: type[Exception], message: str, tiny_acts: Path, tiny_hier: Path, tiny_host: Path
) -> None:
    config = EvalConfig(
        runs=[str(tiny_hier)], acts=[str(tiny_acts)], model=str(tiny_host), tasks=TASKS, device="cpu", **more
    )
    with pytest.raises(error, match=message):
        evaluate.run(config)


class Planted:
    """Letters in groups: x is the sum of the group's direction, the letter's, and noise; with a host and labels.

    Attributes:
        directions: (GROUPS + letters, WIDTH), orthonormal.
    """

    def __init__(self, folder: Path, any_run: Path):
        random = np.random.default_rng(0)
        self.folder, self.header = folder, RunFolder(any_run).read_header()
        letter = random.integers(0, len(LETTERS), ROWS)
        text = "".join(LETTERS[number] for number in letter)
        self.host = save_host(folder / "host", text, width=WIDTH)
        model = Host.load(str(self.host), torch.device("cpu"))
        model.model.get_output_embeddings().weight.mul_(20)  # untrained, it hardly distinguishes tokens
        model.model.save_pretrained(self.host)
        model = Host.load(str(self.host), torch.device("cpu"))
        self.module = model.layer_path(1)
        self.directions = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0][: GROUPS + len(LETTERS)]
        x = self.directions[letter // MEMBERS] + self.directions[GROUPS + letter]
        x = (x + 0.1 * random.normal(size=x.shape)).astype(np.float32)
        tokens = np.array(model.tokenizer(text)["input_ids"], np.int32)
        document = (np.arange(ROWS) // 200).astype(np.int32)
        held_out = np.arange(document[-1] + 1) % 4 == 3
        rows = RowColumns(
            tokens, document, (np.arange(ROWS) % 50).astype(np.int32), held_out[document].astype(np.uint8),
            ["planted.txt"] * len(held_out), np.arange(len(held_out)) * 200, held_out,
        )  # fmt: skip
        content = caches.Content(rows, {self.module: x}, {self.module: x})
        self.acts = caches.write(folder / "acts.h5", content, host=model.fingerprint, drop_positions=0)
        self.labels = folder / "labels.csv"
        with self.labels.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["document", "start", "end", "label"])
            for place, number in enumerate(letter):
                group = f"group {number // MEMBERS}"
                writer.writerow(["planted.txt", place, place + 1, f"{group}/{LETTERS[number]}"])
        self.header |= {"module": self.module, "width": WIDTH}
        self.header["host"] = {**self.header["host"], "name": str(self.host), "fingerprint": model.fingerprint}
        self.header["host"]["tokenizer"] = model.tokenizer_fingerprint

    def run(self, name: str, parents: list[int]) -> Path:
        """The true dictionary as a run of two levels, with a tree over it."""
        widths = (GROUPS, len(LETTERS))
        config = TrainConfig(acts=[str(self.acts)], out="", arch="hier", widths=widths, k=(1, 1), device="cpu")
        model = build(config, WIDTH)
        assert isinstance(model, HierarchicalSAE)
        with torch.no_grad():
            # What the first level leaves still holds the letter's direction whole: all are orthogonal.
            model.W_dec_FD.copy_(torch.from_numpy(self.directions))
            model.W_enc_FD.copy_(model.W_dec_FD)
            model.threshold_L.fill_(0.25 / 6)
            model.parent_F[GROUPS:] = torch.tensor(parents)
        folder = RunFolder(self.folder / name)
        folder.write_header({**self.header, "config": config.recorded()})
        folder.write_model(model.weights(), config.steps, config.steps)
        return folder.path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, tiny_hier: Path) -> dict[str, Any]:
    """The report on the true tree, with one whose every other edge is wrong as a baseline."""
    made = Planted(tmp_path_factory.mktemp("planted"), tiny_hier)
    true = [number // MEMBERS for number in range(len(LETTERS))]
    half = [(group + 1) % GROUPS if number % 2 else group for number, group in enumerate(true)]
    config = EvalConfig(
        runs=[str(made.run("true", true))],
        baseline=[str(made.run("half", half))],
        acts=[str(made.acts)],
        model=str(made.host),
        tasks=TASKS,
        labels=str(made.labels),
        resamples=200,
        device="cpu",
    )
    return evaluate.run(config)


def test_controls_are_measured_alike(planted: dict[str, Any]) -> None:
    told = [set(planted["runs"][name]) for name in ("true", "random", "neurons", "pca")]
    names = {*SPARSE, "probe_f1_reconstruction", "concept_score", "absorption", "tpp", "splitting"}
    assert all(names <= metrics for metrics in told)


def value(report: dict[str, Any], subject: str, metric: str) -> float:
    return float(report["runs"][subject][metric]["value"])


def test_the_concept_score_ranks_trees(planted: dict[str, Any]) -> None:
    true, half = (value(planted, name, "concept_score") for name in ("true", "half"))
    shuffled, random = value(planted, "true", "concept_score_shuffled"), value(planted, "random", "concept_score")
    assert true > 0.95
    assert 0.4 < half < 0.6
    assert shuffled < 0.25 and random < 0.35
    for name, score in (("true", true), ("half", half)):  # of two levels: below is directly below
        assert value(planted, name, "concept_score_ancestors") == pytest.approx(score)
        assert value(planted, name, "detector_shared") == 0
        assert value(planted, name, "detector_phi_parents") > 0.95 < value(planted, name, "detector_phi_children")
    # Wrong parents have no children of the true tree, and half of those of the other, one in five each.
    assert value(planted, "true", "concept_score_chance") == 0
    assert value(planted, "half", "concept_score_chance") == pytest.approx(0.1, abs=0.02)
    assert planted["control_trees"]["true"]["shuffled"]["concept_score"]["verdict"] == "better"
    assert planted["paired"]["random"]["concept_score"]["verdict"] == "better"


def test_levels_of_the_tree_and_of_the_concepts_agree(planted: dict[str, Any]) -> None:
    assert value(planted, "true", "detector_depth_level_0") == 0
    assert value(planted, "true", "detector_depth_level_1") == 1
    told = planted["tasks"]["subjects"]["true"]
    for concept, row in zip(planted["tasks"]["concepts"], told, strict=True):
        steps = concept["name"].removeprefix("label: ").split("/")
        number = int(steps[0].split()[1]) if len(steps) == 1 else LETTERS.index(steps[1])
        assert row["latent"] == f"{'ab'[len(steps) - 1]}{number}"
        assert row["edge"] == (None if len(steps) == 1 else True)


def test_other_tasks_on_the_planted_hierarchy(planted: dict[str, Any]) -> None:
    """A latent for each concept: one is enough, none absorbs, and taking it out blinds its own probe alone."""
    assert value(planted, "true", "probe_f1_k1") > 0.95 > value(planted, "random", "probe_f1_k1") + 0.2
    assert value(planted, "true", "splitting") == 1
    assert value(planted, "true", "absorption") < 0.02
    assert value(planted, "true", "tpp_level_1") > 0.3
    assert value(planted, "true", "tpp") > 2 * value(planted, "random", "tpp")
    assert planted["warnings"] == [text for text in planted["warnings"] if "shifted" not in text]


def test_steering_has_effects_for_its_damage(planted: dict[str, Any]) -> None:
    for metric in ("steering_parent", "steering_child", "steering_child_by_parent"):
        figure = planted["runs"]["true"][metric]
        assert np.isfinite(figure["value"]) and figure["n"] == GROUPS  # a child of each parent
