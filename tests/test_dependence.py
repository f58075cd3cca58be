"""What a stage's code is: blind to comments and prose, and nothing that it runs is missed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notebook_code import ROOT, code_of

from calibnb.errors import UserError
from calibnb.pipeline import dependence

CODE = '''\
"""A module."""

import math


class Law:
    """A law."""

    def value(self, x: float) -> float:
        """Its value.

        # no comment
        """
        text = """a # b

c"""
        return math.pi * x + len(text)  # why
'''


def test_bare_code_runs_as_the_whole_does() -> None:
    found = dependence.bare(CODE)
    assert '"""A' not in found and "Its value" not in found and "# why" not in found
    assert "a # b" in found  # inside a text it is no comment


@pytest.mark.parametrize(
    "changed",
    [
        CODE.replace("# why", "# because"),
        CODE.replace("  # why", ""),
        CODE.replace("A law.", "One law,\n    in two lines."),
        CODE.replace('    """A law."""\n\n', ""),
        CODE.replace("import math\n", "import math\n\n# a remark\n"),
        CODE + "\n\n",
    ],
)
def test_comments_docstrings_and_blank_lines_do_not_count(changed: str) -> None:
    assert changed != CODE
    assert dependence.bare(changed) == dependence.bare(CODE)


@pytest.mark.parametrize(
    "changed",
    [
        CODE.replace("math.pi", "math.e"),
        CODE.replace("a # b", "a # c"),
        CODE.replace("x: float", "x: int"),
        CODE.replace("b\n\nc", "b\nc"),
        CODE.replace("b\n\nc", "b \n\nc"),
    ],
)
def test_code_and_texts_count(changed: str) -> None:
    assert dependence.bare(changed) != dependence.bare(CODE)


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20))
def test_a_comment_of_any_text_goes(text: str) -> None:
    assert dependence.bare(f"x = 1  # {text}\ny = '{{}}'\n") == "x = 1\ny = '{}'\n"


def library(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(content), encoding="utf-8")
    return folder


def notebook(*cells: str) -> str:
    kinds = [{"cell_type": "markdown", "source": ["# Title"]}]
    return json.dumps({"cells": kinds + [{"cell_type": "code", "source": cell.splitlines(True)} for cell in cells]})


FILES = {
    "calibnb/__init__.py": "",
    "calibnb/pipeline/params.py": "from calibnb import one\n",
    "calibnb/book/building.py": "",
    "calibnb/one.py": "import calibnb.deep.two\n",
    "calibnb/deep/__init__.py": "DEEP = 1\n",
    "calibnb/deep/two.py": 'TABLE = files("calibnb.deep") / "table.yaml"\n',
    "calibnb/deep/table.yaml": "a: 1\n",
    "calibnb/table.yaml": "b: 1\n",
    "calibnb/typed.py": "",
    "calibnb/late.py": "",
    "notebooks/show.ipynb": notebook("%config X = 1\nfrom calibnb import one", "def f():\n    import calibnb.late"),
}


def test_modules_are_found_at_any_depth_with_the_data_they_name(tmp_path: Path) -> None:
    found = dependence.of_stages(library(tmp_path, FILES))
    everything = ["one.py", "deep/__init__.py", "deep/two.py", "deep/table.yaml", "__init__.py"]
    assert set(found["show"]) == {
        "notebooks/show.ipynb", "calibnb/late.py", *(f"calibnb/{name}" for name in everything)
    }  # fmt: skip
    assert set(found["check"]) == {"calibnb/pipeline/params.py", *(f"calibnb/{name}" for name in everything)}
    assert set(found["book"]) == {"calibnb/book/building.py", "calibnb/__init__.py"}


def test_what_only_a_type_checker_reads_is_left_out(tmp_path: Path) -> None:
    code = "if typing.TYPE_CHECKING:\n    import calibnb.typed\nelse:\n    import calibnb.late\n"
    found = dependence.of_stages(library(tmp_path, FILES | {"calibnb/book/building.py": code}))
    assert set(found["book"]) == {"calibnb/book/building.py", "calibnb/__init__.py", "calibnb/late.py"}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("calibnb/") and FILES[name]])
def test_a_change_counts_for_those_that_run_it_alone(tmp_path: Path, name: str) -> None:
    before = dependence.of_stages(library(tmp_path, FILES))
    after = dependence.of_stages(library(tmp_path, {name: FILES[name] + "c = 2\n"}))
    assert {stage for stage in before if before[stage] != after[stage]} == {s for s in before if name in before[s]}


def test_prose_of_a_notebook_does_not_count(tmp_path: Path) -> None:
    before = dependence.of_stages(library(tmp_path, FILES))
    prose = FILES["notebooks/show.ipynb"].replace("# Title", "# Another")
    assert dependence.of_stages(library(tmp_path, {"notebooks/show.ipynb": prose})) == before


def test_prose_of_a_chapter_counts(tmp_path: Path) -> None:
    page = notebook("from calibnb import one")
    before = dependence.of_stages(library(tmp_path, FILES | {"notebooks/chapters/page.ipynb": page}))
    prose = {"notebooks/chapters/page.ipynb": page.replace("# Title", "# Another")}
    after = dependence.of_stages(library(tmp_path, prose))
    assert {stage for stage in before if before[stage] != after[stage]} == {"chapters/page"}
    assert "calibnb/deep/two.py" in before["chapters/page"]


def test_modules_of_all_folders_that_a_text_names_count(tmp_path: Path) -> None:
    more = {"calibnb/one.py": 'EVERY = "*/parts.py"\n', "calibnb/deep/parts.py": "import calibnb.late\n"}
    found = dependence.of_stages(library(tmp_path, FILES | more | {"calibnb/other/parts.py": "x = 1\n"}))
    names = ["__init__.py", "deep/parts.py", "late.py", "one.py", "other/parts.py", "pipeline/params.py"]
    assert list(found["check"]) == [f"calibnb/{name}" for name in names]


TABLE = 'KINDS = {1}\nTABLE: dict[str, str] = {\n    "a": f(1),\n    "b": f(2),\n}\nLATE = 2\n'
NAMED = {
    "params.yaml": "models: [a, b, ./c]\n",
    dependence.MODELS: TABLE,
    "calibnb/one.py": "import calibnb.models.sources\n",
}


@pytest.mark.parametrize(
    ("table", "models", "stages"),
    [
        (TABLE.replace("f(2)", "f(3)"), {"sources/b"}, set()),
        (TABLE.replace('    "a"', '    "c": f(9),  # another\n    "a"'), set(), set()),
        (TABLE.replace("f(1),", "f( 1 ),  # why"), set(), set()),
        (TABLE.replace("LATE = 2", "LATE = 3"), set(), {"check", "show"}),
    ],
    ids=["an entry", "one more", "its spelling", "the code around it"],
)
def test_an_entry_of_the_table_of_models_counts_for_its_model_alone(
    tmp_path: Path, table: str, models: set[str], stages: set[str]
) -> None:
    library(tmp_path, FILES | NAMED)
    before = dependence.of_models(tmp_path), dependence.of_stages(tmp_path)
    assert list(before[0]) == ["sources/a", "sources/b", "sources/c"]
    library(tmp_path, {dependence.MODELS: table})
    after = dependence.of_models(tmp_path), dependence.of_stages(tmp_path)
    assert {name for name in before[0] if before[0][name] != after[0][name]} == models
    assert {name for name in before[1] if before[1][name] != after[1][name]} == stages


def test_a_project_without_the_library_has_no_table_of_models(tmp_path: Path) -> None:
    assert dependence.of_models(tmp_path) == {}
    with pytest.raises(UserError, match=r"^calibnb/models/sources\.py: must assign TABLE$"):
        dependence.of_models(library(tmp_path, NAMED | {dependence.MODELS: "OTHER = {}\n"}))


def test_every_file_of_a_committed_run_counts_and_what_lies_beside_them_does_not(tmp_path: Path) -> None:
    (tmp_path / "runs" / "large" / "results").mkdir(parents=True)
    (tmp_path / "runs" / "README.md").write_text("what runs are")
    (tmp_path / "runs" / "large" / "run.json").write_text("{}")
    (tmp_path / "runs" / "large" / "results" / "a.parquet").write_bytes(b"a")
    before = dependence.everything(tmp_path)["runs"]
    assert set(before) == {"runs/large/run.json", "runs/large/results/a.parquet"}
    (tmp_path / "runs" / "README.md").write_text("what else")
    assert dependence.everything(tmp_path)["runs"] == before
    (tmp_path / "runs" / "large" / "results" / "a.parquet").write_bytes(b"b")
    after = dependence.everything(tmp_path)["runs"]
    assert {name for name in after if after[name] != before[name]} == {"runs/large/results/a.parquet"}


def test_files_that_have_not_changed_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".code"
    dependence.write({"a": {"x": "1"}, "b": {"x": "1"}}, folder)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    dependence.write({"a": {"x": "1"}, "c": {"x": "2"}}, folder)
    assert {path.name for path in folder.iterdir()} == {"a.json", "c.json"}
    assert (folder / "a.json").stat().st_mtime_ns == times["a.json"]


def test_a_notebook_that_is_no_python_is_named(tmp_path: Path) -> None:
    library(tmp_path, FILES | {"notebooks/broken.ipynb": notebook("x = (")})
    with pytest.raises(UserError, match=r"^notebooks/broken\.ipynb: must be Python: .*line 1"):
        dependence.of_stages(tmp_path)


def test_what_python_really_imports_is_listed() -> None:
    """The slow way: import the module in a new interpreter and look at what it has loaded."""
    script = "import json, sys, calibnb.pipeline.params; print(json.dumps([m for m in sys.modules if 'calibnb' in m]))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {ROOT.joinpath(*name.split(".")) for name in json.loads(run.stdout)}
    files = {(p.with_suffix(".py") if p.with_suffix(".py").is_file() else p / "__init__.py") for p in loaded}
    assert {str(path.relative_to(ROOT)) for path in files} <= set(dependence.of_stages(ROOT)["check"])


def test_bare_code_of_every_module_is_the_same_program() -> None:
    for path in (ROOT / "calibnb").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert _program(dependence.bare(source)) == _program(source)


def _program(source: str) -> str:
    """The code's syntax tree without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            empty = [] if isinstance(node, ast.Module) else [ast.Expr(ast.Constant(...))]
            node.body = node.body[1:] or empty
    return ast.dump(tree)


def test_how_claims_are_judged_and_the_book_looks_is_no_code_of_what_measures_and_trains() -> None:
    judging = {f"calibnb/evidence/{name}.py" for name in ("claims", "verdicts", "wording")}
    stages = dependence.of_stages(ROOT)
    assert judging <= stages["chapters/structured"].keys()
    measuring = {name: files.keys() for name, files in stages.items() if name.startswith(("measure/", "models/"))}
    assert len(measuring) == 15
    for name, files in measuring.items():
        assert not [file for file in files if file in judging or file.startswith("calibnb/book/")], name
        words = re.findall(r"\w+", code_of(ROOT / "notebooks" / f"{name}.ipynb"))
        assert not {"matplotlib", "seaborn"} & set(words), name
