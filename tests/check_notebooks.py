"""Are the notebooks committed as they should be? `python tests/check_notebooks.py [NOTEBOOK]...`

Prints a line for each that is not and exits with 1. A notebook has no outputs and no execution counts,
every cell has an id, a cell tagged `parameters` assigns names alone, and a cell that shows a figure declares
its caption and the text that stands in its place. No cell of a page hides behind a bar. A notebook that is run
many times defines no labels, which would clash in the book.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from matplotlib.figure import Figure
from notebook_code import plain_python

from calibnb.book import style
from calibnb.book.chapter import Chapter
from calibnb.book.figures import answers, curves, drawings, examples, exchange, fidelity, judged, learning, points

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
ONCE = "chapters"  # the folder of those that run once
LABEL = re.compile(r"^\(([\w-]+)\)=$|^\$\$ *\(([\w-]+)\)$|^:(?:name|label): *(\S+)$", re.MULTILINE)


def calls(source: str) -> set[str]:
    """The functions that the code calls, as written: `display`, `points.measures`."""
    tree = ast.parse(plain_python(source))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def draws(source: str) -> bool:
    """Whether the code calls a function of the book, or a method of a chapter, that returns a figure."""
    modules = {
        module.__name__.rpartition(".")[2]: vars(module)
        for module in (answers, curves, drawings, examples, exchange, fidelity, judged, learning, points, style)
    }
    parts = [name.split(".") for name in calls(source) if name.count(".") == 1]
    places = [(modules.get(owner, vars(Chapter)), name) for owner, name in parts]
    called = [place[name] for place, name in places if inspect.isfunction(place.get(name))]
    return any(get_type_hints(function).get("return") is Figure for function in called)


def _cell_problems(cell: dict[str, Any], alone: bool) -> Iterator[str]:
    source = "".join(cell["source"])
    shown = cell["metadata"].get("mystnb", {})
    if not cell.get("id"):
        yield "has no id"
    if cell["cell_type"] == "markdown":
        if not alone and (label := LABEL.search(source)):
            name = next(filter(None, label.groups()))
            yield f"defines the label {name}, but the notebook is run many times"
    elif cell["cell_type"] == "code":
        if cell["outputs"]:
            yield "has outputs"
        if cell["execution_count"] is not None:
            yield "has an execution count"
        if draws(source):
            if not shown.get("figure", {}).get("caption", "").strip():
                yield "shows a figure without a caption (metadata mystnb.figure.caption)"
            if not shown.get("image", {}).get("alt", "").strip():
                yield "shows a figure without alt text (metadata mystnb.image.alt)"
            if "display" in calls(source):
                yield "displays something beside its figure, which would get the figure's caption, too"
        bars = [tag for tag in cell["metadata"].get("tags", []) if tag.startswith("hide-")]
        if alone and bars:
            yield f"is behind a bar ({', '.join(bars)}): what readers need not see is removed, tables stand in a fold"
        if not alone and "name" in shown.get("figure", {}):
            yield f"names its figure {shown['figure']['name']}, but the notebook is run many times"


def problems(path: Path) -> Iterator[str]:
    """What is wrong with a notebook, one line each."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    ids = [cell.get("id") for cell in cells]
    for place, cell in enumerate(cells):
        for problem in _cell_problems(cell, path.parent.name == ONCE):
            yield f"{path.name}: cell {place} ({cell.get('id')}) {problem}"
    if len(set(ids)) < len(ids):
        yield f"{path.name}: two cells have the same id"
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        yield f"{path.name}: {len(tagged)} cells are tagged parameters; it must be one"
    for cell in tagged:
        statements = ast.parse("".join(cell["source"])).body
        if not all(isinstance(statement, ast.Assign | ast.AnnAssign) for statement in statements):
            yield f"{path.name}: the parameters cell does more than assign"
    if not cells or not "".join(cells[0]["source"]).startswith("# "):
        yield f"{path.name}: the first cell has no title"


def main(arguments: list[str]) -> int:
    paths = [Path(a) for a in arguments] or sorted(NOTEBOOKS.glob("*/*.ipynb"))
    found = [problem for path in paths for problem in problems(path)]
    print(*found, f"{len(paths)} notebooks, {len(found)} problems", sep="\n")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
