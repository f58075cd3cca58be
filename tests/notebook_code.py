"""What the code of a notebook imports from calibnb, and which parameters it reads."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parents[1]


def plain_python(source: str) -> str:
    """A cell's code with IPython's magics turned into calls."""
    return str(TransformerManager().transform_cell(source))


def code_of(notebook: Path) -> str:
    """The code cells of a notebook as one piece of Python."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join(plain_python("".join(c["source"])) for c in cells if c["cell_type"] == "code")


def _file(dotted: str) -> Path | None:
    """The file of a calibnb module; None for a name that is something inside one."""
    path = ROOT.joinpath(*dotted.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _names(tree: ast.Module) -> Iterator[str]:
    """Dotted names that the code imports when it runs: what only a type checker reads is left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(code: str) -> set[str]:
    """Paths from the project's root of every calibnb module that running `code` imports, at any depth."""
    found: set[str] = set()
    waiting = [ast.parse(code)]
    while waiting:
        for dotted in _names(waiting.pop()):
            path = _file(dotted) if dotted.split(".")[0] == "calibnb" else None
            if path is None or str(path.relative_to(ROOT)) in found:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if len(tree.body) > 1:  # an __init__.py with a docstring and nothing else changes no result
                found.add(str(path.relative_to(ROOT)))
                waiting.append(tree)
    return found


def parameters(code: str) -> set[str]:
    """The sections of params.yaml that the code reads from what `params.load` returned."""
    tree = ast.parse(code)
    loaded = {
        ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).endswith("params.load")
    }
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in loaded
    }
