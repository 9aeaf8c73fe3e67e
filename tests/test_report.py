"""What ``hiersae eval`` writes: groups of seeds, controls, doubts, verdicts, and the same in every form."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiersae_cli import load_run
from hiersae_cli.config.cache import CacheConfig
from hiersae_cli.config.evaluate import EvalConfig
from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.report import PLOTS, TOO_FEW_DOCUMENTS, TOO_FEW_SEEDS, verdict
from hiersae_cli.metrics.catalogue import metric_of
from hiersae_cli.metrics.intervals import holm
from hiersae_cli.metrics.stability import recurring_edges, start_cosines
from hiersae_cli.pages.report_page import html
from hiersae_cli.render.report_tables import doubts, tables
from hiersae_cli.render.report_writers import markdown
from hiersae_cli.sae.base import first_rows
from hiersae_cli.workflows.cache import run as cache
from hiersae_cli.workflows.eval import run as evaluate
from hiersae_cli.workflows.eval.subjects import Subject, new_group, seed_groups
from hiersae_cli.workflows.train import run as train
from tests.helpers import hiersae


@pytest.fixture(scope="module")
def acts(tiny_text: Path, tiny_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with documents enough for verdicts: 16 are held out."""
    path = tmp_path_factory.mktemp("acts") / "acts.h5"
    config = CacheConfig(
        texts=[str(tiny_text)], model=str(tiny_host), layer="1", out=str(path), document_tokens=256, held_out=0.2,
        device="cpu",
    )  # fmt: skip
    cache.run(config)
    return path


@pytest.fixture(scope="module")
def seeds(acts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Two seeds of a small hierarchical run, and three of a flat one, given in no order."""
    folder = tmp_path_factory.mktemp("seeds")
    sizes: dict[str, dict[str, Any]] = {
        "hier": {"widths": (8, 40), "k": (2, 3)},
        "batchtopk": {"widths": (48,), "k": (5,)},
    }
    made: dict[str, list[Path]] = {}
    for arch, numbers in (("hier", (0, 1)), ("batchtopk", (2, 0, 1))):
        for seed in numbers:
            out = folder / f"{arch}-{seed}"
            train.run(
                TrainConfig(
                    acts=[str(acts)], out=str(out), arch=arch, tokens=40_000, batch=512, buffer=16, seed=seed,
                    device="cpu", **sizes[arch],
                )
            )  # fmt: skip
            made.setdefault(arch, []).append(out)
    return made


@pytest.fixture(scope="module")
def written(seeds: dict[str, list[Path]], acts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every output of one command: two seeds against three."""
    folder = tmp_path_factory.mktemp("written")
    baselines = [word for path in seeds["batchtopk"] for word in ("--baseline", path)]
    done = hiersae(
        "eval", *seeds["hier"], *baselines, "--acts", acts, "-o", folder / "report.json", "--edges",
        folder / "edges.csv", "--markdown", folder / "report.md", "--html", folder / "report.html", "--plots",
        folder / "plots", "--full", env={"COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "terminal.txt").write_text(done.stdout)
    (folder / "messages.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def report(written: Path) -> dict[str, Any]:
    return dict(json.loads((written / "report.json").read_text()))


def test_runs_that_differ_in_their_seed_are_one(report: dict[str, Any]) -> None:
    groups = report["groups"]
    assert list(groups) == ["hier", "batchtopk", "random", "neurons", "pca"]
    assert groups["hier"]["seeds"] == [0, 1] and groups["batchtopk"]["seeds"] == [0, 1, 2]
    assert groups["batchtopk"]["subjects"] == ["batchtopk-0", "batchtopk-1", "batchtopk-2"]
    for name, group in groups.items():
        for metric, figure in group["figures"].items():
            if metric.startswith("stability"):
                continue
            values = [report["runs"][subject][metric]["value"] for subject in group["subjects"]]
            if len(values) > 1:
                assert figure["of_seeds"] == values
            assert (figure["low"] is None) == (len(values) == 2), "two seeds are no sample of seeds"
            assert figure["value"] == pytest.approx(np.mean(values)), (name, metric)
    for metric, figure in report["paired"]["batchtopk"].items():
        one, two = (groups[name]["figures"][metric]["value"] for name in ("hier", "batchtopk"))
        assert figure["value"] == pytest.approx(one - two)
        assert (figure["low"], figure["p"]) == (None, None)
        assert figure["verdict"] == ("" if metric_of(metric).better is None else TOO_FEW_SEEDS)


def test_no_figure_leaves_its_range(report: dict[str, Any]) -> None:
    figures = [of for part in ("runs", "paired") for of in report[part].values()]
    figures += [group["figures"] for group in report["groups"].values()]
    for metric, figure in (item for of in figures for item in of.items()):
        low, high = metric_of(metric).range
        if "p" in figure:
            low, high = low - high, high - low
        assert all(low <= figure[end] <= high for end in ("value", "low", "high") if figure[end] is not None), metric


def test_a_few_documents_give_no_verdict(tiny_hier: Path, tiny_flat: Path, tiny_acts: Path) -> None:
    config = EvalConfig(
        runs=[str(tiny_hier)], baseline=[str(tiny_flat)], acts=[str(tiny_acts)], tokens=1000, controls=False,
        device="cpu",
    )  # fmt: skip
    found = evaluate.run(config)
    assert found["sample"]["documents"] < 10
    for compared in (found["paired"]["flat"], found["control_trees"]["hier"]["shuffled"]):
        for metric, figure in compared.items():
            assert figure["verdict"] == ("" if metric_of(metric).better is None else TOO_FEW_DOCUMENTS)
            assert figure["p_holm"] is None
    text = "; ".join(found["warnings"])
    assert "held-out documents: intervals are rough" in text and "one seed of hier and of flat: " in text


def test_stability_is_that_of_the_learned_trees(report: dict[str, Any], seeds: dict[str, list[Path]]) -> None:
    one, two = (load_run(path).model for path in seeds["hier"])
    expected = recurring_edges(one.W_dec_FD, one.parent_F.numpy(), two.W_dec_FD, two.parent_F.numpy())  # type: ignore[union-attr, operator]
    figures = report["groups"]["hier"]["figures"]
    assert figures["stability"]["value"] == pytest.approx(expected)
    assert 0 <= figures["stability_shuffled"]["value"] <= 1 and 0 < figures["stability_latents"]["value"] <= 1
    assert "stability" in report["groups"]["batchtopk"]["figures"]  # of post-hoc trees
    assert "stability" not in report["groups"]["random"]["figures"]


def test_stability_has_levels_and_chance_and_counts_live_latents(report: dict[str, Any], written: Path) -> None:
    figures = report["groups"]["hier"]["figures"]
    dead = [report["runs"][name]["dead"]["value"] for name in ("hier-0", "hier-1")]
    assert figures["stability_live"]["n"] == round((1 - np.mean(dead)) * 48)
    for ending in ("", "_level_0", "_level_1"):
        for name in ("cosine", "cosine_chance", "cosine_any", "cosine_any_chance", "live", "live_chance"):
            figure = figures[f"stability_{name}{ending}"]
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1, (name, ending)
    latents = [figures[f"stability_live{ending}"]["n"] for ending in ("", "_level_0", "_level_1")]
    assert abs(latents[0] - sum(latents[1:])) <= 1
    of_level = [figures[f"stability_cosine_level_{level}"]["value"] for level in (0, 1)]
    assert min(of_level) <= figures["stability_cosine"]["value"] <= max(of_level)
    assert figures["stability_cosine"]["value"] <= figures["stability_cosine_any"]["value"]
    assert "stability_cosine_any" not in report["groups"]["batchtopk"]["figures"], "it has one level"
    for name in ("terminal.txt", "report.md", "report.html"):
        text = (written / name).read_text()
        for words in ("Stability between seeds", "stability_live_edges", "stability_cosine_chance", "hier level 1"):
            assert words in text, (name, words)
    lines = (written / "terminal.txt").read_text().splitlines()
    chance = figures["stability_cosine_chance"]["value"]
    said = f"Between seeds: best cosine {figures['stability_cosine']['value']:.2f}, {chance:.2f} by chance;"
    assert said in " ".join(lines[:12])
    table = lines[lines.index("Stability between seeds") :]
    assert max(map(len, table[: next(row for row, line in enumerate(table) if "untrained" in line)])) <= 80


def test_decoder_rows_are_compared_with_their_start(report: dict[str, Any], seeds: dict[str, list[Path]]) -> None:
    for name, path in zip(("hier-0", "hier-1"), seeds["hier"], strict=True):
        run, figures = load_run(path), report["runs"][name]
        cosine = start_cosines(run.model.W_dec_FD, first_rows(48, run.model.width, run.config.seed))
        assert figures["lazy"]["n"] == round((1 - figures["dead"]["value"]) * 48)
        if figures["dead"]["value"] == 0:
            assert figures["start_cosine"]["value"] == pytest.approx(np.median(cosine))
            assert figures["lazy_level_1"]["value"] == np.mean(cosine[8:] > 0.8)
    assert "start_cosine" not in report["runs"]["pca"]


def test_runs_that_differ_in_one_of_two_seeds_are_a_group_that_says_so(
    seeds: dict[str, list[Path]], acts: Path, tmp_path: Path
) -> None:
    first = load_run(seeds["batchtopk"][1])
    assert first.config.seed == 0
    for name, own_seeds in {"order": {"order_seed": 1}, "init": {"seed": 7, "init_seed": 1, "order_seed": 0}}.items():
        out = str(tmp_path / name)
        train.run(
            TrainConfig(
                acts=[str(acts)], out=out, arch="batchtopk", widths=(48,), k=(5,), tokens=40_000, batch=512, buffer=16,
                device="cpu", **own_seeds,
            )
        )  # fmt: skip
        config = EvalConfig(runs=[str(first.path), out], acts=[str(acts)], controls=False, device="cpu")
        found = evaluate.run(config)
        group = next(iter(found["groups"].values()))
        assert {"init": group["init_seeds"], "order": group["order_seeds"]} == {
            key: [0, 1] if key == name else [0, 0] for key in ("init", "order")
        }
        words = {"order": "data order", "init": "first weights"}[name]
        assert any(f"differ only in the seed of the {words}" in text for text in found["warnings"])
        assert f"seed 0 or 1 of the {words}" in markdown(found)
    order, init = (load_run(tmp_path / name) for name in ("order", "init"))
    both = [str(order.path), str(init.path)]  # now both differ
    assert not any("differ only" in text for text in evaluate.run(replace(config, runs=both))["warnings"])
    with pytest.raises(UsageError, match=r"both of seed 0 \(weights\) with 1 \(order\)"):
        evaluate.run(replace(config, runs=[str(order.path)] * 2))


def test_one_seed_against_several_has_no_interval(seeds: dict[str, list[Path]], acts: Path) -> None:
    baselines = list(map(str, seeds["batchtopk"]))
    for runs, baseline in (([str(seeds["hier"][0])], baselines), (baselines, [str(seeds["hier"][0])])):
        found = evaluate.run(EvalConfig(runs=runs, baseline=baseline, acts=[str(acts)], device="cpu"))
        (other,) = found["mismatches"]
        for metric, figure in found["paired"][other].items():
            assert (figure["low"], figure["high"], figure["p"]) == (None, None, None), metric
            assert figure["verdict"] == ("" if metric_of(metric).better is None else TOO_FEW_SEEDS)
        assert any("one seed against several" in text for text in found["warnings"])
        assert found["paired"]["pca"]["fvu"]["low"] is not None, "a control has no seed"


def test_further_runs_with_a_seed_in_common_are_named(seeds: dict[str, list[Path]], acts: Path, tmp_path: Path) -> None:
    first = load_run(seeds["hier"][0])
    out = str(tmp_path / "other")
    train.run(replace(first.config, acts=[str(acts)], out=out, order_seed=1))
    config = EvalConfig(runs=[str(first.path)], stability=[out], acts=[str(acts)], controls=False, device="cpu")
    report = evaluate.run(config)
    assert any("runs of hier-0 differ only in the seed of the data order" in text for text in report["warnings"])


def test_stability_with_further_runs(seeds: dict[str, list[Path]], acts: Path, report: dict[str, Any]) -> None:
    first, second = map(str, seeds["hier"])
    config = EvalConfig(runs=[first], stability=[second], acts=[str(acts)], controls=False, device="cpu")
    found = evaluate.run(config)
    assert list(found["runs"]) == ["hier-0"]
    for metric, figure in report["groups"]["hier"]["figures"].items():
        if metric.startswith("stability"):
            assert found["groups"]["hier-0"]["figures"][metric] == figure
    assert second in found["inputs"]


def test_options_of_other_architectures_do_not_part_seeds(
    seeds: dict[str, list[Path]], tiny_flat: Path, tmp_path: Path
) -> None:
    """A later release has options that an earlier one did not record; a flat dictionary does not have them."""
    first, other = load_run(tiny_flat), load_run(tiny_flat)
    other.header["config"] |= {"seed": 1, "rate_limit": 7.0}
    other.config.seed = 1
    hier = [load_run(path) for path in seeds["hier"]]
    assert [len(group.subjects) for group in seed_groups(hier, [first, other])] == [len(hier), 2]
    hier[0].header["config"] |= {"rate_limit": 7.0}
    with pytest.raises(UsageError, match="is no other seed"):
        seed_groups(hier, [first])


def test_seeds_of_another_configuration_are_refused(seeds: dict[str, list[Path]], tiny_acts: Path) -> None:
    done = hiersae("eval", seeds["hier"][0], seeds["batchtopk"][0], "--acts", tiny_acts)
    assert done.returncode == 2 and "is no other seed of" in done.stderr and "--baseline" in done.stderr
    with pytest.raises(UsageError, match="both of seed 0"):
        evaluate.run(EvalConfig(runs=[str(seeds["hier"][0])] * 2, acts=[str(tiny_acts)]))


def test_controls_have_the_runs_size(report: dict[str, Any]) -> None:
    subjects, runs = report["subjects"], report["runs"]
    assert subjects["random"]["latents"] == 48 and subjects["neurons"]["latents"] == subjects["pca"]["latents"] == 64
    for name in ("random", "neurons", "pca"):
        assert subjects[name]["arch"] == "control" and subjects[name]["tree"] == "post-hoc"
        assert runs[name]["l0"]["value"] == pytest.approx(runs["hier-0"]["l0"]["value"], rel=0.12)  # a whole number
        assert runs[name]["fvu"]["value"] > runs["hier-0"]["fvu"]["value"]
        assert {"mi_bits", "hierarchy_score", "or_distance", "bits_per_token"} <= set(runs[name])
        assert report["paired"][name]["fvu"]["verdict"] == TOO_FEW_SEEDS


def test_own_trees_are_compared_with_shuffled_parents(report: dict[str, Any]) -> None:
    for name, subjects in (("hier", ["hier-0", "hier-1"]), ("batchtopk", ["batchtopk-0"])):
        shuffled = report["control_trees"][name]["shuffled"]
        assert {"mi_bits", "mi_over_max", "p_parent_given_child", "or_distance", "hierarchy_score"} <= set(shuffled)
        if name == "hier":
            runs = [report["runs"][subject] for subject in subjects]
            differences = [run["lift"]["value"] - run["lift_shuffled"]["value"] for run in runs]
            assert shuffled["lift"]["value"] == pytest.approx(np.mean(differences))
        assert set(report["control_trees"][name]["chow_liu"]) >= {"mi_bits", "hierarchy_score"}


def test_verdicts_are_those_of_corrected_tests(report: dict[str, Any]) -> None:
    families = list(report["control_trees"]["batchtopk"].values())  # of three seeds
    verdicts = set()
    for compared in families:
        tested = {
            metric: figure
            for metric, figure in compared.items()
            if metric_of(metric).better is not None and figure["p"] is not None
        }
        corrected = holm([figure["p"] for figure in tested.values()])
        assert [figure["p_holm"] for figure in tested.values()] == corrected
        for metric, figure in compared.items():
            expected = verdict(metric, figure["value"], figure["p_holm"], 0.05)
            assert figure["verdict"] == expected and (metric in tested or not expected)
            verdicts.add(expected)
    assert verdicts >= {"better", "no evidence"}  # no metric is worse here; test_verdict has that case


def test_verdict() -> None:
    assert verdict("fvu", -0.1, 0.01, 0.05) == "better" and verdict("fvu_soft", 0.1, 0.01, 0.05) == "worse"
    assert verdict("ev", 0.1, 0.01, 0.05) == "better" and verdict("ev", 0.1, 0.05, 0.05) == "no evidence"
    assert verdict("l0_level_1", 0.1, 0.0, 0.05) == verdict("ev", 0.1, None, 0.05) == ""


def test_the_file_of_edges_has_every_edge(written: Path, report: dict[str, Any], seeds: dict[str, list[Path]]) -> None:
    with open(written / "edges.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    trees = {(row["subject"], row["tree"]) for row in rows}
    assert {(name, tree) for name in report["runs"] for tree in ("own", "Chow–Liu", "shuffled")} == trees
    mine = [row for row in rows if (row["subject"], row["tree"]) == ("hier-0", "own")]
    parents = load_run(seeds["hier"][0]).model.parent_F.tolist()  # type: ignore[union-attr, operator]
    expected = {(f"b{child - 8}", f"a{parent}") for child, parent in enumerate(parents) if parent >= 0}
    assert {(row["child"], row["parent"]) for row in mine} == expected
    known = [row for row in mine if int(row["n_child"]) >= 20]
    for column in ("mi_bits", "mi_over_max", "mi_over_entropy", "p_parent_given_child", "p_child_given_parent", "lift"):
        figure = report["runs"]["hier-0"][column]
        assert figure["n"] == len(known)
        assert figure["value"] == pytest.approx(np.mean([float(row[column]) for row in known]), rel=1e-4)
    hits = [int(row["hierarchy_hit"]) for row in known]
    assert report["runs"]["hier-0"]["hierarchy_score"]["value"] == pytest.approx(np.mean(hits))
    scored = [float(row["z_shift"]) for row in known if row["z_shift"]]
    assert report["runs"]["hier-0"]["beyond_shift"]["value"] == pytest.approx(np.mean(np.array(scored) > 3))
    for row in known:
        assert float(row["p_parent_given_child"]) == pytest.approx(int(row["n_both"]) / int(row["n_child"]), rel=1e-5)
        share = np.clip(float(row["mi_bits"]) / float(row["max_mi_bits"]), 0, 1) if float(row["lift"]) >= 1 else 0
        assert float(row["mi_over_max"]) == pytest.approx(share, rel=1e-4)
    assert all(0 <= float(row["mi_over_max"]) <= 1 for row in rows if row["mi_over_max"])


def test_all_forms_say_the_same(written: Path, report: dict[str, Any]) -> None:
    texts = {name: (written / name).read_text() for name in ("terminal.txt", "report.md", "report.html")}
    fvu = f"{report['groups']['hier']['figures']['fvu']['value']:.4g}"
    difference = f"{report['paired']['batchtopk']['fvu']['value']:.4g}"
    for name, text in texts.items():
        for words in ("hier against batchtopk", "Reconstruction", "Description length", fvu, "shuffled"):
            assert words in text, (name, words)
        assert difference in text or name == "terminal.txt"  # 80 columns are too few for it
        for metric in ("or_distance", "hierarchy_score", "sibling_overlap", "stability_shuffled", "pca"):
            assert metric in text, (name, metric)
    # Doubts come before any figure, in every form.
    for text in ((written / "messages.txt").read_text(), texts["report.md"], texts["report.html"]):
        assert "seed: 0, 1 against 0, 1, 2" in text and "two seeds of hier: " in text
    for name in ("report.md", "report.html"):
        assert texts[name].index("seed: 0, 1 against") < texts[name].index("fvu")
    assert "(not matched)" in texts["terminal.txt"]


def test_the_page_needs_nothing_else(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:image/svg\+xml;base64,)", page)
    assert "<script" not in page and "url(" not in page
    assert page.count("data:image/svg+xml") == len(PLOTS)
    for name, title in PLOTS.items():
        svg = (written / "plots" / f"{name}.svg").read_text()
        assert svg.startswith("<?xml") and "</svg>" in svg and title in page


def test_names_are_escaped(report: dict[str, Any]) -> None:
    text = json.dumps(report).replace("batchtopk", "<b>|x")
    renamed = json.loads(text)
    page = html(renamed, {})
    assert "<b>" not in page and "&lt;b&gt;|x" in page
    table_lines = [line for line in markdown(renamed).splitlines() if line.startswith("| ")]
    assert all("<b>" not in line for line in table_lines)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table_lines[:10]}
    assert len(widths) == 1


def test_a_report_without_baselines_has_tables_too(tiny_hier: Path, tiny_acts: Path) -> None:
    config = EvalConfig(runs=[str(tiny_hier)], acts=[str(tiny_acts)], controls=False, device="cpu")
    report = evaluate.run(config)
    first, trees = tables(report)
    assert first.columns == ["", "hier"] and "and other trees" in trees.title
    assert report["paired"] == {} and "pca" not in report["groups"]
    assert markdown(report) and html(report, {})


def test_nothing_is_overwritten_and_nothing_computed_first(tiny_hier: Path, tiny_acts: Path, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "rates.svg").write_text("mine")  # none of ours
    (tmp_path / "plots" / "frontier.svg").write_text("precious")
    (tmp_path / "taken").write_text("precious")
    for flag, path, words in (
        ("html", "taken", "already exists"),
        ("markdown", "taken", "already exists"),
        ("edges", "taken", "already exists"),
        ("plots", "plots", "frontier.svg: already exists"),
        ("plots", "taken", "a folder was expected"),
    ):
        config = EvalConfig(runs=[str(tiny_hier)], acts=["nothing.h5"], **{flag: str(tmp_path / path)})
        with pytest.raises(FileError, match=words):
            evaluate.run(config)
    with pytest.raises(UsageError, match="its own path"):
        EvalConfig(runs=["a"], acts=["b"], html="x", markdown="x")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("hits-1", "hits-2"), "hits"),
        (("toys_1", "toys_2"), "toys"),
        (("hier-0", "hier-1"), "hier"),
        (("hier_s1", "hier_s2"), "hier"),
        (("hier-seed0", "hier-seed1"), "hier"),
        (("run.Seed-0", "run.Seed-1"), "run"),
        (("h_s1", "h_s2"), "h_s1…"),
        (("seed0", "seed1"), "seed0…"),
        (("first", "second"), "first…"),
    ],
)
def test_seeds_are_named_by_what_their_names_share(tiny_flat: Path, names: tuple[str, ...], expected: str) -> None:
    run = load_run(tiny_flat)
    assert new_group([Subject(name, run.model, None) for name in names], ()).name == expected


def test_a_baseline_of_other_l0_and_of_another_cache_is_named(tiny_hier: Path, tiny_acts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    train.run(
        TrainConfig(
            acts=[str(tiny_acts)], out=str(other), arch="batchtopk", widths=(128,), k=(9,), tokens=100_000, batch=512,
            buffer=16, device="cpu",
        )
    )  # fmt: skip
    header = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**header, "inputs": {"else.h5": "0" * 64}}))
    config = EvalConfig(
        runs=[str(tiny_hier)], baseline=[str(other)], acts=[str(tiny_acts)], controls=False, device="cpu"
    )
    report = evaluate.run(config)
    found = "; ".join(report["mismatches"]["other"])
    for words in ("wanted L0: 8 against 9", "measured L0: ", "trained on another cache"):
        assert words in found
    assert "latents" not in found and "parameters" not in found
    assert any("rows held out here may be among those it saw" in text for text in report["warnings"])
    assert "not matched" in tables(report)[0].title and found in doubts(report)[0]
