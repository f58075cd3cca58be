"""The way of the data is the order of the folders: nothing imports what stands below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from calibnb.pipeline.dependence import bare

LIBRARY = Path(__file__).parents[1] / "calibnb"
# From the bottom up to the pages, as the README lists them.
ORDER = [
    *("errors", "blocks", "yaml_files", "json_files", "parameters"),
    *("laws", "models", "records", "trees", "training", "evidence", "benchmarks", "pipeline", "book"),
]
LONGEST = 350  # lines of code of a module, whatever is said about them: more than one subject, or a table


def rooms(path: Path) -> set[str]:
    """The parts of the library that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "calibnb":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("calibnb."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("calibnb.")}
    return found


MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_module_imports_what_stands_above_it(path: Path) -> None:
    own = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    assert {room for room in rooms(path) if ORDER.index(room) > ORDER.index(own)} == set()


def test_benchmarks_stand_beside_each_other() -> None:
    """What two of them need stands above them; of their blocks of parameters others may read.

    What is there for all of them, such as claims on training itself, lies beside their folders.
    """
    for path in (LIBRARY / "benchmarks").rglob("*.py"):
        own = path.relative_to(LIBRARY / "benchmarks").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("calibnb.benchmarks."):
                other = node.module.split(".")[2]
                above = other in (own, "variants", "declaration") or node.module.endswith(".params")
                of_all = own in ("baselines", "language") or own.endswith(".py")
                assert above or of_all, f"{path.name} imports {node.module}"


def test_packages_run_nothing_when_they_are_imported() -> None:
    for path in LIBRARY.rglob("__init__.py"):
        assert len(ast.parse(path.read_text(encoding="utf-8")).body) == 1, path


def test_modules_are_of_one_subject() -> None:
    code = {str(path.relative_to(LIBRARY)): bare(path.read_text(encoding="utf-8")) for path in MODULES}
    lengths = {name: len(text.splitlines()) for name, text in code.items()}
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}
