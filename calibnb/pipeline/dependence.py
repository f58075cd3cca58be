"""What code each stage runs, without what changes no result: comments, docstrings and prose.

    python -m calibnb.pipeline.dependence

For every notebook, and for the commands that are stages without one, a file in ``.code`` lists the hashes of its own
code, of every calibnb module that it imports at any depth, and of the data files that these name. A stage depends on
its file there, so that what a stage depends on is derived and nobody types it. They are written anew when a
notebook or a module has changed, and only those whose own content has changed re-run anything.

A data file counts for a module beside which it lies if its name stands in the module's code as a text, and so do the
modules of all folders beside it that a text such as ``*/params.py`` names.

The committed runs are many small files that every chapter reads: one file more lists their hashes, so that DVC walks
them once and not for each chapter.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from calibnb import yaml_files
from calibnb.errors import UserError
from calibnb.models.places import place

PACKAGE = "calibnb"
FOLDER = Path(".code")
STAGE = "code"  # which writes them

# Stages that run a module of the library and no notebook.
COMMANDS = {
    "check": "calibnb.pipeline.params",
    "items": "calibnb.pipeline.items",
    "beside": "calibnb.benchmarks.baselines.beside",
    "book": "calibnb.book.building",
}

# The table of named models: each entry counts for its own model alone, which depends on a file of its own.
MODELS, TABLE = "calibnb/models/sources.py", "TABLE"

# The folder of the committed runs, and the name of the file that lists them.
RUNS = "runs"

# Notebooks that are read: their prose counts as their code does.
CHAPTERS = "chapters"


def bare(source: str) -> str:
    """Python code without comments, docstrings, blank lines and spaces at the ends of lines: the same program.

    Raises
    ------
    SyntaxError
        For what is no Python.
    """
    lines = source.split("\n")  # as Python counts them: splitlines() cuts at more characters
    gone: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            assert first.end_lineno is not None
            gone.update(range(first.lineno - 1, first.end_lineno))
            if len(node.body) == 1 and not isinstance(node, ast.Module):
                gone.remove(first.lineno - 1)
                lines[first.lineno - 1] = " " * first.col_offset + "..."
    kept: set[int] = set()  # lines that go on inside a text, where spaces and blank lines count
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (row, column), (last, _) = token.start, token.end
        kept.update(range(row - 1, last - 1))
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column]
    left = [(line if i in kept else line.rstrip(), i in kept) for i, line in enumerate(lines) if i not in gone]
    return "".join(f"{line}\n" for line, inside in left if line or inside)


def code_of(notebook: Path) -> str:
    """The code cells of a notebook as one piece of Python; IPython's magics become texts."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^(\s*)([%!].*)$", lambda line: f"{line[1]}{line[2]!r}", code, flags=re.MULTILINE)


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that code imports when it runs: what only a type checker reads is left out."""
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def texts(tree: ast.Module) -> set[str]:
    """Every text that stands in code as a constant."""
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


class Library:
    """The package's source below a project's folder, each file read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        files = [path for path in (root / PACKAGE).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        self.data = {path for path in files if path.suffix != ".py" and path.name != "py.typed"}

    def file(self, dotted: str) -> Path | None:
        """The file of a module; None for a name that is something inside one, or foreign."""
        if dotted.split(".")[0] != PACKAGE:
            return None
        path = self.root.joinpath(*dotted.split("."))
        return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)

    @cache  # noqa: B019  # one library a run
    def reads(self, path: Path) -> tuple[str, tuple[Path, ...]]:
        """The hash of a module's bare code, and the files that it imports or names."""
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        if path == self.root / MODELS:
            lines = source.split("\n")
            table = _table(tree)
            source = "\n".join([*lines[: table.lineno - 1], *lines[table.end_lineno :]])
        named = sorted(texts(tree))
        data = [beside for text in named if (beside := path.parent / text) in self.data]
        for pattern in named:  # such as */params.py: modules that are imported by their place
            if re.fullmatch(r"\*/\w+\.py", pattern):
                data += sorted(path.parent.glob(pattern))
        return _hash(bare(source).encode()), (*self.modules(tree), *data)

    def modules(self, tree: ast.Module) -> tuple[Path, ...]:
        """The modules of the package that code imports, directly."""
        # A package's own __init__ runs before what is imported from it.
        names = [".".join(name.split(".")[: n + 1]) for name in imported(tree) for n in range(name.count(".") + 1)]
        return tuple(dict.fromkeys(path for name in names if (path := self.file(name)) is not None))

    def hashes(self, code: str) -> dict[str, str]:
        """Hashes of all files that running `code` reads, at any depth, by their paths from the root."""
        found: dict[str, str] = {}
        waiting = list(self.modules(ast.parse(code)))
        while waiting:
            path = waiting.pop()
            name = path.relative_to(self.root).as_posix()
            if name in found:
                continue
            if path.suffix == ".py":
                found[name], more = self.reads(path)
                waiting.extend(more)
            else:
                found[name] = _hash(path.read_bytes())
        return dict(sorted(found.items()))


def _table(tree: ast.Module) -> ast.Assign | ast.AnnAssign:
    """The assignment of the table of named models."""
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == TABLE for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            return node
    raise UserError(f"{MODELS}: must assign {TABLE}")


def of_models(root: Path) -> dict[str, dict[str, str]]:
    """For each model of the study, by its place: the hash of its entry in the table, of nothing where it has none."""
    source = root / MODELS
    if not source.is_file():  # a project beside the library: its stages have no code of the library's to hash, either
        return {}
    node = _table(ast.parse(source.read_text(encoding="utf-8"))).value
    entries = {
        str(value.value): ast.unparse(entry)
        for value, entry in (zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ())
        if isinstance(value, ast.Constant)
    }
    named = yaml_files.read(root / "params.yaml").get("models")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    return {f"sources/{place(name)}": {name: _hash(entries.get(name, "").encode())} for name in names}


def of_runs(root: Path) -> dict[str, dict[str, str]]:
    """The hashes of all files of the committed runs, by their paths from the root, under the one name ``runs``."""
    files = sorted(path for path in (root / RUNS).glob("*/**/*") if path.is_file())
    return {RUNS: {path.relative_to(root).as_posix(): _hash(path.read_bytes()) for path in files}}


def everything(root: Path) -> dict[str, dict[str, str]]:
    """All that the stage writes: name of a file below `FOLDER`, without its ending -> path of what counts -> hash."""
    return of_stages(root) | of_models(root) | of_runs(root)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_stages(root: Path) -> dict[str, dict[str, str]]:
    """For each notebook below ``notebooks``, without its ending, and each of `COMMANDS`: path of what it runs -> hash.

    Raises
    ------
    UserError
        For a notebook or module that is no Python.
    """
    library = Library(root)
    found: dict[str, dict[str, str]] = {}
    for notebook in sorted((root / "notebooks").glob("**/*.ipynb")):
        place = notebook.relative_to(root)
        stage = place.relative_to("notebooks").with_suffix("")
        try:
            code = code_of(notebook)
            own = notebook.read_bytes() if CHAPTERS in stage.parts else bare(code).encode()
            found[str(stage)] = {str(place): _hash(own)} | library.hashes(code)
        except SyntaxError as error:
            raise UserError(f"{place}: must be Python: {error.msg} (line {error.lineno} of its code)") from None
    for name, module in COMMANDS.items():
        found[name] = library.hashes(f"import {module}")
    return found


def write(stages: Mapping[str, Mapping[str, str]], folder: Path) -> None:
    """One file a stage; those that have not changed are left as they are, those of no stage go."""
    folder.mkdir(exist_ok=True)
    for stage, hashes in stages.items():
        path, text = folder / f"{stage}.json", json.dumps(hashes, indent=1) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*.json"):
        if path.relative_to(folder).with_suffix("").as_posix() not in stages:
            path.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    try:
        write(everything(Path()), FOLDER)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
