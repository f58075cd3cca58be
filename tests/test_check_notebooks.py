"""The check of committed notebooks finds each thing that it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from check_notebooks import draws, problems
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

FIGURE = {"mystnb": {"figure": {"caption": "A tree."}, "image": {"alt": "A tree."}}}


def clean() -> nbformat.NotebookNode:
    return new_notebook(
        cells=[
            new_markdown_cell("# Title", id="title"),
            new_code_cell("a = 'tiny'\nb: int = 1", id="parameters", metadata={"tags": ["parameters"]}),
            new_code_cell("drawings.trie_drawing(a)", id="figure", metadata=FIGURE),
        ]
    )


def found(tmp_path: Path, notebook: nbformat.NotebookNode, folder: str = "chapters") -> list[str]:
    path = tmp_path / folder / "method.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return list(problems(path))


def test_a_clean_notebook_passes(tmp_path: Path) -> None:
    assert found(tmp_path, clean()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda cells: cells[2].outputs.append(new_output("stream", text="x")), "cell 2 (figure) has outp"),
        (lambda cells: cells[2].update(execution_count=3), "cell 2 (figure) has an execution count"),
        (lambda cells: cells[2].metadata.pop("mystnb"), "cell 2 (figure) shows a figure without alt text"),
        (lambda cells: cells[2].metadata.mystnb.figure.update(caption=" "), "a figure without a caption"),
        (lambda cells: cells[2].update(source="display(x)\ndrawings.trie_drawing(a)"), "displays something"),
        (lambda cells: cells[2].metadata.update(tags=["hide-output"]), "cell 2 (figure) is behind a bar (hide-output)"),
        (lambda cells: cells[1].metadata.pop("tags"), "0 cells are tagged parameters"),
        (lambda cells: cells[1].update(source="import os"), "the parameters cell does more than assign"),
        (lambda cells: cells.pop(0), "the first cell has no title"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, spoil: Callable[[list[nbformat.NotebookNode]], object], message: str
) -> None:
    notebook = clean()
    spoil(notebook.cells)
    assert any(message in line for line in found(tmp_path, notebook))


def test_ids_are_needed_and_unique(tmp_path: Path) -> None:
    path = tmp_path / "method.ipynb"
    nbformat.write(clean(), path)
    text = path.read_text()
    path.write_text(text.replace('"id": "figure",\n', ""))
    assert [line for line in problems(path) if "has no id" in line]
    path.write_text(text.replace('"id": "figure"', '"id": "title"'))
    assert list(problems(path)) == ["method.ipynb: two cells have the same id"]


@pytest.mark.parametrize("source", ["(here)=\n## Head", "$$\nx\n$$ (eq-x)", "```{math}\n:label: eq-x\nx\n```"])
def test_labels_only_where_a_notebook_is_run_once(tmp_path: Path, source: str) -> None:
    notebook = clean()
    notebook.cells.append(new_markdown_cell(source, id="label"))
    assert found(tmp_path, notebook, "chapters") == []
    assert ["defines the label" in line for line in found(tmp_path, notebook, "models")] == [True]
    named = clean()
    named.cells[2].metadata.mystnb.figure.name = "fig-x"
    assert found(tmp_path, named, "chapters") == []
    assert ["names its figure fig-x" in line for line in found(tmp_path, named, "measure")] == [True]


def test_draws() -> None:
    assert draws("%config x = 1\nx = 1\ndrawings.trie_drawing(x)")
    assert draws("found.picture(columns=2)")
    assert draws("style.each(lambda part: part, frame)")
    assert not draws("style.use_style()")
    assert not draws("found.table()")
    assert not draws("other.trie_drawing(x)")
