"""Run a notebook as a stage of the pipeline.

    python -m calibnb.pipeline.execute NOTEBOOK OUT [-p KEY VALUE]...

The notebook stays as it is; an executed copy is written to OUT. Three promises make that copy an
output that DVC can rely on:

- **Equal results are equal bytes.** The clock, the kernel's details, random cell ids, memory
  addresses, the project's path and all that was said on stderr (progress bars, warnings) are left out.
- **All or nothing.** OUT appears when every cell has run, by a rename; a failed run leaves what was
  there before.
- **Errors of the user read as such.** A `calibnb.errors.UserError` in a cell ends the command with that
  error's one line on stderr and status 1. Any other error prints the cell's traceback.

The kernel is the running interpreter, whatever kernels are installed on the machine, and it works in
the directory the command was started in: the project's root. While it runs, its stderr is passed on to
the terminal, so progress is seen though not stored.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from calibnb.pipeline import warm

if __name__ == "__main__":
    warm.hand_over("calibnb.pipeline.execute", sys.argv[1:])  # what is below takes a second to import
if "rfc3987_syntax" not in sys.modules:
    # jsonschema would build the grammar of addresses, at more than a second, to check what no notebook holds.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from calibnb import yaml_files
from calibnb.blocks import shown
from calibnb.errors import UserError, full_disk, room

INJECTED = "injected-parameters"
REMOVED = "remove-cell"
PNG = "image/png"
WIDGET = "application/vnd.jupyter.widget-view+json"
TEXTS = ("text/plain", "text/html", "text/markdown", "text/latex")


def execute(notebook: Path, out: Path, parameters: Mapping[str, Any]) -> None:
    """Run `notebook` with `parameters` and write the normalised executed copy to `out`.

    Raises
    ------
    UserError
        If the notebook is missing, does not declare a parameter, a cell raises one or meets a full disk.
    papermill.exceptions.PapermillExecutionError
        If a cell raises anything else.
    """
    declared = parameter_names(read(notebook))
    for name in parameters:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise UserError(f"{notebook}: its parameters cell has no {name!r}; it declares: {known}")

    temporary = tempfile.TemporaryDirectory(prefix="calibnb-")
    with room(Path(temporary.name)), temporary as folder, own_kernel(Path(folder)):
        try:
            executed = papermill.execute_notebook(
                str(notebook),
                # papermill leaves a failed notebook here, and only here
                str(Path(folder) / "executed.ipynb"),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                request_save_on_cell_execute=False,
                stderr_file=sys.stderr,
            )
        except PapermillExecutionError as error:
            if error.ename == UserError.__name__:
                raise UserError(error.evalue) from None
            said = OSError(error.evalue)
            if full_disk(said):
                with room(out):
                    raise said from error
            raise
        except DeadKernelError:
            raise UserError(f"{notebook}: the kernel died while running (is there enough memory?)") from None

    write(normalise(executed, Path.cwd()), out)


def read(notebook: Path) -> NotebookNode:
    """A notebook as it is on disk.

    Raises
    ------
    UserError
        Where there is none.
    """
    if not notebook.is_file():
        raise UserError(f"{notebook}: no such notebook")
    return cast(NotebookNode, nbformat.read(notebook, as_version=4))


def parameter_names(notebook: NotebookNode) -> set[str]:
    """The names assigned in the notebook's cell tagged `parameters`; none without such a cell."""
    return {name for name, _ in _defaults(notebook)}


def _defaults(notebook: NotebookNode) -> Iterator[tuple[str, ast.expr | None]]:
    """The names assigned in the cell tagged `parameters`, with what is assigned."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Assign):
                    yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    yield node.target.id, node.value


def values(notebook: NotebookNode, given: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Parameters as a command line gives them, each a name and a text, turned into values.

    Where the notebook's own value is text, the text is the value: a name such as `./two #2` or `on` means itself. Any
    other is read as YAML, so 11 is a number and [a, b] a list.

    Raises
    ------
    UserError
        For what is not YAML.
    """
    texts = {
        name for name, value in _defaults(notebook) if isinstance(value, ast.Constant) and isinstance(value.value, str)
    }
    found: dict[str, Any] = {}
    for name, text in given:
        if name in found:
            raise UserError(f"-p {name}: given twice; allowed: once")
        found[name] = text if name in texts else yaml_files.decode(text, f"-p {name} {shown(text)}")
    return found


@contextmanager
def own_kernel(folder: Path) -> Iterator[None]:
    """Make `python3` name a kernel of the running interpreter, kept in `folder`, for the time of a run.

    Jupyter looks in JUPYTER_PATH before anywhere else, so a `python3` that a user has installed for
    another environment is not taken by mistake. Hash order and time stamps inside figures are fixed, and
    the user's IPython start-up files stay out.
    """
    environment = warm.kernel_environment(sys.stderr.isatty()) | {"IPYTHONDIR": str(folder / "ipython")}
    spec = {
        "argv": [*warm.command("ipykernel_launcher"), "--log-level=CRITICAL", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "env": environment,
    }
    kernel = folder / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(spec))
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["JUPYTER_PATH"]
        else:
            os.environ["JUPYTER_PATH"] = before


def normalise(notebook: NotebookNode, root: Path) -> NotebookNode:
    """A copy of an executed notebook in which only the code, the parameters and the results are left.

    `root` is the project's folder, whose name is taken out of the outputs. For the book, the cell
    with the parameters' defaults is tagged `remove-cell`, the one with their values `hide-input`, or
    `remove-cell`, too, where the notebook itself says so of the defaults; and what a picture says of
    itself in words becomes part of the text that stands in its place.
    """
    notebook = copy.deepcopy(notebook)
    parameters = notebook.metadata.get("papermill", {}).get("parameters", {})
    kept = {key: value for key, value in notebook.metadata.items() if key not in ("papermill", "widgets")}
    notebook.metadata = NotebookNode(
        kept
        | {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
            "papermill": {"parameters": parameters},
        }
    )
    hidden = "hide-input"
    for cell in notebook.cells:
        for key in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(key, None)
        tags = cell.metadata.get("tags", [])
        if INJECTED in tags:
            cell.id = INJECTED  # papermill draws a random one
            cell.metadata.tags = [*tags, hidden]
        elif "parameters" in tags:
            hidden = REMOVED if REMOVED in tags else hidden
            cell.metadata.tags = [*(tag for tag in tags if tag != REMOVED), REMOVED]
        elif "tags" in cell.metadata and not tags:
            del cell.metadata["tags"]  # papermill gives every cell a list
        if cell.cell_type == "code":
            cell.outputs = _outputs(cell.outputs, root)
            _describe(cell)
    return notebook


def _describe(cell: NotebookNode) -> None:
    """Put what the pictures of a cell say of themselves behind the text that the cell has for them."""
    said = [output.get("metadata", {}).get(PNG, {}).pop("alt", "") for output in cell.outputs]
    if any(said):
        image = cell.metadata.setdefault("mystnb", NotebookNode()).setdefault("image", NotebookNode())
        image.alt = " ".join(filter(None, [image.get("alt", ""), *said]))


def _outputs(outputs: Sequence[NotebookNode], root: Path) -> list[NotebookNode]:
    """Outputs without stderr and widgets, with neighbouring pieces of stdout joined and texts cleaned."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            # How a kernel cuts stdout into messages depends on timing.
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        elif WIDGET in output.get("data", {}):
            continue
        kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = _clean(output.text, root)
        for kind in TEXTS:
            if kind in output.get("data", {}):
                output.data[kind] = _clean(output.data[kind], root)
    return kept


def _clean(text: str, root: Path) -> str:
    text = text.replace(f"{root}{os.sep}", "").replace(str(root), ".")
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def write(notebook: NotebookNode, out: Path) -> None:
    """Write a notebook whole or not at all: to a temporary file beside `out`, then renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with room(out):
            nbformat.write(notebook, temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calibnb.pipeline.execute", description="Run a notebook.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        metavar=("KEY", "VALUE"),
        action="append",
        default=[],
        help="a parameter of the notebook; text where it is text there, else YAML: 11 is a number, [a, b] a list",
    )
    given = parser.parse_args(arguments)
    try:
        execute(given.notebook, given.out, values(read(given.notebook), given.parameters))
    except (UserError, PapermillExecutionError) as error:
        print(str(error).strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
