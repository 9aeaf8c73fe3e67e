"""``hiersae export-tree``: its numbers recounted, its contexts looked up, its selections, formats and refusals."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import mutual_info_score

from hiersae_cli.config.export_tree import TREE_FORMATS, ExportTreeConfig
from hiersae_cli.errors import FileError, HierSAEError
from hiersae_cli.formats.activations import HELD_OUT, Activations
from hiersae_cli.formats.run import RunFolder, load_run
from hiersae_cli.formats.tree import Tree, load_tree
from hiersae_cli.host.model import Host
from hiersae_cli.levels import Levels
from hiersae_cli.metrics.firings import TopFirings
from hiersae_cli.workflows.common.rows import spread_blocks
from hiersae_cli.workflows.tree.run import run
from tests import caches
from tests.fixtures_chain import save_host
from tests.helpers import hiersae


def export(run_folder: Path, acts: Path, out: Path, **flags: Any) -> tuple[dict[str, Any], Tree]:
    flags = {"batch": 1000, "device": "cpu", **flags}
    result = run(ExportTreeConfig(run=str(run_folder), acts=[str(acts)], out=str(out), **flags))
    return result, load_tree(out)


@pytest.fixture(scope="module")
def whole(
    tiny_hier: Path, tiny_acts: Path, tiny_host: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """The tree with its evidence, and what it is to be compared with: every row's code, computed at once."""
    result, tree = export(
        tiny_hier, tiny_acts, tmp_path_factory.mktemp("tree") / "tree.json", model=str(tiny_host), context_tokens=6
    )
    trained = load_run(tiny_hier)
    with Activations(tiny_acts) as acts, torch.inference_mode():
        code = trained.model.encode(acts.read(trained.module).float()).numpy()
        columns = {name: acts.column(name) for name in ("tokens", "document", "position", "split")}
        names = acts.document_names()
    return SimpleNamespace(result=result, tree=tree, code=code, model=trained.model, names=names, **columns)


@pytest.fixture(scope="module")
def held_out(tiny_acts: Path) -> torch.Tensor:
    with Activations(tiny_acts) as acts:
        module = acts.modules[0]
        return acts.read(module)[torch.from_numpy(acts.usable(module, HELD_OUT))].float()


def index(model: Any, node: Any) -> int:
    return sum(model.widths[: node.level]) + node.latent


def test_statistics_equal_a_recount(whole: SimpleNamespace):
    fired = whole.code[whole.split == HELD_OUT] > 0
    parent_F = whole.model.parent_F.tolist()
    edges = 0
    for node in whole.tree.nodes:
        own, found = fired[:, index(whole.model, node)], node.statistics
        active = whole.code[whole.split == HELD_OUT][:, index(whole.model, node)]
        assert (found["n_rows"], found["n_active"]) == (len(own), own.sum())
        assert found["rate"] == pytest.approx(own.mean())
        assert found["dead"] is (not own.any())
        assert found["mean_activation"] == (pytest.approx(active[own].mean(), rel=1e-4) if own.any() else None)
        parent = parent_F[index(whole.model, node)]
        assert node.parent == (None if parent < 0 else f"a{parent}")
        if node.parent is None:
            assert "mi_bits" not in found
            continue
        edges += 1
        above = fired[:, parent]
        assert (found["n_parent"], found["n_both"]) == (above.sum(), (above & own).sum())
        cells = len({*zip(above.tolist(), own.tolist(), strict=True)})
        correction = (len({*own.tolist()}) + len({*above.tolist()}) - cells - 1) / (2 * len(own) * np.log(2))
        assert found["mi_bits"] == pytest.approx(mutual_info_score(above, own) / np.log(2) + correction, abs=1e-9)
        assert found["p_parent_given_child"] == (pytest.approx((above & own).sum() / own.sum()) if own.any() else None)
    assert edges == whole.result["edges"] > 20
    assert whole.result["dead"] == sum(node.statistics["dead"] for node in whole.tree.nodes)


def test_three_levels(tiny_deep: Path, tiny_acts: Path, held_out: torch.Tensor, tmp_path: Path):
    result, tree = export(tiny_deep, tiny_acts, tmp_path / "tree.json", contexts=1)
    model: Any = load_run(tiny_deep).model
    fired = model.encode(held_out) > 0
    ids = [node.id for node in tree.nodes]
    assert ids == Levels((8, 24, 96)).ids
    for node, parent in zip(tree.nodes, model.parent_F.tolist(), strict=True):
        assert node.parent == (ids[parent] if parent >= 0 else None)
        if parent >= 0:
            both = fired[:, index(model, node)] & fired[:, parent]
            assert node.statistics["n_both"] == both.sum()
            assert "mi_bits_soft" not in node.statistics
    assert {(tree[node.parent].level, node.level) for node in tree.nodes if node.parent} == {(0, 1), (1, 2)}
    assert result["edges"] == (model.parent_F >= 0).sum()
    # A node in the middle, with what is below it.
    middle = next(node for node in tree.nodes if node.level == 1 and node.parent and tree.children(node.id))
    _, part = export(tiny_deep, tiny_acts, tmp_path / "part.json", root=middle.id, contexts=0)
    assert [node.id for node in part.nodes] == [node.id for node in tree.subtree(middle.id)]
    assert part.nodes[0].parent is None and {node.level for node in part.nodes} == {1, 2}
    # Ancestors of a kept node are kept, descendants of one left out are not.
    _, few = export(tiny_deep, tiny_acts, tmp_path / "few.json", max_children=1, contexts=0)
    assert all(len(few.children(node.id)) <= 1 for node in few.nodes) and len(few) < len(tree)
    for kind in TREE_FORMATS:
        out = tmp_path / f"deep.{kind}"
        run(ExportTreeConfig(run=str(tiny_deep), acts=[str(tiny_acts)], out=str(out), contexts=0, device="cpu"))
        assert all(re.search(rf"\b{re.escape(id)}\b", out.read_text()) for id in ids)
    leaf = next(node for node in tree.nodes if node.level == 2 and node.parent and tree[node.parent].parent)
    newick = (tmp_path / "deep.nwk").read_text()
    places = [newick.index(f"'{id} ") for id in (leaf.id, leaf.parent, tree[leaf.parent].parent)]
    assert places == sorted(places)


def test_edges_of_a_hardened_tree_are_measured_on_soft_firing_too(
    tiny_hard: Path, tiny_acts: Path, held_out: torch.Tensor, tmp_path: Path
):
    result, tree = export(tiny_hard, tiny_acts, tmp_path / "tree.json", contexts=0)
    model: Any = load_run(tiny_hard).model
    hard, soft = (model.encode(held_out, hard=hard) > 0 for hard in (True, False))
    known = 0
    for node, parent in zip(tree.nodes, model.parent_F.tolist(), strict=True):
        own = index(model, node)
        assert node.statistics["n_active"] == hard[:, own].sum()
        if parent < 0:
            assert "lift_soft" not in node.statistics
        elif hard[:, own].any():
            assert node.statistics["p_parent_given_child"] == 1
            share = soft[soft[:, own], parent].float().mean().item()
            assert node.statistics["p_parent_given_child_soft"] == (pytest.approx(share) if share >= 0 else None)
            known += share < 1
    assert known > 5 and tree.header["run"]["hard"]
    assert result["mi_over_max_mean"] < 0.9
    run(ExportTreeConfig(run=str(tiny_hard), acts=[str(tiny_acts)], out=str(tmp_path / "tree.csv"), device="cpu"))
    assert ",lift,lift_soft,mi_bits_soft," in (tmp_path / "tree.csv").read_text().partition("\n")[0]


def test_contexts_are_the_strongest_firings_one_a_window(whole: SimpleNamespace):
    window = np.cumsum(whole.position == 0) - 1
    compared = 0
    for node in whole.tree.nodes:
        own = whole.code[:, index(whole.model, node)]
        best = np.zeros(window[-1] + 1, np.float32)
        np.maximum.at(best, window, own)
        expected = np.sort(best[best > 0])[::-1][:5]
        contexts = node.evidence["contexts"]
        assert [c["activation"] for c in contexts] == pytest.approx(expected.tolist(), rel=1e-4)
        assert len({window[c["row"]] for c in contexts}) == len(contexts)
        compared += len(contexts)
    assert compared > 200


def test_contexts_are_the_rows_around_in_the_same_window(whole: SimpleNamespace, tiny_host: Path):
    host = Host.load(str(tiny_host), torch.device("cpu"))
    at_an_edge = 0
    for node in whole.tree.nodes:
        for context in node.evidence["contexts"]:
            row = context["row"]
            first, last = row - len(context["before"]), row + len(context["after"])
            assert (whole.document[row], whole.position[row]) == (context["document"], context["position"])
            assert whole.names[context["document"]] == context["document_name"]
            assert context["held_out"] == (whole.split[row] == HELD_OUT)
            text = "".join([*context["before"], context["token"], *context["after"]])
            assert text == host.tokenizer.decode(whole.tokens[first : last + 1])
            own = whole.code[first : last + 1, index(whole.model, node)]
            assert context["activations"] == pytest.approx(own.tolist(), rel=1e-3, abs=1e-4)
            assert context["activations"][len(context["before"])] == context["activation"]
            # As many as asked for, or up to the window's end: 64 tokens, fewer where a document ends.
            assert len(context["before"]) == min(6, context["position"])
            assert len(context["after"]) == 6 or last + 1 == len(whole.position) or whole.position[last + 1] == 0
            at_an_edge += len(context["before"]) < 6
    assert at_an_edge


def test_promoted_tokens_are_those_of_the_unembedding(whole: SimpleNamespace, tiny_host: Path):
    host = Host.load(str(tiny_host), torch.device("cpu"))
    logits = host.direct_logits(whole.model.W_dec_FD.detach())
    for node in whole.tree.nodes[::9]:
        own = logits[index(whole.model, node)]
        for which, order in (("promoted", own.argsort(descending=True)), ("suppressed", own.argsort())):
            found = node.evidence[which]
            assert len(found) == 10
            assert [item["logit"] for item in found] == pytest.approx(own[order[:10]].tolist(), rel=1e-4, abs=1e-6)
            assert [item["token"] for item in found] == [host.tokenizer.decode([item["id"]]) for item in found]


def test_the_batch_changes_nothing_but_rounding(
    whole: SimpleNamespace, tiny_hier: Path, tiny_acts: Path, tmp_path: Path
):
    _, tree = export(tiny_hier, tiny_acts, tmp_path / "tree.json", batch=177, context_tokens=0)
    for node in tree.nodes:
        other = whole.tree[node.id]
        assert node.statistics["n_active"] == pytest.approx(other.statistics["n_active"], abs=1)
        assert [c["activation"] for c in node.evidence["contexts"]] == pytest.approx(
            [c["activation"] for c in other.evidence["contexts"]], rel=1e-4
        )
        # Without a host, tokens are their ids.
        assert all(c["token"] == whole.tokens[c["row"]] and not c["before"] for c in node.evidence["contexts"])
        assert "promoted" not in node.evidence


def test_a_flat_run_has_only_roots(tiny_flat: Path, tiny_acts: Path, tmp_path: Path):
    result, tree = export(tiny_flat, tiny_acts, tmp_path / "tree.json")
    assert result["edges"] == result["parents"] == 0 and result["roots"] == len(tree) == 128
    assert result["mi_over_max_mean"] is None


def test_min_rate_keeps_ancestors(whole: SimpleNamespace, tiny_hier: Path, tiny_acts: Path, tmp_path: Path):
    rates = sorted(node.statistics["rate"] for node in whole.tree.nodes if node.level == 1)
    least = rates[-10]
    _, tree = export(tiny_hier, tiny_acts, tmp_path / "tree.json", min_rate=least, contexts=0)
    frequent = {node.id for node in whole.tree.nodes if node.statistics["rate"] >= least}
    needed = {whole.tree[id].parent for id in frequent} - {None}
    assert {node.id for node in tree.nodes} == frequent | needed


def test_max_children_keeps_those_with_the_most_information(
    whole: SimpleNamespace, tiny_hier: Path, tiny_acts: Path, tmp_path: Path
):
    result, tree = export(tiny_hier, tiny_acts, tmp_path / "tree.json", max_children=2, contexts=0)
    assert result["roots"] == len(whole.tree.roots())
    for node in whole.tree.roots():
        bits = sorted((child.statistics["mi_bits"] for child in whole.tree.children(node.id)), reverse=True)
        assert sorted((c.statistics["mi_bits"] for c in tree.children(node.id)), reverse=True) == bits[:2]


def test_root_is_one_subtree(whole: SimpleNamespace, tiny_hier: Path, tiny_acts: Path, tmp_path: Path):
    parent = max(whole.tree.roots(), key=lambda node: len(whole.tree.children(node.id)))
    _, tree = export(tiny_hier, tiny_acts, tmp_path / "tree.json", root=parent.id, contexts=0)
    assert [node.id for node in tree.nodes] == [node.id for node in whole.tree.subtree(parent.id)]
    child = whole.tree.children(parent.id)[0]
    _, tree = export(tiny_hier, tiny_acts, tmp_path / "child.json", root=child.id, contexts=0, min_rate=1.0)
    assert [(node.id, node.parent) for node in tree.nodes] == [(child.id, None)]
    assert "mi_bits" not in tree.nodes[0].statistics


def test_a_part_of_the_rows_is_spread_over_the_cache(tiny_hier: Path, tiny_acts: Path, tmp_path: Path):
    result, tree = export(tiny_hier, tiny_acts, tmp_path / "tree.json", tokens=5_000, contexts=3)
    assert 4_500 < result["rows"] <= 5_000 and 0 < result["rows_held_out"] < result["rows"]
    assert tree.header["sample"]["rows"] == result["rows"]
    rows = [context["row"] for node in tree.nodes for context in node.evidence["contexts"]]
    assert min(rows) < 2_000 and max(rows) > 18_000


@pytest.mark.parametrize(("rows", "wanted"), [(100, 100), (100, 99), (100, 7), (10**6, 123_456), (5, 1)])
def test_blocks_do_not_overlap(rows: int, wanted: int):
    blocks = spread_blocks(rows, wanted)
    assert sum(stop - start for start, stop in blocks) <= wanted
    assert sum(stop - start for start, stop in blocks) > 0.9 * wanted - 1
    edges = [edge for block in blocks for edge in block]
    assert edges == sorted(edges) and edges[0] == 0 and edges[-1] <= rows


def test_top_firings_equal_sorting_everything():
    random = np.random.default_rng(0)
    count, latents, kept = 4000, 12, 3
    latent, row = random.integers(0, latents, count), np.sort(random.integers(0, 5000, count))
    # Few values, so that ties are common.
    value, window = random.integers(1, 40, count).astype(np.float32), row // 50
    top = TopFirings(latents, kept)
    for part in np.array_split(np.arange(count), 37):
        top.add(latent[part], value[part], row[part], window[part])
    for number in range(latents):
        best: dict[int, tuple[float, int]] = {}
        for at in np.flatnonzero(latent == number):
            entry = (-float(value[at]), int(row[at]))
            best[int(window[at])] = min(best.get(int(window[at]), entry), entry)
        expected = sorted(best.values())[:kept]
        assert [(-v, r) for v, r in expected] == list(
            zip(top.value_FK[number].tolist(), top.row_FK[number].tolist(), strict=True)
        )


def test_command_line_writes_every_format(tiny_hier: Path, tiny_acts: Path, tiny_host: Path, tmp_path: Path):
    out = tmp_path / "deep" / "tree.json"
    done = hiersae("export-tree", tiny_hier, "--acts", tiny_acts, "--model", tiny_host, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "Parents with the most children" in done.stdout and "I/I_max" in done.stdout
    assert str(out) in done.stderr and f"next: hiersae info {out}" in done.stderr
    assert re.search(r"[\d,]+ dead: they never fire in [\d,]+ held-out rows", done.stderr)
    done = hiersae("export-tree", tiny_hier, "--acts", tiny_acts, "-o", tmp_path / "tree.csv", "--json")
    assert json.loads(done.stdout)["format"] == "csv" and "next" not in done.stderr


def test_every_format_is_written(whole: SimpleNamespace, tiny_hier: Path, tiny_acts: Path, tmp_path: Path):
    for kind in TREE_FORMATS:
        out = tmp_path / f"tree.{kind}"
        flags = {"run": str(tiny_hier), "acts": [str(tiny_acts)], "contexts": 1, "device": "cpu"}
        assert run(ExportTreeConfig(out=str(out), **flags))["format"] == kind
        assert all(re.search(rf"\b{re.escape(node.id)}\b", out.read_text()) for node in whole.tree.nodes)


def test_refusals_are_one_sentence_and_write_nothing(tiny_hier: Path, tiny_acts: Path, tiny_host: Path, tmp_path: Path):
    other_host = save_host(tmp_path / "other", (tiny_host / "tokenizer.json").read_text(), width=32, seed=1)
    module = load_run(tiny_hier).module
    other_module = caches.write(tmp_path / "random.h5", caches.content(70))
    wrong_width = caches.write(tmp_path / "width.h5", caches.content(70, widths={module: 7}))
    other_model = caches.write(tmp_path / "model.h5", caches.content(70, widths={module: 32}))
    taken = tmp_path / "taken.json"
    taken.write_text("mine")
    out = tmp_path / "out" / "tree.json"
    before = sorted(tmp_path.rglob("*"))
    for flags, code, message in (
        ({"min_rate": 1.0}, 2, "leaves no latent; the highest rate is 0."),
        ({"min_rate": 1.5}, 2, "between 0 and 1"),
        ({"out": str(out.with_suffix(".pdf"))}, 2, "json, graphml, dot, nwk, csv"),
        ({"out": str(tmp_path), "format": "csv", "overwrite": True}, 1, "this is a folder"),
        ({"model": str(tmp_path / "none")}, 2, "no such folder"),
        ({"model": str(other_host)}, 1, f"not the model that {tiny_hier} was trained on"),
        ({"tokens": 1}, 2, "none of the rows looked at is held out"),
        ({"acts": []}, 2, "--acts"),
        ({"acts": [str(other_module)]}, 1, f"holds h.0, h.1; {tiny_hier} was trained on {module}"),
        ({"acts": [str(wrong_width)]}, 1, f"{module} has width 7; {tiny_hier} was trained on width 32"),
        ({"acts": [str(tiny_acts), str(other_model)]}, 1, f"{other_model}: activations of host (a); {tiny_hier}"),
        ({"acts": [str(tmp_path / "none.h5")]}, 2, "no such file"),
        ({"run": str(tmp_path / "none")}, 2, "no such run folder"),
    ):
        with pytest.raises(HierSAEError) as caught:
            run(ExportTreeConfig(**{"run": str(tiny_hier), "acts": [str(tiny_acts)], "out": str(out), **flags}))
        assert caught.value.exit_code == code and message in caught.value.message
        assert "\n" not in caught.value.message
    base = ("export-tree", tiny_hier, "--acts", tiny_acts)
    for args, code, message in (
        (("--root", "a99", "-o", out), 2, "It has a0 to a15, b0 to b111."),
        (("-o", taken), 1, "already exists"),
    ):
        done = hiersae(*base, *args)
        assert done.returncode == code, (args, done.stderr)
        assert message in done.stderr and "Traceback" not in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 2
    assert sorted(tmp_path.rglob("*")) == before and taken.read_text() == "mine"


def test_an_unfinished_run_is_announced(
    tiny_hier: Path, tiny_acts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(tiny_hier, folder.path)
    folder.write_model(load_file(folder.model_file), 40, 195)
    _, tree = export(folder.path, tiny_acts, tmp_path / "tree.json", contexts=0)
    assert "training not ended (step 40 of 195)" in capsys.readouterr().err
    assert (tree.header["run"]["step"], tree.header["run"]["steps"]) == (40, 195)


def test_overwrite_keeps_the_old_tree_until_the_new_one_is_there(tiny_hier: Path, tiny_acts: Path, tmp_path: Path):
    out = tmp_path / "tree.json"
    out.write_text("old")
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_hier, damaged)
    (damaged / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(FileError, match="damaged"):
        export(damaged, tiny_acts, out, overwrite=True)
    assert out.read_text() == "old"
    assert len(export(tiny_hier, tiny_acts, out, overwrite=True, contexts=0)[1]) == 128
