"""The notebooks of the documentation run from top to bottom, on a tiny host."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))
SIZES = {"tokens": "20k", "batch": 256}


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def read(notebook: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return content


def execute(notebook: Path, values: dict[str, Any]) -> list[str]:
    """Run the cells in order, with ``values`` in place of the parameters; returns what each cell shows."""
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(read(notebook)["cells"]):
        if cell["cell_type"] != "code":
            continue
        program = ast.parse(source(cell), f"{notebook.name}, cell {number}")
        last = program.body.pop() if isinstance(program.body[-1], ast.Expr) else None
        exec(compile(program, notebook.name, "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(values) <= set(names)
            names.update(values)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), notebook.name, "eval"), names)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
    return shown


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(notebook: Path) -> None:
    content = read(notebook)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    cells = content["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert source(cells[0]).startswith("# ") and cells[0]["cell_type"] == "markdown"
    assert [cell["metadata"].get("tags") for cell in cells].count(["parameters"]) == 1
    for cell in cells:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)
        for target in re.findall(r"\]\(([^)]+)\)", source(cell)):
            assert (notebook.parent / target).exists(), target


def test_the_notebooks_run(tiny_text: Path, tiny_host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, third = NOTEBOOKS
    shown = execute(
        first,
        {
            "texts": [str(tiny_text)],
            "model": str(tiny_host),
            "place": {"layer": "1", "document_tokens": 512},
            "sizes": {"widths": (16, 48), "k": (4, 4), **SIZES},
        },
    )
    assert "20,000 rows" in shown[0] and any("Strongest contexts" in text for text in shown)
    shown = execute(second, {"flat_sizes": {"widths": 64, "k": 8, **SIZES}})
    assert any("p_holm" in text for text in shown)
    shown = execute(third, {"model": str(tiny_host)})
    assert "on the prompt" in shown[-2] and "steered by the family" in shown[-1]
