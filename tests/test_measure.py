"""The stage that measures: what is not asked for leaves empty outputs, and tables appear when all of them are there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nbformat
import pandas as pd
import pytest
from torch import nn

from calibnb.benchmarks import measuring, registry
from calibnb.benchmarks.variants import Variant
from calibnb.models.operations import Operations
from calibnb.pipeline import execute, measure, needed, params, warm

MODEL = "./two words"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A project whose notebooks are not run; what would have run."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("benchmarks: {novelty: {variants: [base]}, openended: {variants: all}}\n")
    found: list[list[str]] = []
    monkeypatch.setattr(execute, "main", lambda given: found.append(given) or 7)
    monkeypatch.setattr(warm, "hand_over", lambda module, given: None)
    return found


def test_a_variant_that_is_not_asked_for_leaves_empty_outputs_and_starts_nothing(started: list[list[str]]) -> None:
    for _ in range(2):
        assert measure.main(["novelty", MODEL, "soft"]) == 0
    assert started == []
    left = [path.name for path in Path("results/novelty/two words/soft").iterdir()]
    assert left == ["nothing.txt"]  # an empty folder would not come back from a cache
    assert json.loads(Path("results/novelty/two words/soft.json").read_text()) == {}
    page = nbformat.read(Path("book/executed/measure/novelty/two words/soft.ipynb"), as_version=4)
    nbformat.validate(page)
    assert page.cells == []


@pytest.mark.parametrize(("benchmark", "variant"), [("novelty", "base"), ("openended", "base"), ("openended", "soft")])
def test_a_variant_that_is_asked_for_runs_its_notebook(started: list[list[str]], benchmark: str, variant: str) -> None:
    assert measure.main([benchmark, MODEL, variant]) == 7
    page = f"book/executed/measure/{benchmark}/two words/{variant}.ipynb"
    given = ["-p", "model", MODEL, "-p", "variant", variant]
    assert started == [[f"notebooks/measure/{benchmark}.ipynb", page, *given]]
    assert not Path("results").exists()


@pytest.mark.parametrize("stage", ["ordinary", "temperature"])
def test_what_nothing_needs_leaves_empty_outputs_and_what_is_needed_runs_its_notebook(
    started: list[list[str]], stage: str
) -> None:
    write = Path("items/needed") / f"{stage}.yaml"
    write.parent.mkdir(parents=True)
    write.write_text("mixed: false\nsoft: false\n")
    assert needed.main([stage, MODEL]) == 0
    assert started == []
    assert json.loads(Path(f"results/{stage}/two words.json").read_text()) == {"tflop": 0.0}
    page = nbformat.read(Path(f"book/executed/{stage}/two words.ipynb"), as_version=4)
    assert page.cells == []
    outputs = {"ordinary": "models/two words/ordinary/soft.jsonl", "temperature": "variants/two words/temperature"}
    assert Path(outputs[stage]).exists()
    write.write_text("mixed: true\nsoft: false\n")
    assert needed.main([stage, MODEL]) == 7
    page_of_stage = f"book/executed/{stage}/two words.ipynb"
    assert started == [[f"notebooks/models/{stage}.ipynb", page_of_stage, "-p", "model", MODEL]]


@pytest.mark.parametrize(
    ("methods", "variants", "mix", "fits"),
    [
        (["soft"], ["base", "soft"], {"soft": False}, False),
        (["soft", "mixed", "paired"], ["base", "soft"], {"soft": False, "mixed": True, "paired": False}, False),
        (["soft"], ["base", "temperature", "soft"], {"soft": False}, True),
    ],
)
def test_what_a_study_needs(methods: list[str], variants: list[str], mix: dict[str, bool], fits: bool) -> None:
    few = {"methods": methods, "variants": variants}
    few |= {"benchmarks": {name: {"variants": ["base", "soft"]} for name in registry.blocks()}}
    assert params.parse(params.merge(params.read(ROOT / "params.yaml"), few)).needed() == {
        "ordinary": mix,
        "temperature": {"temperature": fits},
    }


def test_a_file_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert measure.main(["novelty", MODEL, "soft"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("params.yaml: ") and error.count("\n") == 1
    assert not Path("results").exists()


def adapter(seed: int) -> Variant:
    nothing, operations = cast(Any, None), Operations(nn.Linear(2, 3))
    operations.count = 10**9 * seed
    return Variant(MODEL, "soft", seed, cast(Any, SimpleNamespace(operations=operations)), nothing, nothing)


def test_tables_of_all_adapters_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Path(".scratch/novelty/two words/soft-11.jsonl")
    kept.parent.mkdir(parents=True)
    kept.touch()
    found = measuring.Tables("novelty", MODEL, "soft")
    first = adapter(11)
    found.add(first, prompts=pd.DataFrame({"id": ["a", "b"]}))
    found.add(first, answers=pd.DataFrame({"text": ["x"]}))
    found.add(adapter(29), prompts=pd.DataFrame({"id": ["a"]}), answers=pd.DataFrame({"text": ["y"]}))
    whole = pd.DataFrame({"id": ["a", "b", "a"], "model": MODEL, "variant": "soft", "seed": [11, 11, 29]})
    pd.testing.assert_frame_equal(found["prompts"], whole)
    assert list(found.tables()) == ["prompts", "answers"]
    assert kept.is_file() and not Path("results").exists()
    found.write({"distinct": 0.5})
    folder = Path("results/novelty/two words")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "soft" / "prompts.parquet"), whole)
    assert pd.read_parquet(folder / "soft" / "answers.parquet")["text"].tolist() == ["x", "y"]
    assert json.loads((folder / "soft.json").read_text()) == {"distinct": 0.5, "tflop": 0.04}
    assert not kept.exists()
