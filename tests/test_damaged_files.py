"""Whatever a file holds, reading it succeeds or ends in an error of ours that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations import KINDS, drill

COUNT = 20  # ways of damage for each kind of file


@pytest.mark.parametrize("name", KINDS)
def test_damage_of_any_kind_is_an_error_of_ours(name: str, tmp_path: Path) -> None:
    assert not drill(KINDS[name], tmp_path, COUNT, seed=0)[1]
