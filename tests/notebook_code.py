"""The code of a notebook, and which parameters it reads."""

from __future__ import annotations

import ast
import json
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
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) in loaded
    }
