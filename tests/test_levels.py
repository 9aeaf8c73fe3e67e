"""Ids of latents: the same latent for everybody who reads one, a spreadsheet too."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersae_cli.config.train import TrainConfig
from hiersae_cli.errors import UsageError
from hiersae_cli.formats.numbers import finite_or_none, rounded_or_none
from hiersae_cli.formats.tree import Node, Tree
from hiersae_cli.levels import MOST_LEVELS, NO_PARENT, Levels, current_id, latent_id, parse_id
from hiersae_cli.render.report_writers import edges_csv
from hiersae_cli.render.tree_writers import write_csv

places = st.tuples(st.integers(0, MOST_LEVELS - 1), st.integers(0, 10**6))


@given(places)
def test_an_id_says_level_and_number_and_is_never_a_number(place: tuple[int, int]):
    id = latent_id(*place)
    assert parse_id(id) == place and current_id(id) == id
    assert id[0].isalpha() and id[0] == "abcdefghijklmnopqrstuvwxyz"[place[0]] and int(id[1:]) == place[1]
    for read_number in (float, complex, int):
        with pytest.raises(ValueError, match=r"could not convert|malformed|invalid literal"):
            read_number(id)


@given(places)
def test_the_old_form_is_the_same_latent(place: tuple[int, int]):
    old = f"{place[0]}.{place[1]}"
    assert parse_id(old) == place and current_id(old) == latent_id(*place)


@pytest.mark.parametrize("text", ["", "a", "7", "a07", "A7", "aa7", "a-7", "a7 ", "0.07", "26.0", "1.2.3", "1e5"])
def test_other_texts_are_no_ids(text: str):
    assert current_id(text) == text and text not in Levels((10**6, 10**6))
    with pytest.raises(ValueError, match="is not the id of a latent, such as b480"):
        parse_id(text)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=MOST_LEVELS))
def test_levels_number_latents_through_from_the_coarsest(widths: list[int]):
    levels = Levels.of(widths)
    assert levels.latents == len(levels.ids) == len(set(levels.ids)) == sum(widths)
    assert [levels.latent(id) for id in levels.ids] == list(range(levels.latents))
    assert [latent_id(*levels.place(latent)) for latent in range(levels.latents)] == levels.ids
    for level, (part, width) in enumerate(zip(levels.slices, widths, strict=True)):
        assert levels.ids[part] == [latent_id(level, latent) for latent in range(width)]
        assert levels.level_F[part] == [level] * width
        assert latent_id(level, width) not in levels


def test_levels_say_which_ids_there_are():
    levels = Levels((16, 112))
    assert str(levels) == "a0 to a15, b0 to b111"
    assert levels.latent("b3") == levels.latent("1.3") == 19
    for id in ("c0", "b112", "16.0", "x"):
        with pytest.raises(KeyError, match=id):
            levels.latent(id)


def test_more_levels_than_letters_are_refused():
    with pytest.raises(UsageError, match="takes at most 26 numbers"):
        TrainConfig(acts=["acts.h5"], out="run", arch="hier", widths=(2,) * 27, k=(1,) * 27).check()


def read_as_a_spreadsheet(text: str) -> list[dict[str, Any]]:
    """A CSV file in which whatever can be a number is one."""

    def value(cell: str) -> Any:
        try:
            return float(cell)
        except ValueError:
            return cell

    return [{name: value(cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]


def test_a_spreadsheet_tells_all_latents_apart():
    levels = Levels((16, 112))
    parents = [None] * 16 + [levels.ids[latent % 16] for latent in range(112)]
    nodes = [
        Node(id, parent, *levels.place(latent), {"rate": 0.5, "dead": False})
        for latent, (id, parent) in enumerate(zip(levels.ids, parents, strict=True))
    ]
    rows = read_as_a_spreadsheet(write_csv(Tree({}, nodes)))
    assert [row["id"] for row in rows] == levels.ids
    assert [row["parent"] or None for row in rows] == parents
    edges = [{"subject": "run", "tree": "own", "child": node.id, "parent": node.parent} for node in nodes[16:]]
    rows = read_as_a_spreadsheet(edges_csv(iter(edges)))
    assert [(row["child"], row["parent"]) for row in rows] == [(node.id, node.parent) for node in nodes[16:]]


def test_pandas_joins_parents_to_children():
    pandas = pytest.importorskip("pandas")
    levels = Levels((16, 112))
    nodes = [Node(id, None, *levels.place(latent)) for latent, id in enumerate(levels.ids)]
    nodes[16:] = [Node(node.id, f"a{node.latent % 16}", 1, node.latent) for node in nodes[16:]]
    frame = pandas.read_csv(io.StringIO(write_csv(Tree({}, nodes))))
    assert frame.id.nunique() == 128 and len(frame.merge(frame, left_on="parent", right_on="id")) == 112


def test_the_id_of_a_parent_is_none_for_roots():
    levels = Levels((2, 3))
    assert [levels.parent_id(parent) for parent in (NO_PARENT, 0, 4)] == [None, "a0", "b2"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_none_for_numbers_that_are_not_finite(value: float):
    assert finite_or_none(value) is None and rounded_or_none(value) is None
    assert finite_or_none(1 / 3) == 1 / 3 and rounded_or_none(1 / 3) == 0.333333
