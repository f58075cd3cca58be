"""Running a notebook as a stage: the executed copy, its bytes, and what happens when a cell fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from calibnb.errors import UserError
from calibnb.pipeline.execute import execute, main, normalise, parameter_names, read, values

PARAMETERS = "model = 'nobody'  # a name\nseed: int = 0\nsizes = [1]"


def notebook(*sources: str) -> nbformat.NotebookNode:
    """A notebook with a parameters cell and one code cell a source."""
    cells = [new_markdown_cell("# A stage", id="title")]
    cells.append(new_code_cell(PARAMETERS, id="parameters", metadata={"tags": ["parameters"]}))
    cells += [new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    return new_notebook(cells=cells)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(project: Path, *sources: str) -> Path:
    path = project / "notebooks" / "stage.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook(*sources), path)
    return path


def texts(path: Path) -> list[str]:
    """What each code cell printed or showed, as one text a cell."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        "".join(o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in cell.outputs)
        for cell in cells
        if cell.cell_type == "code"
    ]


def test_a_run_is_parameterised_reproducible_and_silent_about_itself(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # A kernel named python3 that a user has installed for something else must not be taken.
    other = project / "elsewhere" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(project / "elsewhere"))
    source = save(
        project,
        "print(model, seed, sizes)",
        "import sys\nfrom pathlib import Path\nprint(Path.cwd())\nprint(Path.cwd() / 'x')\n"
        f"assert Path(sys.executable).parent == Path({str(Path(sys.executable).parent)!r})",
        "print('a', end='', flush=True); print('noise', file=sys.stderr, flush=True); print('b')",
        "from tqdm import tqdm\nfor _ in tqdm(range(3), desc='bar'): pass",
        "object()",
        "print(list({'b', 'a', 'c', 'd', 'e', 'f'}))",
    )
    before = source.read_bytes()
    outs = [project / "out" / f"{name}.ipynb" for name in ("one", "two")]
    for out in outs:
        execute(source, out, {"model": "./tiny", "seed": 11, "sizes": [1, 2]})

    assert source.read_bytes() == before
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert sorted(path.name for path in outs[0].parent.iterdir()) == ["one.ipynb", "two.ipynb"]
    _defaults, _injected, printed, places, streams, bar, shown, _ = texts(outs[0])
    assert printed == "./tiny 11 [1, 2]\n"
    assert places == ".\nx\n"
    assert streams == "ab\n"
    assert bar == ""
    assert shown == "<object>"

    stderr = capfd.readouterr().err
    assert "noise" in stderr
    assert "bar: 100%" in stderr
    assert "WARNING" not in stderr

    executed = nbformat.read(outs[0], as_version=4)
    nbformat.validate(executed)
    assert executed.metadata.papermill == {"parameters": {"model": "./tiny", "seed": 11, "sizes": [1, 2]}}
    assert [cell.metadata for cell in executed.cells[3:]] == [{}] * 6
    tags = {cell.id: cell.metadata.tags for cell in executed.cells if "tags" in cell.metadata}
    assert tags == {
        "parameters": ["parameters", "remove-cell"],
        "injected-parameters": ["injected-parameters", "hide-input"],
    }


def test_a_failed_run_leaves_the_last_good_copy(project: Path) -> None:
    out = project / "out" / "stage.ipynb"
    out.parent.mkdir()
    out.write_text("as it was")
    source = save(
        project,
        "from calibnb.errors import UserError\nraise UserError('params.yaml: seeds: must be >= 0, got -1')",
    )
    run = subprocess.run(
        [sys.executable, "-m", "calibnb.pipeline.execute", str(source), str(out), "-p", "seed", "3"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "params.yaml: seeds: must be >= 0, got -1\n"
    assert [path.read_text() for path in out.parent.iterdir()] == ["as it was"]


def test_other_errors_show_the_cell_and_the_traceback(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(project, "x = 0", "1 / x")
    assert main([str(source), str(project / "out.ipynb")]) == 1
    stderr = capsys.readouterr().err
    assert "ZeroDivisionError" in stderr
    assert "1 / x" in stderr
    assert not (project / "out.ipynb").exists()


def test_a_dead_kernel_is_one_line(project: Path) -> None:
    source = save(project, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(UserError, match="the kernel died while running"):
        execute(source, project / "out.ipynb", {})


PYTHON = "line 1: must be YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.x'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.ipynb", "out.ipynb"], "missing.ipynb: no such notebook"),
        (
            ["notebooks/stage.ipynb", "out.ipynb", "-p", "sead", "3"],
            "notebooks/stage.ipynb: its parameters cell has no 'sead'; it declares: model, seed, sizes",
        ),
        *(
            (["notebooks/stage.ipynb", "out.ipynb", "-p", "seed", value], f'-p seed "{value}": {problem}')
            for value, problem in [
                ("[1, 2", "line 1: must be YAML: expected ',' or ']', but got '<stream end>'"),
                ("a: b: c", "line 1: must be YAML: mapping values are not allowed here"),
                ("{a: 1, a: 2}", "line 1: must be YAML: key a is given twice"),
                ("!!python/name:os.x", PYTHON),
                ("2020-99-99", "must be YAML: a value cannot be read (month must be in 1..12)"),
                (
                    "!!int x",
                    "must be YAML: a value cannot be read (invalid literal for int() with base 10: 'x')",
                ),
                ("!!bool x", "must be YAML: a value cannot be read ('x')"),
            ]
        ),
        (
            ["notebooks/stage.ipynb", "out.ipynb", "-p", "seed", "1", "-p", "model", "a", "-p", "seed", "2"],
            "-p seed: given twice; allowed: once",
        ),
    ],
)
def test_wrong_arguments_are_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    save(project)
    assert main(arguments) == 1
    assert capsys.readouterr().err == message + "\n"
    assert not (project / "out.ipynb").exists()


def test_values_on_the_command_line_are_yaml(project: Path) -> None:
    source = save(project, "print(repr((model, seed, sizes)))")
    out = project / "out.ipynb"
    values = ["-p", "model", "org/name", "-p", "seed", "11", "-p", "sizes", "[a, 2, 5e-4]"]
    assert main([str(source), str(out), *values]) == 0
    assert texts(out)[-1] == "('org/name', 11, ['a', 2, 0.0005])\n"


@pytest.mark.parametrize("value", ["[" * 200_000, "{a: " * 50_000, "1" * 5_000])
def test_a_value_that_has_no_end_is_one_line(project: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    save(project)
    assert main(["notebooks/stage.ipynb", "out.ipynb", "-p", "seed", value]) == 1
    assert re.fullmatch(r"-p seed .{1,200}: must be YAML: .{1,120}\n", capsys.readouterr().err)


def test_parameter_names() -> None:
    assert parameter_names(notebook()) == {"model", "seed", "sizes"}
    assert parameter_names(new_notebook(cells=[new_code_cell("x = 1")])) == set()


def test_normalise_takes_out_widgets_and_joins_stdout() -> None:
    def stream(name: str, text: str) -> Any:
        return new_output("stream", name=name, text=text)

    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}
    cell = new_code_cell("x", execution_count=1)
    cell.metadata = {"papermill": {"duration": 1.0}, "mystnb": {"a": 1}}
    cell.outputs = [
        stream("stdout", "one "),
        stream("stderr", "50%"),
        stream("stdout", "two"),
        new_output("display_data", data=widget),
        new_output("display_data", data={"text/html": "<a href='/home/me/study/x'>x</a>"}),
        stream("stdout", "three"),
    ]
    executed = new_notebook(cells=[cell], metadata={"widgets": {"state": 1}, "papermill": {"duration": 2.0}})
    result = normalise(executed, Path("/home/me/study"))
    assert result.metadata.papermill == {"parameters": {}}
    assert "widgets" not in result.metadata
    assert result.cells[0].metadata == {"mystnb": {"a": 1}}
    assert [o.get("text") or o.data["text/html"] for o in result.cells[0].outputs] == [
        "one two",
        "<a href='x'>x</a>",
        "three",
    ]
    assert executed.cells[0].outputs[0].text == "one "  # the given notebook is not changed


def test_values_of_a_page_are_not_shown_where_their_defaults_are_not_to_be() -> None:
    def tags(*of_defaults: str) -> list[list[str]]:
        cells = [new_code_cell("a = 1"), new_code_cell("a = 2")]
        for cell, given in zip(cells, (["parameters", *of_defaults], ["injected-parameters"]), strict=True):
            cell.metadata["tags"] = given
        return [cell.metadata.tags for cell in normalise(new_notebook(cells=cells), Path("/x")).cells]

    assert tags() == [["parameters", "remove-cell"], ["injected-parameters", "hide-input"]]
    assert tags("remove-cell") == [["parameters", "remove-cell"], ["injected-parameters", "remove-cell"]]


@pytest.mark.parametrize(("fixed", "text"), [({"alt": "Dots."}, "Dots. soft 0.5"), ({}, "soft 0.5")])
def test_what_a_picture_says_of_itself_stands_behind_its_alt_text(fixed: dict[str, str], text: str) -> None:
    cell = new_code_cell("x")
    cell.metadata = {"mystnb": {"figure": {"caption": "c"}, "image": fixed}} if fixed else {}
    data = {"image/png": "eA==", "text/plain": "x"}
    cell.outputs = [new_output("execute_result", data=data, metadata={"image/png": {"width": 3, "alt": "soft 0.5"}})]
    plain = new_code_cell("y", metadata={"mystnb": {"image": {"alt": "As it was."}}})
    plain.outputs = [new_output("display_data", data=data, metadata={"image/png": {"width": 3}})]
    found, other = normalise(new_notebook(cells=[cell, plain]), Path("/x")).cells
    assert found.metadata.mystnb.image.alt == text
    assert found.outputs[0].metadata == {"image/png": {"width": 3}}
    assert other.metadata == {"mystnb": {"image": {"alt": "As it was."}}}


@pytest.mark.parametrize("text", ["./two words #2", "./it's", "on", "1e3", "null", "[a", "a: b", "'", "", "é", '"\\n"'])
def test_a_text_on_the_command_line_is_itself(project: Path, text: str) -> None:
    given = [("model", text), ("seed", "7"), ("sizes", "[1, a]")]
    assert values(read(save(project)), given) == {"model": text, "seed": 7, "sizes": [1, "a"]}


def test_a_text_reaches_the_notebook(project: Path) -> None:
    source = save(project, "print(model)")
    text = "./: \"two\" 'words' #2 \\n {x} $HOME 模型"
    assert main([str(source), str(project / "out.ipynb"), "-p", "model", text]) == 0
    assert texts(project / "out.ipynb")[-1] == text + "\n"


def test_a_value_that_is_not_yaml_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(save(project)), str(project / "out.ipynb"), "-p", "sizes", "[a"]) == 1
    line = "-p sizes \"[a\": line 1: must be YAML: expected ',' or ']', but got '<stream end>'\n"
    assert capsys.readouterr().err == line
