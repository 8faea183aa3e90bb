"""Imports run one way: read from the sources, no circle and none against the order of the stages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY, KERNELS = "refcocom_gpu", "refcocom_kernels"

GROUND = ("_version", "errors", "utils", "masks")
"""What every stage stands on; in this order too."""

STAGES = (
    *GROUND, "dataset", "store", "predictions", "adapters", "counting", "scores", "scorer", "report", "training",
    "engines", "sweep", "construct", "integrations", "cli",
)  # fmt: skip
"""The order in which data flows; `__init__` and `__main__` of the package are the way in and may name anything."""


def modules_of(root: Path) -> dict[str, Path]:
    """Dotted name to file of every module below a package."""
    names = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = {**modules_of(ROOT / LIBRARY), **modules_of(ROOT / "kernels" / KERNELS)}


def imports_of(source: str, modules: dict[str, Path] = MODULES) -> Iterator[str]:
    """The modules of ours that a source imports, at its head, in functions and for types alike."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module


GRAPH = {name: set(imports_of(path.read_text("utf-8"))) - {name} for name, path in MODULES.items()}


def stage_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def against_the_order(graph: dict[str, set[str]]) -> list[str]:
    """Imports of the library that run from a stage to a later one, or to the package itself."""
    wrong = []
    for module, imported in graph.items():
        if not module.startswith(f"{LIBRARY}.") or module == f"{LIBRARY}.__main__":
            continue
        place = STAGES.index(stage_of(module))
        for name in imported:
            if name == LIBRARY or (
                name.startswith(f"{LIBRARY}.") and STAGES.index(stage_of(name)) > place
            ):
                wrong.append(f"{module} imports {name}")
    return sorted(wrong)


def test_there_is_no_circle() -> None:
    assert circle_in(GRAPH) == []


def test_no_import_runs_against_the_order_of_the_stages() -> None:
    assert against_the_order(GRAPH) == []


def test_the_kernels_are_a_leaf() -> None:
    kernels = {name: GRAPH[name] for name in GRAPH if name.startswith(KERNELS)}
    assert len(kernels) > 20
    assert all(name.startswith(KERNELS) for imported in kernels.values() for name in imported)


def test_every_stage_is_in_the_order_and_says_what_it_does() -> None:
    entries = {p.stem for p in (ROOT / LIBRARY).iterdir() if p.suffix == ".py" or p.is_dir()}
    ways_in = {"__init__", "__main__", "__pycache__", "py"}
    assert entries - ways_in == set(STAGES)
    for name, path in MODULES.items():
        if path.name == "__init__.py":
            assert len(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") > 80, name


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from refcocom_gpu.masks import rle, nothing", ["refcocom_gpu.masks.rle", "refcocom_gpu.masks"]),
        ("def f():\n    import refcocom_gpu.errors", ["refcocom_gpu.errors"]),
        ("if TYPE_CHECKING:\n    from refcocom_gpu.errors import DataError", ["refcocom_gpu.errors"]),
        ("import numpy", []),
    ],
)  # fmt: skip
def test_imports_are_found_wherever_they_stand(source: str, expected: list[str]) -> None:
    assert list(imports_of(source)) == expected


def test_the_test_finds_what_it_looks_for() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    graph = {"refcocom_gpu.masks.rle": {"refcocom_gpu.store.store", "refcocom_gpu.errors"}}
    assert against_the_order(graph) == ["refcocom_gpu.masks.rle imports refcocom_gpu.store.store"]
    assert against_the_order({"refcocom_gpu.errors": {"refcocom_gpu"}}) != []


def test_the_tree_of_the_readme_is_what_is_there() -> None:
    """The folders that README names below the package, in its order, are those of the file system."""
    text = (ROOT / "README.md").read_text("utf-8")
    tree = text.partition("## The parts")[2].partition("```text\n")[2].partition("```")[0]
    shown = re.findall(r"^  (\w[\w.]*/?)", tree, re.M)
    there = {
        f"{p.name}/" if p.is_dir() else p.name
        for p in (ROOT / LIBRARY).iterdir()
        if p.name not in {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
    }
    assert set(shown) == there
