"""What the index answers to pages, against dense codes, scikit-learn and brute force."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from sklearn.metrics import f1_score, mutual_info_score
from sklearn.metrics.pairwise import cosine_similarity

from hiersae_cli.browse import model as feature_model
from hiersae_cli.browse import tree_model
from hiersae_cli.browse.family import TOGETHER
from hiersae_cli.browse.index import Index
from hiersae_cli.browse.model import Context
from hiersae_cli.browse.neuronpedia_rows import feature_row
from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.activations import HELD_OUT, Activations
from hiersae_cli.formats.names import name_of
from hiersae_cli.formats.run import load_run
from hiersae_cli.formats.tree import load_tree
from hiersae_cli.levels import latent_id
from hiersae_cli.metrics.fates import fate_of
from hiersae_cli.workflows.dashboard.neuronpedia import _layer
from hiersae_cli.workflows.dashboard.run import open_dashboard
from tests.helpers import hiersae

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def index(tiny_dashboard: DashboardConfig) -> Index:
    return open_dashboard(tiny_dashboard)[0]


def dense(index: Index, name: str = "run") -> Array:
    """The activations of every row as the index has them, (R, F)."""
    lists = index.file.lists[name]
    code_RF = np.zeros((lists.rows, lists.latents), np.float32)
    for latent in range(lists.latents):
        row_n, value_n = lists.of(latent)
        code_RF[row_n, latent] = value_n
    return code_RF


@pytest.fixture(scope="module")
def code_RF(index: Index) -> Array:
    return dense(index)


@pytest.fixture(scope="module")
def held_out_R(index: Index) -> Array:
    found: Array = index.file.columns["split"] == HELD_OUT
    return found


@pytest.fixture(scope="module")
def text(tiny_text: Path) -> str:
    return tiny_text.read_text()


def parents(index: Index) -> list[str]:
    overview, ids = index.overview(), index.ids()
    return [ids[place] for place in sorted({place for place in overview.parent if place >= 0})]


def children(index: Index, parent: str) -> list[int]:
    place = index.ids().index(parent)
    return [number for number, above in enumerate(index.overview().parent) if above == place]


def test_contexts_are_the_strongest_and_as_in_the_cache(index: Index, code_RF: Array, text: str):
    positions = index.file.columns["position"]
    for latent in (0, 7, 20, 90):
        page = index.feature(index.ids()[latent])
        values = [context.activation for context in page.top]
        assert values == sorted(values, reverse=True) and values[0] == pytest.approx(code_RF[:, latent].max(), rel=1e-5)
        windows = {context.row - context.position for context in page.top}
        assert len(windows) == len(page.top) == min(20, len(np.unique(np.flatnonzero(code_RF[:, latent]) // 64)))
        # No window has a stronger firing than the one shown of it, and none left out is stronger than the last.
        best_W = code_RF[:, latent].reshape(-1, 64).max(1) if len(code_RF) % 64 == 0 else None
        if best_W is not None:
            assert np.sort(best_W)[::-1][: len(values)] == pytest.approx(values, rel=1e-5)
        for context in page.top:
            first = context.row - context.focus
            assert "".join(context.tokens) == text[first : first + len(context.tokens)]
            shown = code_RF[first : first + len(context.tokens), latent]
            assert context.activations == pytest.approx(shown.tolist(), rel=1e-5)
            assert context.position == positions[context.row] >= context.focus
            assert first % 64 + len(context.tokens) <= 64  # never beyond its window


def test_figures_of_a_page_are_those_of_its_firings(index: Index, code_RF: Array):
    id = index.ids()[30]
    page, values = index.feature(id), code_RF[:, 30][code_RF[:, 30] > 0]
    assert (page.firings, page.rows, page.rate) == (len(values), 20_000, len(values) / 20_000)
    assert page.max_activation == pytest.approx(values.max(), rel=1e-5)
    assert page.mean_activation == pytest.approx(values.mean(), rel=1e-5)
    assert page.histogram is not None and sum(page.histogram.counts) == len(values)
    assert len(page.histogram.edges) == len(page.histogram.counts) + 1
    assert sum(decile.count for decile in page.deciles) == len(values) and len(page.deciles) == 10
    cuts = np.quantile(values, np.linspace(1, 0, 11), method="nearest")
    for number, decile in enumerate(page.deciles):
        assert decile.low <= decile.high and abs(decile.count - len(values) / 10) < 1
        assert decile.high == pytest.approx(cuts[number], rel=0.1)
        for context in decile.contexts:
            assert decile.low <= context.activation <= decile.high
    assert index.feature(id) == page  # what is drawn is drawn by the seed


def test_tokens_of_a_page_are_those_of_the_largest_divergence(index: Index, code_RF: Array, text: str):
    named = 0
    for latent in range(0, code_RF.shape[1], 7):
        page = index.feature(index.ids()[latent])
        mass = Counter[str]()
        for row in np.flatnonzero(code_RF[:, latent]).tolist():
            mass[text[row]] += float(code_RF[row, latent])
        share = {token: value / sum(mass.values()) for token, value in mass.items()}
        weight = {token: q * np.log(q / (text.count(token) / len(text))) for token, q in share.items()}
        least = max(1e-6, 0.05 * max(weight.values(), default=0))
        ordered = sorted(weight, key=weight.__getitem__, reverse=True)
        expected = [token for token in ordered if weight[token] > least][:5]
        assert [token.text for token in page.tokens] == expected
        assert [token.value for token in page.tokens] == pytest.approx([share[token] for token in expected], rel=1e-3)
        assert page.hint == name_of(expected)
        named += bool(page.hint)
    assert named > 10


def test_nearest_are_those_of_the_largest_cosine(index: Index, tiny_dashboard: DashboardConfig):
    decoder_FD = load_run(tiny_dashboard.run).model.W_dec_FD.detach().numpy()
    cosine_FF = cosine_similarity(decoder_FD)
    np.fill_diagonal(cosine_FF, -2)
    for latent in (0, 40):
        page = index.feature(index.ids()[latent])
        assert [one.cosine for one in page.nearest] == pytest.approx(np.sort(cosine_FF[latent])[::-1][:8], abs=1e-5)
        assert page.nearest[0].id == index.ids()[int(cosine_FF[latent].argmax())]


def test_children_divide_their_parents_firing(index: Index, code_RF: Array, held_out_R: Array):
    for parent in parents(index)[:4]:
        view, below = index.feature(parent).as_parent, children(index, parent)
        fires_R, fire_RC = code_RF[:, index.ids().index(parent)] > 0, code_RF[:, below] > 0
        assert view is not None and {child.node.id for child in view.children} == {index.ids()[c] for c in below}
        assert view.alone == pytest.approx((fires_R & ~fire_RC.any(1)).sum() / fires_R.sum(), rel=1e-5)
        shares = [child.share for child in view.children]
        assert shares == sorted(shares, reverse=True)
        for child in view.children:
            place = below.index(index.ids().index(child.node.id))
            inside_R = fires_R & fire_RC[:, place]
            assert child.share == pytest.approx(inside_R.sum() / fires_R.sum(), rel=1e-5, abs=1e-9)
            if inside_R.any():
                assert child.overlap == pytest.approx((fire_RC[inside_R].sum(1) > 1).mean(), rel=1e-5)
            child_R = fire_RC[:, place] & held_out_R
            if child_R.any():
                assert child.edge.inside == pytest.approx((child_R & fires_R).sum() / child_R.sum(), rel=1e-5)
                assert child.edge.times == pytest.approx(child.edge.lift, rel=1e-4)
        children_R = (fire_RC & held_out_R[:, None]).sum(1)
        assert view.together.n_child == children_R.sum() and view.together.n_both == children_R[fires_R].sum()
        for context in view.child_contexts:
            assert fires_R[context.row] and fire_RC[context.row].any()
        for context in view.alone_contexts:
            assert fires_R[context.row] and not fire_RC[context.row].any()


def test_contexts_of_later_children_are_those_of_their_pages(index: Index):
    parent = max(parents(index), key=lambda id: len(children(index, id)))
    view = index.feature(parent).as_parent
    assert view is not None
    later = index.child_contexts(parent, 0)
    assert [(node, contexts) for node, contexts in later] == [
        (child.node, child.contexts) for child in view.children[:TOGETHER]
    ]
    assert all(contexts == index.feature(node.id).top[:3] for node, contexts in later)
    assert index.child_contexts(parent, 99) == []


def test_passages_are_the_whole_documents(index: Index, code_RF: Array, text: str):
    passages = [index.passage(number, "b4") for number in range(index.passages())]
    tokens = [token for passage in passages for _, tokens, _ in passage.stretches for token in tokens]
    assert "".join(tokens) == text[: len(tokens)] and len(tokens) == len(code_RF)
    values = [value for passage in passages for _, _, values in passage.stretches for value in values]
    assert values == pytest.approx(code_RF[:, index.ids().index("b4")].tolist(), rel=1e-5)
    for context in index.feature("b4").top:
        number, place = context.source
        stretches = index.passage(number, "b4").stretches
        first, tokens, values = next(one for one in reversed(stretches) if one[0] <= place)
        assert tokens[place - first] == context.tokens[context.focus]
        assert values[place - first] == context.activation
    with pytest.raises(KeyError):
        index.passage(index.passages())


def test_an_example_is_a_text_of_the_corpus_with_what_fires_there(index: Index, code_RF: Array, text: str):
    example = index.example()
    assert example is not None and 1 <= len(example.tokens) <= 48
    row = text.index("".join(example.tokens))
    for at, of_token in enumerate(example.active):
        expected = {index.ids()[latent]: code_RF[row + at, latent] for latent in np.flatnonzero(code_RF[row + at])}
        assert dict(of_token) == pytest.approx(expected, rel=1e-5)
    for id, most in example.most.items():
        assert most == pytest.approx(code_RF[:, index.ids().index(id)].max(), rel=1e-5)
    assert {id for of_token in example.active for id, _ in of_token} <= set(example.nodes) == set(example.most)


def test_evidence_of_a_child_is_of_held_out_rows(index: Index, code_RF: Array, held_out_R: Array):
    overview, fires = index.overview(), code_RF[held_out_R] > 0
    seen = 0
    for latent in range(16, 128):
        view = index.feature(index.ids()[latent]).as_child
        assert view is not None
        if view.edge is None or not fires[:, latent].any():
            continue
        parent = overview.parent[latent]
        assert view.edge.parent == index.ids()[parent] and not view.edge.soft
        assert (view.edge.n_rows, view.edge.n_both) == (
            held_out_R.sum(),
            (fires[:, latent] & fires[:, parent]).sum(),
        )
        bits = mutual_info_score(fires[:, parent], fires[:, latent]) / np.log(2)
        # scikit-learn's is not corrected for its bias, which is 1 / (2 N ln 2) for a table without empty cells.
        assert view.edge.mi_bits == pytest.approx(bits, abs=1.01 / (2 * held_out_R.sum() * np.log(2)))
        if view.edge.mi_bits and view.edge.max_mi_bits:
            share = 0 if view.edge.apart else np.clip(view.edge.mi_bits / view.edge.max_mi_bits, 0, 1)
            assert view.edge.mi_over_max == pytest.approx(share, rel=1e-4)
        for context in view.with_parent:
            assert code_RF[context.row, parent] > 0
        for context in view.without_parent:
            assert code_RF[context.row, parent] == 0 and code_RF[context.row, latent] > 0
        for edge in view.next_best:
            other = index.ids().index(edge.parent)
            assert other < 16 and other != parent
            assert edge.n_both == (fires[:, latent] & fires[:, other]).sum()
            assert edge.n_parent == fires[:, other].sum()
        found = [edge.mi_bits or 0 for edge in view.next_best]
        assert found == sorted(found, reverse=True)
        # None of the others that make it likelier tells more of it.
        others = [other for other in range(16) if other != parent and (edge_lift(fires, other, latent) > 1)]
        most = max((mutual_info_score(fires[:, other], fires[:, latent]) / np.log(2) for other in others), default=0)
        assert max(found, default=0) == pytest.approx(most, abs=2e-3)
        seen += 1
    assert seen > 20


def edge_lift(fires: Array, parent: int, child: int) -> float:
    both, of_both = fires[:, parent] & fires[:, child], fires[:, parent].mean() * fires[:, child].mean()
    return float(both.mean() / of_both) if of_both else 0.0


def test_the_overview_has_every_node_and_the_baseline_s_fates(index: Index, tiny_dashboard: DashboardConfig):
    overview = index.overview()
    columns = ("level", "latent", "parent", "label", "hint", "rate", "mi_bits", "dead", "root_child", "fvu_increase")
    assert all(len(getattr(overview, name)) == 128 for name in columns)
    assert [latent_id(*place) for place in zip(overview.level, overview.latent, strict=True)] == index.ids()
    for place, parent in enumerate(overview.parent):
        assert parent < place and overview.root_child[place] == (overview.level[place] > 0 and parent < 0)
        assert (overview.mi_bits[place] is None) == (parent < 0)
        assert overview.dead[place] == (overview.rate[place] == 0)
    assert sum(overview.fates.values()) == index.baseline_latents() == 128
    assert (overview.rows, overview.held_out_rows, overview.documents) == (20_000, 4096, 40)
    assert overview.tokens_are_text and overview.can_encode and overview.baseline == Path(tiny_dashboard.baseline).name


def test_fates_of_known_firings():
    rows = 1000

    def fate(theirs: list[int], ours: list[list[int]]) -> Any:
        fire_RF = np.zeros((rows, len(ours)), bool)
        for latent, fired in enumerate(ours):
            fire_RF[fired, latent] = True
        place_m, latent_m = np.nonzero(fire_RF[theirs])
        return fate_of(place_m, latent_m, len(theirs), len(theirs), fire_RF.sum(0), rows)

    hundred = list(range(100))
    dense_latent = list(range(0, rows, 2)) + list(range(1, rows, 10))
    kept = fate(hundred, [list(range(5, 105)), dense_latent])
    assert (kept.verdict, kept.part_C[0], kept.covered) == ("kept", 0, 0.95)
    split = fate(hundred, [list(range(40)), list(range(40, 80)), list(range(80, 83)), dense_latent])
    assert split.verdict == "split" and split.covered == 0.8
    assert split.part_C[split.counted_C].tolist() == [0, 1]
    # What fires everywhere contains everything, and tells nothing.
    assert fate(hundred, [list(range(rows))]).verdict == "none"
    assert fate(hundred, [dense_latent]).verdict == "none"
    absorbed = fate(hundred, [list(range(350)), list(range(20))])
    assert (absorbed.verdict, absorbed.part_C[0], absorbed.covered) == ("absorbed", 0, 1.0)
    assert absorbed.within_C[0] == pytest.approx(100 / 350)
    assert fate([], [hundred]).verdict == "dead"
    assert fate(hundred, [[500]]).verdict == "none"


def test_matches_of_the_baseline_are_counted_on_the_same_rows(index: Index, code_RF: Array):
    theirs_RG = dense(index, "baseline") > 0
    for latent in (3, 50):
        fires_R = code_RF[:, latent] > 0
        page = index.feature(index.ids()[latent])
        cosines = [match.cosine for match in page.baseline]
        assert 3 <= len(cosines) <= 6 and cosines == sorted(cosines, reverse=True)
        for match in page.baseline:
            both = (fires_R & theirs_RG[:, match.latent]).sum()
            assert match.both == both and match.ours_in_theirs == pytest.approx(both / fires_R.sum(), rel=1e-5)
            assert all(theirs_RG[context.row, match.latent] for context in match.contexts)
        dice_G = 2 * (fires_R[:, None] & theirs_RG).sum(0) / (fires_R.sum() + theirs_RG.sum(0))
        assert int(dice_G.argmax()) in {match.latent for match in page.baseline}


def test_baseline_pages_and_fates_agree_with_firings(index: Index, code_RF: Array):
    theirs_RG, ours_RF = dense(index, "baseline") > 0, code_RF > 0  # fates are told from 4,096 firings at most
    for verdict in ("kept", "split", "absorbed"):
        for page in index.fates(verdict)[:5]:
            assert page.fate.verdict == verdict and not page.contexts
            fires_R, counted_R = theirs_RG[:, page.latent], np.zeros(len(ours_RF), bool)
            for part in page.fate.parts:
                ours_R = ours_RF[:, index.ids().index(part.node.id)]
                assert part.share == pytest.approx((fires_R & ours_R).sum() / fires_R.sum(), abs=0.03)
                scaled = 0.03 * max(1.0, fires_R.sum() / ours_R.sum())  # the share's error, in shares of ours
                assert part.within == pytest.approx((fires_R & ours_R).sum() / ours_R.sum(), abs=scaled)
                if part.counted:
                    counted_R |= ours_R
            if sum(part.counted for part in page.fate.parts) < 8:
                assert page.fate.covered == pytest.approx((fires_R & counted_R).sum() / fires_R.sum(), abs=0.03)
    page = index.baseline(3)
    assert page.latent == 3 and page.contexts and page.promoted and page.nearest
    with pytest.raises(KeyError):
        index.baseline(128)
    with pytest.raises(KeyError):
        index.fates("lost")


def test_a_token_finds_the_features_that_tell_it(index: Index, code_RF: Array, text: str):
    is_token_R = np.array([character == "k" for character in text])
    found = index.search_token("k")
    assert found.occurrences == is_token_R.sum()
    scores_F = [f1_score(is_token_R, code_RF[:, latent] > 0) for latent in range(128)]
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    assert found.hits[0].score == pytest.approx(max(scores_F), rel=1e-5)
    for hit in found.hits[:10]:
        assert hit.score == pytest.approx(scores_F[index.ids().index(hit.node.id)], rel=1e-5)
    assert index.token_table()["k"][0] == found.hits[0].node.id


def test_a_text_of_several_tokens_is_found_where_it_stands(index: Index, code_RF: Array, text: str):
    found = index.search_token("king sees")
    # Windows and documents follow upon each other, but nothing stands across the border of a document.
    starts = [at for at in range(len(text)) if text.startswith("king sees", at) and at // 512 == (at + 8) // 512]
    assert found.occurrences == len(starts) > 0
    for hit in found.hits[:5]:
        fires_R = code_RF[:, index.ids().index(hit.node.id)] > 0
        inside = [fires_R[at : at + 9].any() for at in starts]
        assert hit.recall == pytest.approx(np.mean(inside), rel=1e-5)
        assert hit.precision == pytest.approx(
            sum(fires_R[at : at + 9].sum() for at in starts) / fires_R.sum(), rel=1e-5
        )
    assert index.search_token("no such text").hits == [] == index.search_token("  ").hits


def test_what_fires_on_a_text_is_what_the_cache_says(index: Index, code_RF: Array, text: str):
    found = index.encode_text(text[:64])
    assert "".join(found.tokens) == text[:64] and found.cut == 0
    for row, of_token in enumerate(found.active):
        expected = {index.ids()[latent]: code_RF[row, latent] for latent in np.flatnonzero(code_RF[row])}
        # Batches are other, and a firing at its threshold may come or go.
        close = {id: value for id, value in of_token if id in expected}
        assert len(close) >= len(expected) - 1 and len(of_token) <= len(expected) + 1
        assert all(value == pytest.approx(expected[id], rel=1e-3, abs=1e-4) for id, value in close.items())
        levels = [id[0] for id, _ in of_token]
        assert levels == sorted(levels)
    fires = {id for of_token in found.active for id, _ in of_token}
    above = {page.parent.id for page in map(index.feature, fires) if page.parent}
    assert fires | above == set(found.nodes)  # a child may fire without its parent
    longer = index.encode_text(text[:100])
    assert (len(longer.tokens), longer.cut) == (64, 36)
    with pytest.raises(UsageError, match="no text"):
        index.encode_text(" \n")
    with pytest.raises(FileError, match="the tokenizer lacks"):
        index.encode_text("日本")


def test_labels_are_found_and_shown(tiny_dashboard: DashboardConfig, tmp_path: Path):
    index = open_dashboard(tiny_dashboard)[0]
    try:
        label = index.set_label("a2", "names of <Rivers>", "Ada")
        assert label is not None and label.author == "Ada" and index.overview().label[2] == "names of <Rivers>"
        index.set_label("a2", "Rivers", "Grace")
        page = index.feature("a2")
        assert page.label is not None and page.label.text == "Rivers"
        assert [earlier.text for earlier in page.label_history] == ["names of <Rivers>"]
        assert [hit.node.id for hit in index.search_label("river")] == ["a2"]
        assert index.search_label("b5")[0].node.id == "b5" and index.search_label(" ") == []
        with pytest.raises(KeyError):
            index.set_label("b999", "x", "Ada")
        assert index.set_label("a2", "", "Ada") is None and index.labels() == {}
    finally:
        index.labels_file.unlink(missing_ok=True)


def test_answers_are_plain_values(index: Index):
    for page in (index.overview(), index.feature(index.ids()[0]), index.feature(index.ids()[60]), index.baseline(0)):
        json.dumps(pages_plain(page), allow_nan=False)


def pages_plain(value: Any) -> Any:
    """A page as JSON; fails where it holds anything but plain values."""
    if isinstance(value, (list, tuple)):
        return [pages_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: pages_plain(one) for key, one in value.items()}
    if type(value).__module__ in (feature_model.__name__, tree_model.__name__, "hiersae_cli.formats.labels"):
        return {name: pages_plain(getattr(value, name)) for name in get_type_hints(type(value))}
    assert type(value) in (str, int, float, bool, type(None)), type(value)
    return value


def test_feature_rows_have_every_field_and_stand_beside_their_tree(
    index: Index, code_RF: Array, tiny_dashboard: DashboardConfig, tmp_path: Path
):
    config, out = tiny_dashboard, tmp_path / "rows"
    flags = ["--acts", config.acts[0], "--baseline", config.baseline, "--model", config.model, "--device", "cpu"]
    done = hiersae("dashboard", config.run, *flags, "--neuronpedia", out, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["files"] == 1, done.stderr
    batch, tree = json.loads((out / "batch-0.json").read_text()), load_tree(out / "tree.json")
    assert (batch["layer"], batch["sae_set"], len(batch["features"])) == (1, "hier", 128)
    assert [node.id for node in tree.nodes] == index.ids()
    for row, node in zip(batch["features"], tree.nodes, strict=True):
        fires = code_RF[:, row["feature_index"]]
        assert node.id == index.ids()[row["feature_index"]]
        assert row["frac_nonzero"] == pytest.approx((fires > 0).mean(), rel=1e-5)
        assert sum(row["freq_hist_data_bar_heights"]) == (fires > 0).sum()
        assert sum(row["logits_hist_data_bar_heights"]) == len(load_vocabulary(config.model))
        assert len(row["pos_str"]) == len(row["pos_values"]) == 10 == len(row["neg_str"])
        assert row["pos_values"] == sorted(row["pos_values"], reverse=True)
        for shown in row["activations"]:
            assert len(shown["tokens"]) == len(shown["values"]) > shown["qualifying_token_index"] >= 0
            if shown["bin_contains"] != -1:
                assert shown["bin_min"] <= shown["values"][shown["qualifying_token_index"]] <= shown["bin_max"]
    row = batch["features"][20]
    for other, pearson in zip(row["correlated_features_indices"], row["correlated_features_pearson"], strict=True):
        assert pearson == pytest.approx(np.corrcoef(code_RF[:, 20], code_RF[:, other])[0, 1], rel=1e-4)
    again = hiersae("dashboard", config.run, *flags, "--neuronpedia", out)
    assert again.returncode == 1 and "--overwrite" in again.stderr
    (out / "mine.txt").write_text("keep")
    other = hiersae("dashboard", config.run, *flags, "--neuronpedia", out, "--overwrite")
    assert other.returncode == 1 and "mine.txt" in other.stderr and (out / "mine.txt").exists()
    without = hiersae("dashboard", config.run, "--acts", config.acts[0], "--neuronpedia", tmp_path / "x")
    assert without.returncode == 2 and "--model" in without.stderr


def load_vocabulary(host: str) -> dict[str, int]:
    from transformers import AutoTokenizer

    found: dict[str, int] = AutoTokenizer.from_pretrained(host).get_vocab()
    return found


def test_a_latent_that_never_fires_has_a_page_and_a_row(index: Index, code_RF: Array):
    silent = np.flatnonzero(~(code_RF > 0).any(0))
    assert len(silent), "the tiny run has dead latents"
    page = index.feature(index.ids()[int(silent[0])])
    assert page.dead and page.top == page.deciles == page.tokens == [] and page.histogram is None and page.hint == ""
    row = feature_row(index, int(silent[0]), None)
    assert row["activations"] == row["freq_hist_data_bar_values"] == row["correlated_features_indices"] == []


@pytest.mark.parametrize(("module", "layer"), [("transformer.h.2", 2), ("model.layers.11.mlp", 11), ("synth", 0)])
def test_the_layer_is_read_off_the_module(module: str, layer: int):
    assert _layer(module) == layer


def test_without_a_host_there_are_ids_and_no_encoding(tiny_dashboard: DashboardConfig, tmp_path: Path):
    config = replace(tiny_dashboard, model="", baseline="", index=str(tmp_path / "index.h5"))
    index = open_dashboard(config)[0]
    with Activations(config.acts[0]) as cache:
        token = int(cache.column("tokens")[0])
    overview = index.overview()
    assert not overview.tokens_are_text and not overview.can_encode and overview.fates == {} and not overview.baseline
    page = index.feature(index.ids()[0])
    assert page.promoted == [] and page.baseline == [] and index.fates("kept") == []
    assert index.search_token(f"[{token}]").hits
    with pytest.raises(UsageError, match="--model"):
        index.encode_text("a")
    assert isinstance(page.top[0], Context)
