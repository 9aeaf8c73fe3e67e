"""The structure of the package: layers that import one way only, and no circles of files or folders."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hiersae_cli"
# From the top down: a room imports only from rooms below its own; rooms in one line do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__", "saelens", "api"),
    ("cli",),
    ("workflows",),
    ("study",),
    ("pages",),
    ("browse",),
    ("render",),
    ("formats",),
    ("metrics",),
    ("host", "sae"),
    ("synth", "concepts"),
    ("config",),
    (
        "console",
        "device",
        "distributed",
        "hashing",
        "interrupt",
        "layout",
        "levels",
        "locking",
        "reading",
        "user_cache",
        "version",
    ),
    ("errors",),
)
# Below another room of their own line, for no better reason than that they are small.
WITHIN_A_LINE = {("console", "layout")}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(name: str) -> Iterator[str]:
    """Every module of the package that a module imports, wherever in it the statement stands."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner if inner in MODULES else node.module,) if name in MODULES)


GRAPH = {name: set(imports(name)) for name in MODULES}


def room(name: str, package: str = "hiersae_cli") -> str:
    """The file or folder of ``package`` in which a module lies."""
    return name.removeprefix(f"{package}.").partition(".")[0]


def test_every_room_has_a_layer() -> None:
    assert {room(name) for name in MODULES if name != "hiersae_cli"} == {name for line in LAYERS for name in line}


def test_layers_import_one_way_only() -> None:
    depth = {name: number for number, line in enumerate(LAYERS) for name in line}
    upwards = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if "hiersae_cli" not in (name, other) and room(name) != room(other)
        if depth[room(name)] >= depth[room(other)] and (room(name), room(other)) not in WITHIN_A_LINE
    ]
    assert not upwards


@pytest.mark.parametrize("package", sorted(name for name, path in MODULES.items() if path.name == "__init__.py"))
def test_no_circle_among_the_files_and_folders_of_a_folder(package: str) -> None:
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, others in GRAPH.items():
        if name.startswith(f"{package}."):
            inside = {room(other, package) for other in others if other.startswith(f"{package}.")}
            rooms[room(name, package)] |= inside - {room(name, package)}
    assert_no_circle(rooms)


def test_no_circle_of_files() -> None:
    assert_no_circle(GRAPH)


def test_no_two_classes_share_a_name() -> None:
    files: dict[str, list[str]] = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                files[node.name].append(name)
    shared = {name: modules for name, modules in files.items() if len(modules) > 1}
    assert not shared


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")
