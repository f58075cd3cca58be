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
    """The keys of params.yaml that the code loads, such as ``seeds`` and ``benchmarks.novelty``.

    What it then reads of them must be among these, and all of these, unless it hands them on as a whole.
    """
    tree = ast.parse(code)
    loads = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "parameters.load"
    ]
    names = {ast.unparse(node.targets[0]) for node in loads}
    keywords = [keyword for node in loads for keyword in node.value.keywords]  # type: ignore[attr-defined]
    loaded = {str(keyword.arg) for keyword in keywords}
    read = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in names}
    handed_on = any(
        isinstance(node, ast.Call) and any(ast.unparse(argument) in names for argument in node.args)
        for node in ast.walk(tree)
    )
    assert loaded == read or (handed_on and read <= loaded), f"loaded {sorted(loaded)}, read {sorted(read)}"
    below = {k.arg: [ast.literal_eval(key) for key in k.value.keys] for k in keywords if isinstance(k.value, ast.Dict)}
    return {f"{key}.{name}" for key, names in below.items() for name in names} | (loaded - set(below))
